"""What a timeline shows of a measured cell: processes, their lanes of phases, and curves of telemetry.

Pure decisions over recorded values; a picture, a trace and a page are made from the same lanes. Knows nothing of
files, nor of how anything is drawn.

When a phase ran on the GPU is rebuilt: CUDA events say how long, not when. In a stream work runs in the order of its
issue, so a phase begins when it was issued or when the work before it ends, whichever is later.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from profiling.errors import Refusal
from profiling.measured_cell import NEARLY_ALIGNED, UNKNOWN, Reading, RecordedCell
from profiling.phases import PhaseRecord

AR_PHASES = ("ar_prefill", "ar_decode", "stage_transfer")  # where stages are processes, those of the AR stage
REQUEST, PHASES, NESTED, HOST = "request", "phases", "dit_forward", "host"
"""Kinds of lanes, from top to bottom: the request, its phases, those inside them, when the host issued them."""

JOINED = "Steps too narrow to tell apart are joined, paler where time lies between them."
NARROW_PX = 4.0  # of a repeated phase, below which neighbours become one block
MARGIN = 0.012  # of the window, left and right


@dataclass(frozen=True)
class Slice:
    """A phase, once, in seconds of the cell's axis."""

    record: PhaseRecord
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Lane:
    """Slices of one kind in order of time. `gpu`: when they ran there, else when the host was inside them."""

    kind: str
    slices: tuple[Slice, ...]
    gpu: bool = False


@dataclass(frozen=True)
class Process:
    """A rank, or one of its stages where stages are processes of their own."""

    name: str
    lanes: tuple[Lane, ...]
    records: tuple[PhaseRecord, ...] = ()  # all of it, in order of time


@dataclass(frozen=True)
class Block:
    """What is drawn as one rectangle: a slice, or `count` neighbours of one phase that cover `busy` of it."""

    phase: str
    start_s: float
    end_s: float
    busy: float = 1.0
    count: int = 1


@dataclass(frozen=True)
class Window:
    """The part of the axis that is shown, and the batch that it was chosen for ("" for none)."""

    start_s: float
    end_s: float
    batch: str = ""

    @property
    def padded(self) -> "Window":
        """With a margin, so that what begins at the edge is seen to begin."""
        margin_s = MARGIN * (self.end_s - self.start_s)
        return replace(self, start_s=self.start_s - margin_s, end_s=self.end_s + margin_s)


@dataclass(frozen=True)
class Curve:
    """A quantity of telemetry over time: (seconds, value) of each line, "" where there is one line."""

    name: str
    unit: str
    lines: dict[str, tuple[tuple[float, float], ...]]
    top: float | None = None  # end of its scale; None: its largest value


def processes(phases: Sequence[PhaseRecord]) -> tuple[Process, ...]:
    """Rows of a timeline, from the records in order of time.

    A hand-over between stages shows that they are processes of their own: vLLM-Omni counts the ranks of each from 0.
    """
    staged = any(phase.phase == "stage_transfer" for phase in phases)
    if not staged:
        ranks = sorted({phase.rank for phase in phases})
        return tuple(_process(f"rank {rank}", [p for p in phases if p.rank == rank]) for rank in ranks)
    found = [_process("engine", [p for p in phases if p.phase == "request"])]
    inside = [p for p in phases if p.phase != "request"]
    for stage in ("AR stage", "DiT stage"):
        mine = [p for p in inside if (p.phase in AR_PHASES) == (stage == "AR stage")]
        ranks = sorted({p.rank for p in mine})
        for rank in ranks:
            name = stage if len(ranks) == 1 else f"{stage}, rank {rank}"
            found.append(_process(name, [p for p in mine if p.rank == rank]))
    return tuple(process for process in found if process.lanes)


def _process(name: str, phases: Sequence[PhaseRecord]) -> Process:
    on_gpu = gpu_slices(phases)
    on_host = tuple(Slice(p, p.start_s, host_end_s(p)) for p in phases)
    gpu = bool(on_gpu)
    shown = on_gpu if gpu else on_host
    request = tuple(s for s in on_host if s.record.phase == REQUEST)
    main, host = (tuple(s for s in part if s.record.phase not in (REQUEST, NESTED)) for part in (shown, on_host))
    nested = tuple(s for s in shown if s.record.phase == NESTED)
    lanes = (
        Lane(REQUEST, request),
        Lane(PHASES, main, gpu),
        Lane(NESTED, nested, gpu),
        Lane(HOST, host if gpu else ()),
    )
    return Process(name, tuple(lane for lane in lanes if lane.slices), tuple(phases))


def gpu_slices(phases: Sequence[PhaseRecord]) -> tuple[Slice, ...]:
    """When those of one process that have GPU times ran on the GPU; `phases` in order of time, outer ones first."""
    found: list[Slice] = []
    opened: list[Slice] = []
    free_s = float("-inf")  # when the stream has done what was issued so far
    for phase in phases:
        if phase.gpu_ms is None:
            continue
        while opened and host_end_s(opened[-1].record) < host_end_s(phase):  # it does not hold this one
            free_s = max(free_s, opened.pop().end_s)
        start_s = free_s = max(phase.start_s, free_s)
        end_s = start_s + phase.gpu_ms / 1000
        if opened:  # an inner one cannot outlast the outer
            end_s = max(start_s, min(end_s, opened[-1].end_s))
        opened.append(Slice(phase, start_s, end_s))
        found.append(opened[-1])
    return tuple(found)


def host_end_s(phase: PhaseRecord) -> float:
    """When the host left a phase, in seconds of its axis."""
    return phase.start_s + phase.host_ms / 1000


def blocks(slices: Iterable[Slice], window: Window, pixels: float) -> list[Block]:
    """Rectangles for the slices in the window at `pixels` across. Neighbours of a phase that is usually too narrow to
    be told apart, such as hundreds of AR steps, become one, so that they make no pattern that is not there."""
    narrow_s = NARROW_PX * (window.end_s - window.start_s) / pixels
    shown = [
        Slice(one.record, max(one.start_s, window.start_s), min(one.end_s, window.end_s))
        for one in slices
        if one.end_s >= window.start_s and one.start_s <= window.end_s
    ]
    widths: dict[str, list[float]] = {}
    for one in shown:
        widths.setdefault(one.record.phase, []).append(one.end_s - one.start_s)
    narrow = {phase for phase, told in widths.items() if sorted(told)[len(told) // 2] < narrow_s}
    found: list[Block] = []
    covered_s = 0.0  # seconds that the slices of the last block cover
    for one in shown:
        last = found[-1] if found else None
        phase, width_s = one.record.phase, one.end_s - one.start_s
        if last and last.phase == phase and phase in narrow and one.start_s - last.end_s < narrow_s:
            covered_s += max(0.0, one.end_s - max(one.start_s, last.end_s))
            whole_s = max(last.end_s, one.end_s) - last.start_s
            busy = min(1.0, covered_s / whole_s) if whole_s > 0 else 1.0
            found[-1] = Block(phase, last.start_s, last.start_s + whole_s, busy, last.count + 1)
        else:
            covered_s = width_s
            found.append(Block(phase, one.start_s, one.end_s))
    return found


def window_of(
    cell: RecordedCell,
    request: str = "",
    repeat: int | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
) -> Window:
    """The part of the axis that was asked for; without a wish, the first batch. Raises Refusal."""
    start_s, end_s = span(cell)
    if from_s is not None or to_s is not None:
        if request or repeat is not None:
            raise Refusal("--from and --to say what to show, and so do --request and --repeat: give one of the two")
        window = Window(start_s if from_s is None else from_s, end_s if to_s is None else to_s)
        if math.isnan(window.start_s) or math.isnan(window.end_s):
            raise Refusal("--from and --to are seconds since the cell's first request, not nan")
        if window.end_s <= start_s or window.start_s >= end_s:
            raise Refusal(f"nothing was measured there: the cell's phases lie between {start_s:.3f} and {end_s:.3f} s")
        if not window.start_s < window.end_s:
            raise Refusal(f"--from {window.start_s:g} is not before --to {window.end_s:g}")
        return Window(max(window.start_s, start_s), min(window.end_s, end_s))
    batch = _batch(cell, request, repeat)
    start_s, end_s = span(replace(cell, phases=tuple(p for p in cell.phases if p.request_id == batch)))
    return Window(start_s, end_s if end_s > start_s else start_s + 1e-6, batch)


def span(cell: RecordedCell) -> tuple[float, float]:
    """First start and last end of the cell's phases, on host or GPU."""
    on_gpu = [s.end_s for process in processes(cell.phases) for lane in process.lanes if lane.gpu for s in lane.slices]
    return min(p.start_s for p in cell.phases), max([*map(host_end_s, cell.phases), *on_gpu])


def _batch(cell: RecordedCell, request: str, repeat: int | None) -> str:
    """Name of the batch that a request is in. `r001` stands for `r001.0`, or for that of the repeat asked for."""
    first_of = {(one.repeat, one.batch_index): one.request_id for one in reversed(cell.requests)}
    batch_of = {one.request_id: first_of[one.repeat, one.batch_index] for one in cell.requests}
    repeat_of = {one.request_id: one.repeat for one in cell.requests}
    if not request:
        wanted = [name for name in cell.batches if repeat is None or repeat_of.get(name) == repeat]
        if wanted:
            return wanted[0]
        known = sorted({repeat_of[name] for name in cell.batches if name in repeat_of})
        raise Refusal(f"no repeat {repeat} was measured; repeats: {', '.join(map(str, known)) or 'not told'}")
    for name in (request, f"{request}.{repeat or 0}"):
        batch = batch_of.get(name, name)
        if batch in cell.batches and (repeat is None or repeat_of.get(name) == repeat):
            return batch
    names = list(batch_of) or list(cell.batches)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    of = f" in repeat {repeat}" if repeat is not None else ""
    raise Refusal(f"no request '{request}' was measured{of}; requests: {', '.join(names[:8])}{more}")


def curves(telemetry: Sequence[Reading], window: Window) -> tuple[Curve, ...]:
    """What to draw below the phases: GPU use, memory and power; without a GPU the processor's use and memory."""
    gpus = sorted({one.gpu_index for one in telemetry if one.gpu_index is not None})
    if gpus:
        lines = {gpu: [one for one in telemetry if one.gpu_index == gpu] for gpu in gpus}
        named = {gpu: "" if len(gpus) == 1 else f"GPU {gpu}" for gpu in gpus}
        found = [
            Curve("GPU busy", "%", {named[g]: held(lines[g], "gpu_util_pct", window) for g in gpus}, 100.0),
            Curve("GPU memory", "GB", {named[g]: held(lines[g], "gpu_memory_gb", window) for g in gpus}),
            Curve("GPU power", "W", {named[g]: power(lines[g], window) for g in gpus}),
        ]
    else:
        found = [
            Curve("CPU busy", "% of a core", {"": held(telemetry, "cpu_pct", window)}),
            Curve("memory", "GB", {"": held(telemetry, "rss_gb", window)}),
        ]
    told = (replace(one, lines={name: line for name, line in one.lines.items() if line}) for one in found)
    return tuple(one for one in told if one.lines)


def held(readings: Sequence[Reading], column: str, window: Window) -> tuple[tuple[float, float], ...]:
    """A column as steps: a reading speaks of the time since the one before it."""
    known = [(one.time_s, one.values[column]) for one in readings if column in one.values]
    return _steps(known, window)


def power(readings: Sequence[Reading], window: Window) -> tuple[tuple[float, float], ...]:
    """Watts from the energy counter, as steps between readings: NVML's own power is a mean over about a second, and
    would show a phase after it is over. That one where there is no counter.

    The counter itself moves in jumps of about 0.1 s, which would show as single steps above what a GPU can draw: of
    each step and its two neighbours the median counts, which leaves the edges of phases where they are.
    """
    known = [(one.time_s, one.values["energy_j"]) for one in readings if "energy_j" in one.values]
    drawn = [(b[0], (b[1] - a[1]) / (b[0] - a[0])) for a, b in itertools.pairwise(known) if b[0] > a[0]]
    if not any(watts > 0 for _, watts in drawn):
        return held(readings, "power_w", window)
    watts = [value for _, value in drawn]
    middle = [sorted(watts[i - 1 : i + 2])[1] for i in range(1, len(watts) - 1)]
    smooth = [*watts[:1], *middle, *watts[-1:]] if len(watts) > 1 else watts
    return _steps([(time_s, value) for (time_s, _), value in zip(drawn, smooth, strict=True)], window)


def _steps(known: Sequence[tuple[float, float]], window: Window) -> tuple[tuple[float, float], ...]:
    """Both ends of each step that touches the window, clipped to it."""
    if len(known) < 2:
        return tuple(one for one in known if window.start_s <= one[0] <= window.end_s)
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(known)]
    usual_s = sorted(gaps)[len(gaps) // 2]
    begins = [known[0][0] - usual_s, *(time_s for time_s, _ in known[:-1])]
    points: list[tuple[float, float]] = []
    for begin_s, (end_s, value) in zip(begins, known, strict=True):
        if end_s > window.start_s and begin_s < window.end_s:
            points += [(max(begin_s, window.start_s), value), (min(end_s, window.end_s), value)]
    return tuple(points)


def small_print(cell: RecordedCell, joined: bool) -> list[str]:
    """What must be said below a drawing of the cell; `joined`: some of its blocks are several slices."""
    told = []
    if any(phase.gpu_ms is not None for phase in cell.phases):
        told.append("GPU: between CUDA events, in the order of the stream; host: while the work was issued.")
    if joined:
        told.append(JOINED)
    if cell.clock == NEARLY_ALIGNED:
        told.append("Telemetry is aligned to about 0.02 s.")
    if cell.clock == UNKNOWN:
        told.append("Telemetry is left out: how its clock lies to that of the phases was not stored.")
    return told
