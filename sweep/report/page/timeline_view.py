"""The timeline of a cell's first batch as the page draws it: lanes and curves as paths, with their names.

Plain values in, plain values out. `profiling.timeline.lanes` decides what is shown, the page's template how it looks.
Paths are in units of 1/1000 of the width and 1/10 of the height, so that they stretch to any screen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiling.measured_cell import RecordedCell
from profiling.plot_style import GREY, LINE_COLOURS, PHASE_COLOURS
from profiling.timeline.bottleneck import held_up_by, phase_times
from profiling.timeline.lanes import (
    HOST,
    NESTED,
    PHASES,
    REQUEST,
    Block,
    Curve,
    Window,
    blocks,
    curves,
    processes,
    small_print,
    window_of,
)
from sweep.report.words import Row, digits, number, text

WIDTH = 1000.0
PROCESSES = 16
GAP = 0.7  # to the right of blocks at least WIDE, so that steps can be counted
WIDE = 7.0
TICKS = 6
KINDS = {REQUEST: REQUEST, PHASES: "phases", NESTED: NESTED, HOST: HOST}


@dataclass(frozen=True)
class Path:
    """All blocks of a lane that look the same. `d` as in SVG."""

    colour: str
    opacity: float
    d: str


@dataclass(frozen=True)
class LaneView:
    """One lane of the timeline; `process` is "" except in the first lane of a process."""

    process: str
    name: str
    kind: str
    paths: Sequence[Path]


@dataclass(frozen=True)
class CurveView:
    """A quantity over the same time: its scale in words, and a line for each GPU."""

    name: str
    scale: str
    lines: Sequence[Path]
    area: str  # below a single line; "" if there are several


@dataclass(frozen=True)
class TimelineView:
    """The timeline of one cell."""

    title: str
    lanes: Sequence[LaneView]
    curves: Sequence[CurveView]
    ticks: Sequence[tuple[float, str]]  # per cent of the width, seconds or milliseconds
    lines: Sequence[tuple[str, str]]  # name and colour of each line if curves have several
    notes: Sequence[str]


def view(cell: RecordedCell) -> TimelineView:
    """The first batch of a cell."""
    batch = window_of(cell)
    window = batch.padded
    found = processes(cell.phases)
    lanes, joined = [], False
    for process in found[:PROCESSES]:
        for place, lane in enumerate(process.lanes):
            drawn = blocks(lane.slices, window, WIDTH)
            joined = joined or any(block.count > 1 for block in drawn)
            name = "GPU" if lane.gpu and lane.kind == PHASES else KINDS[lane.kind]
            lanes.append(LaneView("" if place else process.name, name, lane.kind, _bars(drawn, window)))
    drawn_curves = curves(cell.telemetry, window)
    names = [(i, name) for one in drawn_curves for i, name in enumerate(one.lines) if name]
    several = {name: LINE_COLOURS[i % len(LINE_COLOURS)] for i, name in names}
    return TimelineView(
        title=f"request {batch.batch}, {_length(batch.end_s - batch.start_s)}",
        lanes=lanes,
        curves=[_curve(one, window) for one in drawn_curves],
        ticks=_ticks(window),
        lines=list(several.items()),
        notes=_notes(cell, joined, len(found)),
    )


def bottleneck_words(row: Row, cell: RecordedCell | None) -> str:
    """`ar_decode, 64 % of a request (first batch: GPU 3.13 s, …)`: the row's bottleneck, and what it waits for."""
    phase = text(row, "bottleneck")
    share = number(row, f"{phase}_share")
    words = phase if share is None else f"{phase}, {100 * share:.0f} % of a request"
    times = phase_times(cell, window_of(cell)) if phase and cell else ()
    why = next((held_up_by(one) for one in times if one.phase == phase), "")
    return f"{words} (first batch: {why})" if why else words


def _notes(cell: RecordedCell, joined: bool, count: int) -> list[str]:
    notes = small_print(cell, joined)
    if count > PROCESSES:
        notes.append(f"{count - PROCESSES} more processes are in phases.csv.")
    return notes


def _bars(drawn: Sequence[Block], window: Window) -> list[Path]:
    """One path for each colour and shade; the more of a block no phase fills, the paler it is."""
    parts: dict[tuple[str, float], list[str]] = {}
    for block in drawn:
        left, right = _x(block.start_s, window), _x(block.end_s, window)
        width = right - left - (GAP if right - left > WIDE else 0.0)
        look = PHASE_COLOURS.get(block.phase, GREY), round(0.25 + 0.75 * block.busy, 1)
        parts.setdefault(look, []).append(f"M{left:.1f} 0h{max(width, 0.8):.1f}v10h{-max(width, 0.8):.1f}z")
    return [Path(colour, opacity, "".join(d)) for (colour, opacity), d in parts.items()]


def _curve(curve: Curve, window: Window) -> CurveView:
    reach = max((value for line in curve.lines.values() for _, value in line), default=0.0)
    top = 1.04 * (curve.top or 1.15 * reach or 1.0)
    lines, area = [], ""
    for place, line in enumerate(curve.lines.values()):
        points = " ".join(f"{_x(time_s, window):.1f} {10 - 10 * value / top:.2f}" for time_s, value in line)
        lines.append(Path(LINE_COLOURS[place % len(LINE_COLOURS)], 1.0, f"M{points}"))
        area = f"M{_x(line[0][0], window):.1f} 10L{points}V10z"
    scale = f"0–{digits(curve.top)} {curve.unit}" if curve.top else f"max {digits(reach)} {curve.unit}"
    return CurveView(curve.name, scale, lines, area if len(lines) == 1 else "")


def _x(time_s: float, window: Window) -> float:
    return WIDTH * min(1.0, max(0.0, (time_s - window.start_s) / (window.end_s - window.start_s)))


def _ticks(window: Window) -> list[tuple[float, str]]:
    """Round times since the cell's first request, at most TICKS + 1."""
    length_s = window.end_s - window.start_s
    scale, unit = (1000.0, "ms") if window.end_s < 1 else (1.0, "s")
    rough = length_s * scale / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(window.start_s * scale / step)
    last = math.floor(window.end_s * scale / step)
    return [(_x(n * step / scale, window) / WIDTH * 100, f"{n * step:.12g} {unit}") for n in range(first, last + 1)]


def _length(seconds: float) -> str:
    return f"{digits(seconds)} s" if seconds >= 1 else f"{digits(seconds * 1000)} ms"
