"""Devices of this machine: how many there are, leases so that two cells never share one, and who else uses them.

A device is a CUDA GPU (found through NVML) or, without one, a CPU core that runs one rank. A lease is
one `flock` per device, all or nothing, in a fixed order, freed by the kernel when its process dies.
"""

import contextlib
import fcntl
import functools
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from profiling.telemetry.gpus import open_reader
from profiling.telemetry.samples import GpuUser
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
    """CUDA GPUs that NVML sees; 0 without driver or library. Honours CUDA_VISIBLE_DEVICES by its length."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            count = int(pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no driver, no library, no permission: all mean "none that we can use"
        return 0
    return count if visible_devices() is None else min(count, len(visible_devices() or ()))


def visible_devices() -> tuple[str, ...] | None:
    """What CUDA_VISIBLE_DEVICES names; None where it is not set."""
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
        # On a CPU more ranks than cores only run slower; a GPU that is not there cannot be asked for.
        found = hardware.gpus if kind == "cpu" else min(found, hardware.gpus)
    return Devices(kind, found)


LEASES_VARIABLE = "SWEEP_LEASES"
"""Names another folder for leases, for sweeps that shall not wait for each other."""


def lease_folder() -> Path:
    """Where all sweeps of this user on this machine keep their locks, whatever temporary folder each has."""
    shared = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(os.environ.get(LEASES_VARIABLE) or shared / f"sweep-leases-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def lease(
    devices: Devices, count: int, waiting: Callable[[str], None], poll_s: float = 0.25
) -> Iterator[tuple[int, ...]]:
    """Hold `count` devices while the block runs; yields their numbers (of GPUs: within CUDA_VISIBLE_DEVICES).

    Takes all or none, always in rising order, so that two waiting groups cannot block each other.
    `waiting` is called once with a message when the devices are not free at once.
    """
    said = False
    locks = [lease_folder() / f"{_device_name(devices.kind, n)}.lock" for n in range(max(devices.count, count))]
    while True:
        held: list[tuple[int, int]] = []
        for number, lock in enumerate(locks):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            held.append((number, handle))
            if len(held) == count:
                break
        if len(held) == count:
            break
        for _, handle in held:
            os.close(handle)
        if not said:
            waiting(f"waiting for {devices.describe(count)} in use by another cell or run")
            said = True
        time.sleep(poll_s)
    try:
        yield tuple(number for number, _ in held)
    finally:
        for _, handle in held:
            os.close(handle)


def _device_name(kind: str, number: int) -> str:
    """The same for every sweep that means this device, whatever part of the machine it sees."""
    if kind != "cuda":
        return f"{kind}{number}"
    visible = visible_devices()
    found = nvml_indices((number,)) if not visible or number < len(visible) else ()
    return f"cuda{found[0]}" if found else re.sub(r"[^\w-]", "_", visible[number] if visible else f"cuda{number}")


GpuPid = tuple[int, int]
"""A process on a GPU: (NVML index, process id as the driver gives it)."""


def nvml_indices(gpu_ids: tuple[int, ...]) -> tuple[int, ...]:
    """NVML's indices of leased GPUs, which we count within CUDA_VISIBLE_DEVICES; () where that cannot be told."""
    outer = visible_devices()
    if not outer:
        return gpu_ids
    if all(part.isdigit() for part in outer):
        return tuple(int(outer[i]) for i in gpu_ids)
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByUUID(outer[i]) for i in gpu_ids]
            return tuple(int(pynvml.nvmlDeviceGetIndex(handle)) for handle in handles)
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # a MIG slice, or a name that the driver does not know
        return ()


def gpu_pids(indices: tuple[int, ...]) -> frozenset[GpuPid]:
    """Processes that are on these GPUs now, as far as the driver tells."""
    reader = open_reader(indices)
    try:
        return frozenset((user.gpu_index, user.pid) for user in reader.users())
    finally:
        reader.close()


def used_gb(indices: tuple[int, ...]) -> tuple[float, ...]:
    """Memory in use on these GPUs now, GB each, by whomever; () where the driver does not tell."""
    reader = open_reader(indices)
    try:
        return tuple(reading.memory_gb for reading in reader.read() if reading.memory_gb is not None)
    finally:
        reader.close()


@dataclass(frozen=True)
class Before:
    """What was on an engine's GPUs before it was; nothing is known of a CPU."""

    indices: tuple[int, ...] = ()  # NVML's
    pids: frozenset[GpuPid] = frozenset()
    used_gb: tuple[float, ...] = ()

    @classmethod
    def now(cls, gpu_ids: tuple[int, ...]) -> "Before":
        """As it is now on these leased GPUs."""
        indices = nvml_indices(gpu_ids) if gpu_ids else ()
        return cls(indices, gpu_pids(indices), used_gb(indices)) if indices else cls()

    def left(self) -> str:
        """Once the engine has ended: what of its memory does not come back; "" when all does."""
        return wait_for_memory(self.indices, self.used_gb)

    def doubts(self) -> tuple[str, ...]:
        """A sentence for each GPU that somebody used whom the driver does not list, such as what an engine left."""
        listed = {index for index, _ in self.pids}
        return tuple(
            f"GPU {index} already held {gb:.1f} GB when the engine started"
            for index, gb in zip(self.indices, self.used_gb, strict=False)
            if gb > IDLE_GB and index not in listed
        )


def disturbances(seen: Iterable[GpuUser], own: frozenset[int], before: Before) -> tuple[str, ...]:
    """A sentence for all that shared the engine's GPUs: processes (see `foreign_users`), and memory of nobody."""
    return (*foreign_users(seen, own, before.pids), *before.doubts())


IDLE_GB = 1.0  # what a GPU may hold that nobody uses
MEMORY_SLACK_GB = 0.5  # what the driver itself may keep


def wait_for_memory(
    indices: tuple[int, ...], before_gb: tuple[float, ...], timeout_s: float = 30.0, poll_s: float = 0.1
) -> str:
    """Wait until these GPUs use no more than `before_gb`; "" when they do, else a sentence that says what is left.

    Memory of an ended process comes back a moment after it; what stays belongs to a process that did not end.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        now_gb = used_gb(indices)
        left = [
            (index, now - before)
            for index, now, before in zip(indices, now_gb, before_gb, strict=False)
            if now > before + MEMORY_SLACK_GB
        ]
        if not left:
            return ""
        if time.monotonic() > deadline:
            return ", ".join(f"GPU {index} holds {gb:.1f} GB more than before the engine" for index, gb in left)
        time.sleep(poll_s)


def foreign_users(seen: Iterable[GpuUser], own: frozenset[int], before: frozenset[GpuPid]) -> tuple[str, ...]:
    """A sentence for every process that was on our GPUs while measuring and is not the engine.

    `own` are process ids of the engine's tree, `before` who was there before the engine. In a container the
    driver may give ids of another namespace, where our own engine looks like a stranger. So a newcomer counts
    only when the driver lists the engine by its own id; who was there before the engine always counts.
    """
    seen = tuple(seen)
    same_namespace = any(user.pid in own for user in seen)
    return tuple(
        f"process {user.pid}{f' ({user.name})' if user.name else ''} also used GPU {user.gpu_index}"
        f"{f' ({user.memory_gb:.1f} GB)' if user.memory_gb else ''} while measuring"
        for user in seen
        if user.pid not in own and (same_namespace or (user.gpu_index, user.pid) in before)
    )


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
