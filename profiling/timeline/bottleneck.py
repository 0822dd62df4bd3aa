"""Which phase of a measured cell takes longest, and whether the GPU or the host holds it up.

Uses the times of the phases and, where telemetry shares their time axis, the GPU utilisation in them. A trace
(`python -m profiling analyze`) tells you more; this tells you where to look. Knows nothing of files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiling.measured_cell import RecordedCell
from profiling.phases import NOT_EXCLUSIVE, PHASES, PhaseRecord
from profiling.timeline.lanes import HOST, Window, held, host_end_s, processes

APART = 1.1  # host and GPU times count as equal below this ratio
IDLE_PCT = 80.0  # below this utilisation the GPU waits for something
TOUCHES_S = 1e-6  # overlaps up to this length are rounding
GAP_S = 0.005  # two occurrences of one phase that are this close count as one
ALWAYS = Window(-math.inf, math.inf)
SAMPLE_COVER = 0.8  # share of a reading's time that a phase must fill for the reading to count for it

GPU, HOST_TIME, EITHER, WAITS_FOR_HOST, WAITS_FOR_GPU = "gpu", "host", "either", "waits_for_host", "waits_for_gpu"
WORDS = {
    GPU: "GPU time dominates and the host runs ahead",
    HOST_TIME: "host time dominates",
    EITHER: "both take equally long, so one waits for the other",
    WAITS_FOR_HOST: "both take equally long, and the GPU waits for the host",
    WAITS_FOR_GPU: "both take equally long, and the host waits for the GPU",
}
"""What holds up a phase (see `limit`), in words."""


@dataclass(frozen=True)
class PhaseTime:
    """All occurrences of one phase of rank 0 in a window."""

    phase: str
    count: int
    host_ms: float
    gpu_ms: float | None  # None on a CPU, and for what ran on the host only
    share: float  # of the window; GPU time if there is any, else host time
    gpu_busy_pct: float | None = None  # mean over readings within the phase; None where there are none

    @property
    def ms(self) -> float:
        """GPU time if there is any, else host time."""
        return self.host_ms if self.gpu_ms is None else self.gpu_ms


def phase_times(cell: RecordedCell, window: Window) -> tuple[PhaseTime, ...]:
    """Phases of rank 0 in the order of a request; of each, only the part inside the window counts."""
    whole_ms = (window.end_s - window.start_s) * 1000
    mine = [record for record in cell.phases if record.rank == 0]
    spans = {
        id(one.record): (one.start_s, one.end_s)
        for process in processes(mine)
        for lane in process.lanes
        if lane.kind != HOST
        for one in lane.slices
    }
    inside: dict[str, list[tuple[PhaseRecord, float, float]]] = {}  # with the shares of host and GPU time in the window
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
    """Share of a span that lies in the window, from 0 to 1; a neighbour that only touches the window has 0."""
    start_s, end_s = span
    covered_s = min(end_s, window.end_s) - max(start_s, window.start_s)
    if end_s - start_s <= TOUCHES_S:
        return float(window.start_s <= start_s < window.end_s)
    return covered_s / (end_s - start_s) if covered_s > TOUCHES_S else 0.0


def bottleneck(times: Sequence[PhaseTime]) -> PhaseTime | None:
    """The longest of the phases that do not overlap."""
    return max((one for one in times if one.phase not in NOT_EXCLUSIVE), key=lambda one: one.ms, default=None)


def limit(time: PhaseTime) -> str:
    """What holds up a phase, as a key of WORDS; "" on a CPU, where there is nothing to decide.

    The GPU is the limit if it takes longer than the host needs to issue the work. If both take equally long, one waits
    for the other, and the GPU utilisation shows which.
    """
    if time.gpu_ms is None or time.host_ms <= 0 or time.gpu_ms <= 0:
        return ""
    if time.gpu_ms >= APART * time.host_ms:
        return GPU
    if time.host_ms >= APART * time.gpu_ms:
        return HOST_TIME
    if time.gpu_busy_pct is None:
        return EITHER
    return WAITS_FOR_HOST if time.gpu_busy_pct < IDLE_PCT else WAITS_FOR_GPU


def held_up_by(time: PhaseTime) -> str:
    """`limit` in words, with its numbers."""
    if not (limiting := limit(time)) or time.gpu_ms is None:
        return ""
    busy = "" if time.gpu_busy_pct is None else f"; the GPU is busy {time.gpu_busy_pct:.0f} % of the time"
    return f"GPU {_seconds(time.gpu_ms)}, host {_seconds(time.host_ms)}: {WORDS[limiting]}{busy}"


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.3g} ms"


def _gpu_busy(cell: RecordedCell, spans: Sequence[tuple[float, float]]) -> float | None:
    """Mean utilisation of the busiest GPU, over readings whose time the phase fills. A reading covers the time since
    the previous one."""
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
