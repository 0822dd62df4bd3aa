"""GPUs of this machine through whichever driver responds: NVML, else AMD SMI, else none.

A machine without a driver simply has no GPU columns. Knows nothing of processes, nor of what readings mean.
"""

from collections.abc import Sequence
from typing import Protocol

from profiling.telemetry.samples import GpuReading, GpuUser


class GpuReader(Protocol):
    """A connection to the driver."""

    name: str

    def read(self) -> list[GpuReading]:
        """One reading per GPU."""

    def users(self) -> list[GpuUser]:
        """Processes with a compute context on the GPUs, as far as the driver reports them."""

    def close(self) -> None:
        """Disconnect; safe to call twice."""


class NoGpus:
    """No GPUs were requested, or no driver responds."""

    name = "none"

    def read(self) -> list[GpuReading]:
        """Nothing."""
        return []

    def users(self) -> list[GpuUser]:
        """No processes."""
        return []

    def close(self) -> None:
        """Nothing to close."""


def open_reader(indices: Sequence[int] | None) -> GpuReader:
    """Connect to the driver for these GPUs by its own index: None for all, () for none.

    No package, no driver, no device, a broken driver: all mean no GPU columns.
    """
    if indices is not None and not indices:
        return NoGpus()
    try:
        from profiling.telemetry.nvidia import NvidiaReader

        return NvidiaReader(indices)
    except Exception:
        pass
    try:
        from profiling.telemetry.amd import AmdReader

        return AmdReader(indices)
    except Exception:
        return NoGpus()
