"""What a configuration should take before it runs, from counts, measured costs and laws. Pure: no torch, no engines,
no files of sweeps; every figure says what it rests on."""
