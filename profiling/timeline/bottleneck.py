"""Which phase of a measured cell takes longest, and whether its GPU or its host is what it waits for.

From the phases' own times and, where it lies on their axis, the GPU's use meanwhile. A trace says more
(`python -m profiling analyze`); this says where to look. Knows nothing of files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiling.measured_cell import RecordedCell
from profiling.phases import NOT_EXCLUSIVE, PHASES, PhaseRecord
from profiling.timeline.lanes import HOST, Window, held, host_end_s, processes

APART = 1.1  # host and GPU times whose ratio is below are the same
IDLE_PCT = 80.0  # GPU use below which it waits for something
TOUCHES_S = 1e-6  # overlap that is rounding
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
    """Phases of rank 0 in the order of a request, each for the part of it that lies in the window."""
    whole_ms = (window.end_s - window.start_s) * 1000
    mine = [record for record in cell.phases if record.rank == 0]
    spans = {
        id(one.record): (one.start_s, one.end_s)
        for process in processes(mine)
        for lane in process.lanes
        if lane.kind != HOST
        for one in lane.slices
    }
    inside: dict[str, list[tuple[PhaseRecord, float, float]]] = {}  # with the parts of host and GPU time in the window
    for record in mine:
        on_host = _part((record.start_s, host_end_s(record)), window)
        on_gpu = _part(spans.get(id(record), (record.start_s, host_end_s(record))), window)
        if on_host or on_gpu:
            inside.setdefault(record.phase, []).append((record, on_host, on_gpu))
    found = []
    for phase in sorted(inside, key=lambda name: PHASES.index(name) if name in PHASES else len(PHASES)):
        host_ms = sum(record.host_ms * part for record, part, _ in inside[phase])
        times = [record.gpu_ms * part for record, _, part in inside[phase] if record.gpu_ms is not None]
        gpu_ms = sum(times) if times else None
        share = (host_ms if gpu_ms is None else gpu_ms) / whole_ms
        busy = _gpu_busy(cell, [spans[id(record)] for record, _, _ in inside[phase] if id(record) in spans])
        found.append(PhaseTime(phase, len(inside[phase]), host_ms, gpu_ms, share, busy))
    return tuple(found)


def _part(span: tuple[float, float], window: Window) -> float:
    """How much of a span lies in the window, from 0 to 1; neighbours that only touch it do not."""
    start_s, end_s = span
    covered_s = min(end_s, window.end_s) - max(start_s, window.start_s)
    if end_s - start_s <= TOUCHES_S:
        return float(window.start_s <= start_s < window.end_s)
    return covered_s / (end_s - start_s) if covered_s > TOUCHES_S else 0.0


def bottleneck(times: Sequence[PhaseTime]) -> PhaseTime | None:
    """The phase that takes longest, of those that lie side by side."""
    return max((one for one in times if one.phase not in NOT_EXCLUSIVE), key=lambda one: one.ms, default=None)


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
