"""What a timeline shows of a measured cell: processes, their lanes of phases, and curves of telemetry.

Pure decisions over recorded values; the picture, the trace and the page are made from the same lanes. Knows nothing of
files or of drawing.

The times of phases on the GPU are reconstructed: CUDA events say how long a phase ran, but not when. A stream runs work
in the order in which it was issued, so a phase begins when it was issued or when the work before it ends, whichever is
later.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from profiling.errors import Refusal
from profiling.measured_cell import ALIGNED, NEARLY_ALIGNED, UNKNOWN, Reading, RecordedCell
from profiling.phases import PhaseRecord

AR_PHASES = ("ar_prefill", "ar_decode", "stage_transfer")  # phases of the AR stage, where stages are processes
REQUEST, PHASES, NESTED, HOST = "request", "phases", "dit_forward", "host"
"""Kinds of lanes, from top to bottom: the request, its phases, the phases inside those, and when the host issued them.
"""

TIMES = "GPU times lie between CUDA events, in stream order; host times show when the work was issued."
JOINED = "Steps too narrow to draw one by one are merged; paler blocks have gaps between the steps."
NEARLY = "Telemetry is aligned to about 0.02 s, because this cell was measured before the exact offset was stored."
LEFT_OUT = "Telemetry is left out, because its clock offset from the phases was not stored."
"""Notes about a timeline."""

NARROW_PX = 4.0  # repeated phases narrower than this are merged into one block
SHORTEST_S = 1e-6  # length of a window, at least
MARGIN = 0.012  # left and right, as a share of the window


@dataclass(frozen=True)
class Slice:
    """A phase, once, in seconds of the cell's axis."""

    record: PhaseRecord
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Lane:
    """Slices of one kind in order of time. `gpu`: their times are GPU times, else host times."""

    kind: str
    slices: tuple[Slice, ...]
    gpu: bool = False


@dataclass(frozen=True)
class Process:
    """A rank, or one stage of it where each stage is a separate process."""

    name: str
    lanes: tuple[Lane, ...]
    records: tuple[PhaseRecord, ...] = ()  # all records, in order of time


@dataclass(frozen=True)
class Block:
    """One rectangle: a slice, or `count` neighbouring slices of one phase that cover the share `busy` of it."""

    phase: str
    start_s: float
    end_s: float
    busy: float = 1.0
    count: int = 1


@dataclass(frozen=True)
class Window:
    """The part of the time axis that is shown, and the batch that it belongs to ("" for none)."""

    start_s: float
    end_s: float
    batch: str = ""

    @property
    def padded(self) -> "Window":
        """The window with a margin, so that you can see where the first phase begins."""
        margin_s = MARGIN * (self.end_s - self.start_s)
        return replace(self, start_s=self.start_s - margin_s, end_s=self.end_s + margin_s)


@dataclass(frozen=True)
class Curve:
    """A telemetry quantity over time: the (seconds, value) points of each line by name, "" for a single line."""

    name: str
    unit: str
    lines: dict[str, tuple[tuple[float, float], ...]]
    top: float | None = None  # end of the scale; None for the largest value


def processes(phases: Sequence[PhaseRecord]) -> tuple[Process, ...]:
    """Rows of a timeline, from the records in order of time.

    A transfer between stages means that each stage is a separate process, whose ranks vLLM-Omni counts from 0.
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
    """When the phases of one process ran on the GPU, if they have GPU times; `phases` in order of time, outer first."""
    found: list[Slice] = []
    opened: list[Slice] = []
    free_s = float("-inf")  # when the stream finishes the work issued so far
    for phase in phases:
        if phase.gpu_ms is None:
            continue
        while opened and host_end_s(opened[-1].record) < host_end_s(phase):  # it does not contain this one
            free_s = max(free_s, opened.pop().end_s)
        start_s = free_s = max(phase.start_s, free_s)
        end_s = start_s + phase.gpu_ms / 1000
        if opened:  # an inner phase cannot outlast the outer one
            end_s = max(start_s, min(end_s, opened[-1].end_s))
        opened.append(Slice(phase, start_s, end_s))
        found.append(opened[-1])
    return tuple(found)


def host_end_s(phase: PhaseRecord) -> float:
    """When the host left a phase, in seconds of the cell's axis."""
    return phase.start_s + phase.host_ms / 1000


def blocks(slices: Iterable[Slice], window: Window, pixels: float) -> list[Block]:
    """Rectangles for the slices in the window, which is `pixels` wide. If a phase is usually too narrow to draw, such
    as hundreds of AR steps, its neighbours are merged into one block, so that they do not form a false pattern."""
    narrow_s = NARROW_PX * (window.end_s - window.start_s) / pixels
    shown = [
        Slice(one.record, max(one.start_s, window.start_s), min(one.end_s, window.end_s))
        for one in slices
        if one.end_s >= window.start_s and one.start_s <= window.end_s
    ]
    widths: dict[str, list[float]] = {}
    for one in shown:
        widths.setdefault(one.record.phase, []).append(one.end_s - one.start_s)
    narrow = {phase for phase, each_s in widths.items() if sorted(each_s)[len(each_s) // 2] < narrow_s}
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
    """The selected part of the axis; by default the first batch. Raises Refusal."""
    if from_s is not None or to_s is not None:
        start_s, end_s = span(cell)
        if request or repeat is not None:
            raise Refusal("use either --from and --to, or --request and --repeat, but not both", "two_selections")
        window = Window(start_s if from_s is None else from_s, end_s if to_s is None else to_s)
        if math.isnan(window.start_s) or math.isnan(window.end_s):
            raise Refusal("--from and --to are seconds since the cell's first request, not nan", "not_a_number")
        if window.end_s <= start_s or window.start_s >= end_s:
            phases = f"the cell's phases lie between {start_s:.3f} and {end_s:.3f} s"
            raise Refusal(f"nothing was measured in that part; {phases}", "nothing_there")
        if not window.start_s < window.end_s:
            raise Refusal(f"--from {window.start_s:g} must be less than --to {window.end_s:g}", "from_after_to")
        return _window(max(window.start_s, start_s), min(window.end_s, end_s))
    batch = _batch(cell, request, repeat)
    start_s, end_s = span(replace(cell, phases=tuple(p for p in cell.phases if p.request_id == batch)))
    return _window(start_s, end_s, batch)


def _window(start_s: float, end_s: float, batch: str = "") -> Window:
    """A window in which something can be drawn and divided by, also where all phases together took no time."""
    return Window(start_s, max(end_s, start_s + SHORTEST_S), batch)


def span(cell: RecordedCell) -> tuple[float, float]:
    """First start and last end of the cell's phases, on host or GPU."""
    on_gpu = [s.end_s for process in processes(cell.phases) for lane in process.lanes if lane.gpu for s in lane.slices]
    return min(p.start_s for p in cell.phases), max([*map(host_end_s, cell.phases), *on_gpu])


def _batch(cell: RecordedCell, request: str, repeat: int | None) -> str:
    """Name of the batch that contains a request. `r001` means `r001.0`, or `r001` in the selected repeat."""
    first_of = {(one.repeat, one.batch_index): one.request_id for one in reversed(cell.requests)}
    batch_of = {one.request_id: first_of[one.repeat, one.batch_index] for one in cell.requests}
    repeat_of = {one.request_id: one.repeat for one in cell.requests}
    if not request:
        wanted = [name for name in cell.batches if repeat is None or repeat_of.get(name) == repeat]
        if wanted:
            return wanted[0]
        known = sorted({repeat_of[name] for name in cell.batches if name in repeat_of})
        measured = f"measured: {', '.join(map(str, known)) or 'unknown'}"
        raise Refusal(f"repeat {repeat} was not measured; {measured}", "no_repeat")
    for name in (request, f"{request}.{repeat or 0}"):
        batch = batch_of.get(name, name)
        if batch in cell.batches and (repeat is None or repeat_of.get(name) == repeat):
            return batch
    names = list(batch_of) or list(cell.batches)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    of = f" in repeat {repeat}" if repeat is not None else ""
    measured = f"measured: {', '.join(names[:8])}{more}"
    raise Refusal(f"request '{request}' was not measured{of}; {measured}", "no_request")


def curves(telemetry: Sequence[Reading], window: Window) -> tuple[Curve, ...]:
    """Curves below the phases: GPU utilisation, memory and power; without a GPU, CPU utilisation and memory."""
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
    filled = (replace(one, lines={name: line for name, line in one.lines.items() if line}) for one in found)
    return tuple(one for one in filled if one.lines)


def held(readings: Sequence[Reading], column: str, window: Window) -> tuple[tuple[float, float], ...]:
    """A column as steps: a reading covers the time since the previous one."""
    known = [(one.time_s, one.values[column]) for one in readings if column in one.values]
    return _steps(known, window)


def power(readings: Sequence[Reading], window: Window) -> tuple[tuple[float, float], ...]:
    """Watts from the energy counter, as steps between readings; NVML's own power where there is no counter.

    NVML's own power is a mean over about a second, so it would still show a phase after its end. The counter itself
    jumps about every 0.1 s, which would show as single steps above what a GPU can draw. So each step becomes the median
    of itself and its two neighbours, which does not move the edges of phases.
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
    """Notes below a drawing of the cell; `joined`: some of its blocks are several slices."""
    on_gpu = any(phase.gpu_ms is not None for phase in cell.phases)
    return [*([TIMES] if on_gpu else []), *([JOINED] if joined else []), *clock_notes(cell)]


def clock_notes(cell: RecordedCell) -> list[str]:
    """A note if the telemetry of the cell is not exactly on the axis of its phases."""
    return [{NEARLY_ALIGNED: NEARLY, UNKNOWN: LEFT_OUT}[cell.clock]] if cell.clock != ALIGNED else []
