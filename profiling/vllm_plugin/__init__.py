"""The plugin of vLLM-Omni: what its processes did, told by themselves.

`install` is its entry point (`hooks`). A pipeline of the diffusion stage is observed by `diffusion`, counted by
`session` and described by `loaded`; the steps of an AR stage are observed by `autoregressive`, the hand-over between
the two by `transfer`. All write lines that `files` defines. Importing this imports neither torch nor vllm_omni.
"""

from profiling.vllm_plugin.hooks import install

__all__ = ["install"]
