"""Predicts what a cell will take, and says afterwards how far it was from the limit.

Counts from a model's own shape. Pure, and without torch, except for `measure`, which measures this machine.
"""
