"""The picture of a measured cell: processes as rows, phases as colours, telemetry below on the same time axis.

Made for a page of a paper: units on the axes, colour-blind safe, no more ink than necessary. Knows nothing of files;
`command` writes what is drawn here.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from profiling.measured_cell import RecordedCell
from profiling.phases import PHASES
from profiling.plot_style import GREY, LINE_COLOURS, PHASE_COLOURS
from profiling.timeline.lanes import (
    HOST,
    NESTED,
    REQUEST,
    Block,
    Curve,
    Process,
    Window,
    blocks,
    curves,
    processes,
    small_print,
)
from profiling.timeline.lanes import PHASES as MAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.2  # inches, as in the other plots
PIXELS = 1100.0  # width of the axes in the PNG; anything narrower than a pixel is invisible
HEIGHTS = {REQUEST: 0.12, MAIN: 0.62, NESTED: 0.22, HOST: 0.22}  # of a lane, in lines
BETWEEN, BELOW = 0.05, 0.28  # space between lanes and below processes, in lines
LINE = 0.42  # inches
CURVE = 0.62  # height of a curve's panel, in inches
EDGE_PX = 6.0  # wider blocks have a white edge, so that you can count steps
MOST_PROCESSES = 16
NAMES = {MAIN: ("GPU", "phases"), NESTED: (NESTED, NESTED), HOST: ("host", "host"), REQUEST: (REQUEST, REQUEST)}


def draw(cell: RecordedCell, window: Window) -> "Figure":
    """Draw the window of the cell; call it within `plot_style.style`."""
    from matplotlib.figure import Figure

    shown = window.padded
    found = processes(cell.phases)
    rows = [process for process in found if _touches(process, shown)]
    lines = curves(cell.telemetry, shown)
    heights = [sum(map(_height, rows[:MOST_PROCESSES])) * LINE, *(CURVE for _ in lines)]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.17 * len(lines) + 1.35), layout="constrained")
    figure.suptitle(title_of(cell, window), x=0.01, ha="left", fontsize=13, fontweight="bold")
    column = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    present, joined = _rows(column[0], rows[:MOST_PROCESSES], shown)
    for axes, curve in zip(column[1:], lines, strict=True):
        _curve(axes, curve)
    if lines and len(lines[0].lines) > 1:  # one legend, above the first panel: all panels have the same lines
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98), "borderaxespad": 0.0}
        column[1].legend(ncol=8, fontsize=8, frameon=False, **place)
    column[-1].set_xlim(shown.start_s, shown.end_s)
    column[-1].set_xlabel("time since the cell's first request, s")
    figure.align_ylabels(column)
    _legend(column[0], present)
    _small_print(figure, cell, joined, max(0, len(rows) - MOST_PROCESSES))
    return figure


def title_of(cell: RecordedCell, window: Window) -> str:
    """`baseline b4, request r000.0: 8.48 s`."""
    label = textwrap.shorten(cell.label, 70, placeholder=" …")
    of = f", request {window.batch}" if window.batch else ""
    length_s = window.end_s - window.start_s
    return f"{label}{of}: {length_s:.3g} s" if length_s >= 1 else f"{label}{of}: {length_s * 1000:.3g} ms"


def _touches(process: Process, window: Window) -> bool:
    slices = (one for lane in process.lanes for one in lane.slices)
    return any(one.end_s > window.start_s and one.start_s < window.end_s for one in slices)


def _height(process: Process) -> float:
    return sum(HEIGHTS[lane.kind] + BETWEEN for lane in process.lanes) + BELOW


def _rows(axes: "Axes", rows: Sequence[Process], window: Window) -> tuple[dict[str, str], bool]:
    """Draw the lanes of all processes from the top down; returns the colours used and whether any blocks are merged."""
    y, ticks = 0.0, {}
    present, joined = set(), False
    for process in rows:
        top = y
        for lane in process.lanes:
            height = HEIGHTS[lane.kind]
            drawn = blocks(lane.slices, window, PIXELS)
            present |= {block.phase for block in drawn if lane.kind != REQUEST}
            joined = joined or any(block.count > 1 for block in drawn)
            _bars(axes, drawn, y, height, window)
            ticks[y + height / 2] = NAMES[lane.kind][0 if lane.gpu else 1]
            y += height + BETWEEN
        axes.annotate(
            process.name,
            (0, (top + y - BETWEEN) / 2),
            xycoords=("axes fraction", "data"),
            xytext=(-74, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9.5,
            fontweight="bold",
        )
        y += BELOW
    axes.set_ylim(y - BELOW + 0.12, -0.12)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=8, color=GREY)
    axes.tick_params(axis="y", length=0, pad=3)
    axes.grid(False, axis="y")
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    return {phase: PHASE_COLOURS.get(phase, GREY) for phase in PHASES if phase in present}, joined


def _bars(axes: "Axes", drawn: Sequence[Block], y: float, height: float, window: Window) -> None:
    """Draw blocks as rectangles: the less of their time phases fill, the paler; with an edge where there is room."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    pixel_s = (window.end_s - window.start_s) / PIXELS
    corners, faces, edges = [], [], []
    for block in drawn:
        end_s = max(block.end_s, block.start_s + pixel_s)  # at least one pixel, so that it is visible
        corners.append([(block.start_s, y), (end_s, y), (end_s, y + height), (block.start_s, y + height)])
        faces.append(to_rgba(PHASE_COLOURS.get(block.phase, GREY), 0.25 + 0.75 * block.busy))
        edges.append(0.5 if end_s - block.start_s > EDGE_PX * pixel_s else 0.0)
    bars: dict[str, Any] = {"facecolors": faces, "edgecolors": "white", "linewidths": edges, "zorder": 3}
    axes.add_collection(PolyCollection(corners, **bars))


def _curve(axes: "Axes", curve: Curve) -> None:
    reach = max((value for line in curve.lines.values() for _, value in line), default=0.0)
    for number, (name, line) in enumerate(curve.lines.items()):
        times, values = [time_s for time_s, _ in line], [value for _, value in line]
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        axes.plot(times, values, color=colour, linewidth=1.2, label=name or None)
        if len(curve.lines) == 1:
            axes.fill_between(times, 0, values, color=colour, alpha=0.12, linewidth=0)
    axes.set_ylim(0, 1.06 * (curve.top or reach) or 1.0)
    axes.set_ylabel(f"{curve.name},\n{curve.unit}", rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
    axes.locator_params(axis="y", nbins=3)
    axes.tick_params(axis="y", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(axes: "Axes", colours: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.1}
    look: dict[str, Any] = {"ncol": 5 if len(handles) > 7 else 7, "frameon": False, "fontsize": 8.5}
    axes.legend(handles=handles, handlelength=1.0, columnspacing=1.2, handletextpad=0.5, **place, **look)


def _small_print(figure: "Figure", cell: RecordedCell, joined: bool, left_out: int) -> None:
    notes = small_print(cell, joined)
    if left_out > 0:
        notes.append(f"{left_out} more {'process is' if left_out == 1 else 'processes are'} in timeline.json.")
    if notes:
        text = textwrap.fill(" ".join(notes), int(WIDTH * 15))
        figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=GREY)
