"""What a cell will take before it runs, and how far from the limit it was after it ran.

Counts from a model's own shapes. Needs neither torch nor a GPU.
"""
