"""Made-up bad input, from seeds: whatever people type or feed in ends with one clear line."""
