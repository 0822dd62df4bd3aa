"""Memory, CPU and GPU use of a process tree while it is measured, sampled by a separate process.

`samples` holds the samples and pure summaries of them; `processes`, `nvidia` and `amd` are the readers; `gpus` picks
the reader that works here; `worker` is the sampling process; callers use `sampler`, its other end. Knows nothing of
engines.
"""
