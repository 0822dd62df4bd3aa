"""Which phase of a measured cell takes longest, and whether its GPU or its host is what it waits for.

From the phases' own times and, where it lies on their axis, the GPU's use meanwhile. A trace says more
(`python -m profiling analyze`); this says where to look. Knows nothing of files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiling.phases import PHASES, PhaseRecord
from profiling.recorded import RecordedCell
from profiling.timeline.lanes import HOST, Window, held, processes

INSIDE_OTHERS = ("request", "dit_forward")
APART = 1.1  # host and GPU times whose ratio is below are the same
IDLE_PCT = 80.0  # GPU use below which it waits for something
GAP_S = 0.005  # between two of one phase that is no pause of it
ALWAYS = Window(-math.inf, math.inf)
SAMPLE_COVER = 0.8  # part of a reading's time that a phase must fill for the reading to speak of it


@dataclass(frozen=True)
class PhaseTime:
    """One phase of rank 0 in a window, all its occurrences together."""

    phase: str
    count: int
    host_ms: float
    gpu_ms: float | None  # None on a CPU, and of what ran on the host alone
    share: float  # of the window; on the GPU where it ran there
    gpu_busy_pct: float | None = None  # mean over readings that fall into it; None where there are none

    @property
    def ms(self) -> float:
        """What it took: on the GPU where it ran there."""
        return self.host_ms if self.gpu_ms is None else self.gpu_ms


def phase_times(cell: RecordedCell, window: Window) -> tuple[PhaseTime, ...]:
    """Phases of rank 0 that begin in the window, in the order of a request."""
    whole_ms = (window.end_s - window.start_s) * 1000
    records: dict[str, list[PhaseRecord]] = {}
    for record in cell.phases:
        if record.rank == 0 and window.start_s <= record.start_s < window.end_s:
            records.setdefault(record.phase, []).append(record)
    spans: dict[str, list[tuple[float, float]]] = {}
    for process in processes([record for record in cell.phases if record.rank == 0]):
        for one in (one for lane in process.lanes if lane.kind != HOST for one in lane.slices):
            if window.start_s <= one.record.start_s < window.end_s:
                spans.setdefault(one.record.phase, []).append((one.start_s, one.end_s))
    found = []
    for phase in sorted(records, key=lambda name: PHASES.index(name) if name in PHASES else len(PHASES)):
        on_gpu = [record.gpu_ms for record in records[phase] if record.gpu_ms is not None]
        host_ms, gpu_ms = sum(record.host_ms for record in records[phase]), sum(on_gpu) if on_gpu else None
        share = (host_ms if gpu_ms is None else gpu_ms) / whole_ms
        busy = _gpu_busy(cell, spans.get(phase, []))
        found.append(PhaseTime(phase, len(records[phase]), host_ms, gpu_ms, share, busy))
    return tuple(found)


def bottleneck(times: Sequence[PhaseTime]) -> PhaseTime | None:
    """The phase that takes longest, of those that lie side by side."""
    return max((one for one in times if one.phase not in INSIDE_OTHERS), key=lambda one: one.ms, default=None)


def held_up_by(time: PhaseTime) -> str:
    """Whether the host or the GPU dominates a phase, in words; "" on a CPU, where there is no such question.

    A GPU that takes longer than the host needs to issue the work is the limit. Where both take the same, either the
    host waits for the GPU or the GPU for the host: the GPU's use tells which.
    """
    if time.gpu_ms is None or time.host_ms <= 0 or time.gpu_ms <= 0:
        return ""
    busy = "" if time.gpu_busy_pct is None else f"; the GPU is busy {time.gpu_busy_pct:.0f} % of it"
    if time.gpu_ms >= APART * time.host_ms:
        said = "GPU time dominates, the host is ahead"
    elif time.host_ms >= APART * time.gpu_ms:
        said = "host time dominates"
    elif time.gpu_busy_pct is None:
        said = "as long as each other, one waits for the other"
    elif time.gpu_busy_pct < IDLE_PCT:
        said = "as long as each other, the GPU waits for the host"
    else:
        said = "as long as each other, the host waits for the GPU"
    return f"GPU {_seconds(time.gpu_ms)}, host {_seconds(time.host_ms)}: {said}{busy}"


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.3g} ms"


def _gpu_busy(cell: RecordedCell, spans: Sequence[tuple[float, float]]) -> float | None:
    """Mean use of the busiest GPU over readings whose time one phase fills; a reading speaks of the time since the one
    before it."""
    filled: list[tuple[float, float]] = []
    for start_s, end_s in sorted(spans):
        if filled and start_s <= filled[-1][1] + GAP_S:
            filled[-1] = filled[-1][0], max(filled[-1][1], end_s)
        else:
            filled.append((start_s, end_s))
    means = []
    for gpu in {r.gpu_index for r in cell.telemetry if r.gpu_index is not None}:
        steps = held([r for r in cell.telemetry if r.gpu_index == gpu], "gpu_util_pct", ALWAYS)
        values = []
        for (begin_s, value), (end_s, _) in zip(steps[::2], steps[1::2], strict=False):
            covered_s = sum(max(0.0, min(end_s, end) - max(begin_s, begin)) for begin, end in filled)
            if covered_s >= SAMPLE_COVER * (end_s - begin_s) > 0:
                values.append(value)
        if values:
            means.append(sum(values) / len(values))
    return max(means, default=None)
