"""Devices of this machine: which exist, and how many a cell may use.

A device is a CUDA GPU (found through NVML) or, without one, a CPU core that runs one rank.
"""

import functools
import os
from dataclasses import dataclass

from sweep.config import EngineConfig, Hardware, Model


@dataclass(frozen=True)
class Devices:
    """What a cell may run on. `kind` is "cpu" or "cuda"; `count` devices at most."""

    kind: str
    count: int

    def describe(self, count: int) -> str:
        """`4 GPUs`, `1 CPU core`: for messages."""
        unit = "GPU" if self.kind == "cuda" else "CPU core"
        return f"{count} {unit}{'' if count == 1 else 's'}"


@functools.cache
def cuda_device_count() -> int:
    """CUDA GPUs that NVML sees; 0 without driver or library. CUDA_VISIBLE_DEVICES limits it by its length."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            count = int(pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no driver, no library, no permission: in each case there is no GPU that we can use
        return 0
    visible = visible_devices()
    return count if visible is None else min(count, len(visible))


def visible_devices() -> tuple[str, ...] | None:
    """What CUDA_VISIBLE_DEVICES names; None when it is not set."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if told is None else tuple(part.strip() for part in told.split(",") if part.strip())


def visible_as(gpu_ids: tuple[int, ...]) -> str:
    """CUDA_VISIBLE_DEVICES for leased devices, counted within what we ourselves may see."""
    outer = visible_devices()
    return ",".join(outer[i] if outer else str(i) for i in gpu_ids)


def discover(engine: EngineConfig, model: Model, hardware: Hardware) -> Devices:
    """Devices for this engine and model. `auto`: embedded models run on the CPU, real ones on CUDA."""
    kind = engine.device
    if kind == "auto":
        kind = "cpu" if model.embedded else "cuda"
    found = cuda_device_count() if kind == "cuda" else (os.cpu_count() or 1)
    if hardware.gpus is not None:
        # On a CPU, more ranks than cores only run slower. A GPU that does not exist cannot be used.
        found = hardware.gpus if kind == "cpu" else min(found, hardware.gpus)
    return Devices(kind, found)


def describe_gpus() -> dict[str, object]:
    """GPUs and driver for the manifest; {"gpus": []} without NVML."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            names = [
                str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i)))
                for i in range(pynvml.nvmlDeviceGetCount())
            ]
            return {"gpus": names, "driver": str(pynvml.nvmlSystemGetDriverVersion())}
        finally:
            pynvml.nvmlShutdown()
    except Exception:
        return {"gpus": []}
