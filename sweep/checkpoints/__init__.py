"""Random-weight checkpoints at real widths and a chosen depth, for machines that hold no trained weights.

`python -m sweep.checkpoints MODEL` writes a folder in the layout that vLLM-Omni and diffusers load, so that
speed, memory, phases and feature combinations can be measured without a download. Quality cannot: every such folder
has a `random_weights.json` (see `marker.py`), and reports say so.
Imports nothing heavy: torch, diffusers and transformers are imported inside functions.
"""
