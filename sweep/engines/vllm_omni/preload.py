"""Imported once by the server that engines are forked from: all that a vLLM-Omni process imports later.

Importing must not touch CUDA, which cannot be used again after a fork; `cuda_kept_away` makes sure of that. What a
module prints goes to the server's log, never to the terminal.
"""

import contextlib
import os
from collections.abc import Iterator

from sweep.engines.process.forkserver import LOG_VARIABLE, import_all

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}
"""Nothing is downloaded or reported; torch counts GPUs through NVML, because counting them through CUDA breaks every
process forked later; and no AR stage compiles FlashInfer's sampler (70 s, once per host), which vLLM never uses for
requests with a seed, and all of ours have one."""

MODULES = (
    "torch",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "transformers",
    "diffusers",
    "vllm",
    "vllm_omni.entrypoints.omni",
    "vllm_omni.diffusion.worker.diffusion_worker",
    "vllm_omni.diffusion.executor.multiproc_executor",
    "vllm_omni.diffusion.stage_diffusion_proc",
    "vllm_omni.diffusion.registry",
    "vllm_omni.diffusion.cache.selector",
    "vllm_omni.diffusion.attention.selector",
    "vllm_omni.engine.stage_engine_core_proc",
    "vllm_omni.worker.gpu_ar_worker",
    "vllm.model_executor.layers.quantization.fp8",
    "vllm.v1.executor.multiproc_executor",
    "vllm_omni.diffusion.models.qwen_image.pipeline_qwen_image",
    "vllm_omni.diffusion.models.glm_image.pipeline_glm_image",
    "profiling.vllm_plugin",
    "profiling.vllm_plugin.diffusion",
    "profiling.vllm_plugin.autoregressive",
    "profiling.vllm_plugin.transfer",
    "sweep.engines.vllm_omni.engine",
)
"""In this order; one that is missing in the installed version is left out."""


@contextlib.contextmanager
def cuda_kept_away() -> Iterator[None]:
    """In this block torch does not initialise CUDA: a module that asks for it fails, and is imported later instead.

    Some modules ask for the GPU's name or compute capability when they are imported; NVML provides those as well.
    """
    import torch

    def refuse() -> None:
        raise RuntimeError("CUDA must not be initialised in the process that engines are forked from")

    instead = {"_lazy_init": refuse, "get_device_capability": capability, "get_device_name": device_name}
    kept = {name: getattr(torch.cuda, name) for name in instead}
    try:
        for name, function in instead.items():
            setattr(torch.cuda, name, function)
        yield
    finally:
        for name, function in kept.items():
            setattr(torch.cuda, name, function)


def capability(device: object = None) -> tuple[int, int]:
    """Compute capability of the host's first GPU, e.g. (9, 0), from NVML. Assumes that a host's GPUs are alike."""
    import pynvml

    with first_gpu() as gpu:
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(gpu)
        return int(major), int(minor)


def device_name(device: object = None) -> str:
    """Name of the host's first GPU, e.g. NVIDIA H200, from NVML."""
    import pynvml

    with first_gpu() as gpu:
        return str(pynvml.nvmlDeviceGetName(gpu))


@contextlib.contextmanager
def first_gpu() -> Iterator[object]:
    """NVML's handle of the host's first GPU."""
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml.nvmlDeviceGetHandleByIndex(0)
    finally:
        pynvml.nvmlShutdown()


if __name__ != "__main__" and os.environ.get(LOG_VARIABLE):
    os.environ |= ENVIRONMENT
    with cuda_kept_away():
        import_all(MODULES)
