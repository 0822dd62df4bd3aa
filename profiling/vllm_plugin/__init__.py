"""The plugin for vLLM-Omni: its processes record what they do.

`install` is the entry point (`hooks`). `diffusion` observes a pipeline of the diffusion stage, `request_session`
counts what it does and `pipeline_facts` describes it. `autoregressive` observes the steps of an AR stage, `transfer`
the hand-over between the two, `kv_transfer` that of KV caches, and `request_names` names served requests as their
clients do. `record_files` defines the lines that all of them write. Importing this imports neither torch nor vllm_omni.
"""

from profiling.vllm_plugin.hooks import install

__all__ = ["install"]
