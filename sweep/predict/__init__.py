"""What a cell will take before it runs, and how far from the limit it was afterwards: counts, limits and hardware.
Pure, and without torch, except for `measure`, which measures this machine."""
