"""Memory, processor and GPU use of a process tree while it is measured, sampled by a process of its own.

`samples` what was seen, and pure summaries of it; `processes`, `nvidia`, `amd` the readers; `gpus` which of them
works here; `worker` the sampling process; `sampler` its other end, which callers use. Knows nothing of engines.
"""
