"""Engines run a model inside a child process; `host.py` is the parent's side of that process.

Only the modules of this package may import torch, diffusers or vllm_omni, and only in the child.
"""
