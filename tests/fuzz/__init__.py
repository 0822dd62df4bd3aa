"""Made-up bad input, from seeds: anything people type or feed in ends with one clear line."""
