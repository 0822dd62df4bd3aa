"""Devices of this machine: which exist, and how many a cell may use.

A device is a CUDA GPU (found through NVML) or, without one, a CPU core that runs one rank.
"""

import contextlib
import functools
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.config.engine import EngineConfig
from sweep.config.hardware import Hardware
from sweep.config.model import Model


@dataclass(frozen=True)
class Devices:
    """What a cell may run on. `kind` is "cpu" or "cuda"; `count` devices at most."""

    kind: str
    count: int

    def describe(self, count: int) -> str:
        """`4 GPUs`, `1 CPU core`: for messages."""
        unit = "GPU" if self.kind == "cuda" else "CPU core"
        return f"{count} {unit}{'' if count == 1 else 's'}"


def cuda_device_count() -> int:
    """CUDA GPUs that a process here can use; 0 without driver or library."""
    uuids = _gpu_uuids()
    visible = visible_gpus()
    if uuids is None or visible is None:
        return len(uuids or ())
    return min(len(uuids), len(visible))


@functools.cache
def _gpu_uuids() -> tuple[str, ...] | None:
    """UUIDs of all GPUs in NVML's order, "" where the driver does not report them; None without driver or library."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return tuple(_uuid(pynvml, index) for index in range(int(pynvml.nvmlDeviceGetCount())))
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no driver, no library, no permission: in each case there is no GPU that we can use
        return None


def _uuid(pynvml: Any, index: int) -> str:
    try:
        uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))
    except Exception:  # an old driver
        return ""
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid)


@dataclass(frozen=True)
class VisibleGpu:
    """A GPU that CUDA_VISIBLE_DEVICES lets a process see."""

    name: str  # as the variable may name it
    index: int | None  # NVML's; None for a MIG slice, and for a UUID where the driver reports none


def visible_gpus() -> tuple[VisibleGpu, ...] | None:
    """What CUDA_VISIBLE_DEVICES lets a process see; None when it is not set, so that all are visible."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if value is None else as_cuda_reads(value, _gpu_uuids())


def as_cuda_reads(value: str, uuids: Sequence[str] | None) -> tuple[VisibleGpu, ...]:
    """CUDA_VISIBLE_DEVICES as CUDA reads it, on a machine with these GPUs (None: unknown ones).

    Numbers, or UUIDs that may be cut short, or MIG slices, but no mixture. The first entry that names no GPU hides
    itself and all later ones, so `-1` hides everything; a GPU named twice hides all. After
    `torch.cuda._parse_visible_devices` and the CUDA programming guide, "CUDA Environment Variables".
    """
    found: list[VisibleGpu] = []
    entries = [entry.strip() for entry in value.split(",")]
    prefix = next((prefix for prefix in ("GPU-", "MIG-") if entries[0].startswith(prefix)), "")
    for entry in entries:
        gpu = _named(entry, prefix, uuids)
        if gpu is None:
            break
        if any(gpu.name == other.name or (gpu.index is not None and gpu.index == other.index) for other in found):
            return ()
        found.append(gpu)
    return tuple(found)


def _named(entry: str, prefix: str, uuids: Sequence[str] | None) -> VisibleGpu | None:
    """The GPU that one entry names; None when it names none."""
    if not prefix:
        number = re.match(r"\+?\d+", entry, re.ASCII)  # as strtoul does: `1gpu` is 1
        index = int(number[0]) if number else -1
        return VisibleGpu(str(index), index) if 0 <= index < (len(uuids) if uuids is not None else 2**31) else None
    if not entry.startswith(prefix):
        return None
    if prefix == "MIG-" or not any(uuids or ()):
        return VisibleGpu(entry, None)
    matching = [index for index, uuid in enumerate(uuids or ()) if uuid.startswith(entry)]
    return VisibleGpu(entry, matching[0]) if len(matching) == 1 else None


def visible_as(gpu_ids: tuple[int, ...]) -> str:
    """CUDA_VISIBLE_DEVICES for leased devices, counted within what we ourselves may see."""
    outer = visible_gpus()
    return ",".join(outer[i].name if outer else str(i) for i in gpu_ids)


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


def device_names() -> list[str]:
    """GPUs that processes here can use, as the driver names them; [] without."""
    gpus, visible = describe_gpus()["gpus"], visible_gpus()
    found = [str(name) for name in gpus] if isinstance(gpus, list) else []
    if visible is None:
        return found
    return [found[gpu.index] for gpu in visible if gpu.index is not None and gpu.index < len(found)]


def is_called(name: str, match: Sequence[str]) -> bool:
    """Whether `match` has this name of a device: as a whole, in any case, with or without the maker.

    H200 NVL, RTX 4090 D and RTX 4090 Laptop GPU are other devices than those whose names they begin with.
    """
    return _without_maker(name) in map(_without_maker, match)


def _without_maker(name: str) -> str:
    return re.sub(r"^(nvidia|amd)\s+", "", " ".join(name.split()).lower())


def cpu_name() -> str:
    """The processor's name from Linux, else from Python."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"


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
