"""Peak device memory of each phase of a request, from torch's allocator.

Read in the first request of each shape after loading, which is a warm-up if the engine warms up. Later requests of that
shape carry the same values, and nothing is read in them. Knows nothing of pipelines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Shape = tuple[int, int, int]
"""Requests in the batch, height and width in pixels."""


@dataclass(frozen=True)
class Allocated:
    """Bytes of one device, as this process's allocator counts them."""

    now: int
    peak: int  # since the last reset
    reserved_peak: int  # reserved from the driver, since the last reset


class Meter(Protocol):
    """Where the numbers come from."""

    def read(self) -> Allocated:
        """The numbers now."""
        ...

    def reset(self) -> None:
        """Begin new peaks at what is allocated now."""
        ...


class CudaMeter:
    """torch's caching allocator on the current CUDA device. Neither call waits for the GPU."""

    def read(self) -> Allocated:
        """As Meter."""
        import torch

        found: dict[str, int] = torch.cuda.memory_stats()
        return Allocated(
            found.get("allocated_bytes.all.current", 0),
            found.get("allocated_bytes.all.peak", 0),
            found.get("reserved_bytes.all.peak", 0),
        )

    def reset(self) -> None:
        """As Meter."""
        import torch

        torch.cuda.reset_peak_memory_stats()


def meter(device: str) -> Meter | None:
    """The meter of a device type; None if no allocator counts there."""
    return CudaMeter() if device == "cuda" else None


def shape_of(batch: Any) -> Shape | None:
    """Shape of a DiffusionRequestBatch; None if it has none."""
    requests = getattr(batch, "requests", None) or ()
    sampling = getattr(requests[0], "sampling_params", None) if requests else None
    height, width = getattr(sampling, "height", None), getattr(sampling, "width", None)
    return (len(requests), int(height), int(width)) if height and width else None


class Peaks:
    """Peaks by phase, from the first completed request of each shape."""

    def __init__(self, source: Meter | None) -> None:
        self._source = source
        self._loaded = source.read().now if source is not None else 0
        self._known: dict[Shape, dict[str, int]] = {}
        self._shape: Shape | None = None
        self._found: dict[str, int] = {}  # of the request that is being read

    def begin(self, shape: Shape | None) -> bool:
        """Begin a request of this shape; returns whether `boundary` has to be called during it."""
        self._shape, self._found = shape, {}
        if self._source is None or shape is None or shape in self._known:
            return False
        self._source.reset()
        return True

    def boundary(self, phases: Sequence[str]) -> None:
        """A phase begins or ends: the peak so far belongs to `phases`, those open until now."""
        assert self._source is not None
        read = self._source.read()
        self._source.reset()
        for phase in phases:
            self._raise(f"memory_peak_{phase}_bytes", read.peak)
        self._raise("memory_reserved_bytes", read.reserved_peak)

    def counts(self) -> dict[str, int]:
        """The values known for the shape of the request that has just completed."""
        if self._shape is None:
            return {}
        if self._found:
            self._known[self._shape] = {"memory_loaded_bytes": self._loaded, **self._found}
            self._found = {}
        return self._known.get(self._shape, {})

    def _raise(self, name: str, value: int) -> None:
        self._found[name] = max(self._found.get(name, 0), value)
