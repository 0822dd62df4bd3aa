"""PhaseRecorder: how long each phase of a request took on the host and, with CUDA, on the GPU.

On a CPU a phase is timed with `time.perf_counter`; on a GPU a pair of CUDA events is added, read
only when the request is over so that nothing synchronises inside it. Knows nothing of pipelines:
`instrument.py` decides where phases open and close.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiling import ranges

if TYPE_CHECKING:
    import torch

PHASES = (
    "request",
    "text_encode",
    "image_encode",
    "ar_prefill",
    "ar_decode",
    "denoise_step",
    "dit_forward",
    "vae_decode",
    "stage_transfer",
)
"""Names of phases, in the order of a request. `dit_forward` lies inside `denoise_step`."""

NOT_EXCLUSIVE = ("request", "dit_forward")
"""Phases that overlap others: `request` holds all of them, `dit_forward` lies inside `denoise_step`."""

EXCLUSIVE_PHASES = tuple(phase for phase in PHASES if phase not in NOT_EXCLUSIVE)
"""Phases that follow each other; with `OTHER` they add up to the request."""

OTHER = "other"
"""The rest of a request, outside its exclusive phases."""


@dataclass(frozen=True)
class PhaseRecord:
    """One occurrence of a phase. `start_s` counts from the recorder's epoch; `gpu_ms` is None on a CPU."""

    rank: int
    phase: str
    index: int  # running number of this phase within its request
    start_s: float
    host_ms: float
    gpu_ms: float | None = None
    request_id: str = ""  # first request of the batch; filled in when the batch is over


@dataclass
class OpenPhase:
    """A phase that has begun. `events` is its CUDA event pair, None on a CPU."""

    phase: str
    index: int
    start: float  # perf_counter, seconds
    events: "tuple[torch.cuda.Event, torch.cuda.Event] | None"


@dataclass
class ClosedPhase:
    """A phase that has ended but whose GPU time has not been read yet."""

    opened: OpenPhase
    end: float  # perf_counter, seconds

    def over(self) -> bool:
        """Whether the GPU has finished it."""
        return self.opened.events is None or self.opened.events[1].query()


class PhaseRecorder:
    """Records the phases of one rank, each also as an NVTX range. For one thread; phases nest strictly.

    `epoch` (seconds of perf_counter) is what `PhaseRecord.start_s` counts from; set it to share one epoch
    between ranks of a machine. `watch` is called before every phase begins or ends, with the phases open until then.
    """

    def __init__(self, rank: int, device: str) -> None:
        self.rank = rank
        self.device = device
        self.epoch = time.perf_counter()
        self.watch: Callable[[Sequence[str]], None] | None = None
        self._open: list[OpenPhase] = []
        self._closed: list[ClosedPhase] = []
        self._counts: Counter[str] = Counter()
        self._pool: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def is_open(self, phase: str) -> bool:
        """Whether `phase` has begun and not ended."""
        return any(opened.phase == phase for opened in self._open)

    def begin(self, phase: str, index: int | None = None) -> None:
        """Open `phase` inside whatever is open. `index` defaults to its running number since the last `take`."""
        if index is None:
            index = self._counts[phase]
        self._counts[phase] = index + 1
        self._look()
        ranges.push(phase, index)
        events = self._event_pair() if self.device == "cuda" else None
        self._open.append(OpenPhase(phase, index, time.perf_counter(), events))
        if events is not None:
            events[0].record()

    def end(self, phase: str) -> None:
        """Close `phase` and whatever was left open inside it. Raises ValueError when it is not open."""
        if not self.is_open(phase):
            raise ValueError(f"cannot end phase '{phase}', because it is not open; open: {self._names() or 'none'}")
        while self._close_innermost() != phase:
            pass

    @contextmanager
    def phase(self, name: str, index: int | None = None) -> Iterator[None]:
        """Record the block as phase `name`, even if it raises."""
        self.begin(name, index)
        try:
            yield
        finally:
            if self.is_open(name):  # not when `abort` came first
                self.end(name)

    def abort(self) -> None:
        """Close everything that is open, so that a failed request leaves no range behind."""
        while self._open:
            self._close_innermost()

    def take(self) -> tuple[PhaseRecord, ...]:
        """Return and clear what was recorded since the last call, in order of start; waits for the GPU.

        Raises RuntimeError while a phase is open.
        """
        return self.read(self.drain())

    def drain(self) -> tuple[ClosedPhase, ...]:
        """The first half of `take`, which does not wait; raises like `take`."""
        if self._open:
            raise RuntimeError(f"phases are still open: {self._names()}; end or abort them before take()")
        closed = tuple(sorted(self._closed, key=lambda phase: phase.opened.start))
        self._closed = []
        self._counts.clear()
        return closed

    def read(self, closed: Sequence[ClosedPhase]) -> tuple[PhaseRecord, ...]:
        """The second half: the times of what `drain` returned. Waits for the GPU; may run on another thread."""
        for phase in closed:
            if phase.opened.events is not None:
                phase.opened.events[1].synchronize()
        records = tuple(self._record(phase) for phase in closed)
        self._pool += [phase.opened.events for phase in closed if phase.opened.events is not None]
        return records

    def _look(self) -> None:
        if self.watch is not None:
            self.watch([opened.phase for opened in self._open])

    def _close_innermost(self) -> str:
        self._look()
        opened = self._open.pop()
        if opened.events is not None:
            opened.events[1].record()
        self._closed.append(ClosedPhase(opened, time.perf_counter()))
        ranges.pop()
        return opened.phase

    def _record(self, closed: ClosedPhase) -> PhaseRecord:
        opened = closed.opened
        return PhaseRecord(
            rank=self.rank,
            phase=opened.phase,
            index=opened.index,
            start_s=opened.start - self.epoch,
            host_ms=(closed.end - opened.start) * 1000.0,
            gpu_ms=None if opened.events is None else opened.events[0].elapsed_time(opened.events[1]),
        )

    def _event_pair(self) -> "tuple[torch.cuda.Event, torch.cuda.Event]":
        if self._pool:
            return self._pool.pop()
        import torch

        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def _names(self) -> str:
        return " > ".join(opened.phase for opened in self._open)
