"""What a cell will take before it runs, and how far from the limit it was afterwards.

Counts from a model's own shape. Pure, and without torch, except for `measure`, which measures this machine.
"""
