"""Who else uses an engine's GPUs, and whether the engine's memory is freed when it ends.

Queries the driver; decides nothing about a cell.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from profiling.telemetry.gpus import open_reader
from profiling.telemetry.samples import GpuUser
from sweep.machine.devices import visible_gpus

GpuPid = tuple[int, int]
"""A process on a GPU: (NVML index, process id as the driver reports it)."""


def nvml_indices(gpu_ids: tuple[int, ...]) -> tuple[int, ...]:
    """NVML's indices of leased GPUs, which we count within CUDA_VISIBLE_DEVICES; () when they are unknown."""
    outer = visible_gpus()
    if not outer:
        return gpu_ids
    seen = [outer[number] for number in gpu_ids]
    if all(gpu.index is not None for gpu in seen):
        return tuple(gpu.index for gpu in seen if gpu.index is not None)
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByUUID(gpu.name) for gpu in seen]
            return tuple(int(pynvml.nvmlDeviceGetIndex(handle)) for handle in handles)
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # a MIG slice, or a name that the driver does not know
        return ()


def gpu_pids(indices: tuple[int, ...]) -> frozenset[GpuPid]:
    """Processes that are on these GPUs now, as far as the driver reports them."""
    reader = open_reader(indices)
    try:
        return frozenset((user.gpu_index, user.pid) for user in reader.users())
    finally:
        reader.close()


def used_gb(indices: tuple[int, ...]) -> tuple[float, ...]:
    """Memory in use on these GPUs now, by any process, in GB each; () when the driver does not report it."""
    reader = open_reader(indices)
    try:
        return tuple(reading.memory_gb for reading in reader.read() if reading.memory_gb is not None)
    finally:
        reader.close()


@dataclass(frozen=True)
class Before:
    """What was on an engine's GPUs before the engine started; empty on a CPU."""

    indices: tuple[int, ...] = ()  # NVML's
    pids: frozenset[GpuPid] = frozenset()
    used_gb: tuple[float, ...] = ()

    @classmethod
    def now(cls, gpu_ids: tuple[int, ...]) -> "Before":
        """The current state of these leased GPUs."""
        indices = nvml_indices(gpu_ids) if gpu_ids else ()
        return cls(indices, gpu_pids(indices), used_gb(indices)) if indices else cls()

    def left(self) -> str:
        """Once the engine has ended: which of its memory is not freed; "" when all of it is."""
        return wait_for_memory(self.indices, self.used_gb)

    def doubts(self) -> tuple[str, ...]:
        """One sentence for each GPU with memory in use that no listed process holds, such as what an engine left."""
        listed = {index for index, _ in self.pids}
        return tuple(
            f"GPU {index} already held {gb:.1f} GB when the engine started"
            for index, gb in zip(self.indices, self.used_gb, strict=False)
            if gb > IDLE_GB and index not in listed
        )


def disturbances(seen: Iterable[GpuUser], own: frozenset[int], before: Before) -> tuple[str, ...]:
    """One sentence for each thing that shared the engine's GPUs: processes (see `foreign_users`) and unowned memory."""
    return (*foreign_users(seen, own, before.pids), *before.doubts())


IDLE_GB = 1.0  # memory that an idle GPU may hold

MEMORY_SLACK_GB = 0.5  # memory that the driver itself may keep


def wait_for_memory(
    indices: tuple[int, ...], before_gb: tuple[float, ...], timeout_s: float = 30.0, poll_s: float = 0.1
) -> str:
    """Wait until these GPUs use no more than `before_gb`. Returns "", or a sentence that says what is left.

    Memory of an ended process is freed a moment later; what stays belongs to a process that did not end.
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
            return ", ".join(f"GPU {index} holds {gb:.1f} GB more than before the engine started" for index, gb in left)
        time.sleep(poll_s)


def foreign_users(seen: Iterable[GpuUser], own: frozenset[int], before: frozenset[GpuPid]) -> tuple[str, ...]:
    """One sentence for every process that was on our GPUs while measuring and is not the engine.

    `own` holds the process ids of the engine's tree, `before` the processes that were there before the engine. In a
    container the driver may report ids of another namespace, in which our own engine looks foreign. So a newcomer
    counts only when the driver lists the engine by its own id; a process from before the engine always counts.
    """
    seen = tuple(seen)
    same_namespace = any(user.pid in own for user in seen)
    return tuple(
        f"process {user.pid}{f' ({user.name})' if user.name else ''} also used GPU {user.gpu_index}"
        f"{f' ({user.memory_gb:.1f} GB)' if user.memory_gb else ''} while measuring"
        for user in seen
        if user.pid not in own and (same_namespace or (user.gpu_index, user.pid) in before)
    )
