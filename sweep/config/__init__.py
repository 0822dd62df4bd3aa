"""The schema of a run: a module for each configuration group, each field with its unit and meaning.

Range checks are in `__post_init__`, next to the fields they guard, and run in `OmegaConf.to_object`.
Knows nothing of how a value is used. Files under conf/ choose values, never types.
"""
