"""Measuring and explaining one generation run. Knows nothing of sweeps, cells or Hydra."""
