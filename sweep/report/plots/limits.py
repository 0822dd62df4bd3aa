"""Predictions and limits: a roofline, predicted against measured latency, and memory by component."""

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY, LIGHT, PHASE_COLOURS
from sweep.plan.cells import BASELINE
from sweep.predict.effects import Effects
from sweep.predict.factors import FITTED
from sweep.predict.hardware import Device, is_measured
from sweep.predict.memory import PARTS, TOGETHER, Ledger
from sweep.report.limit_cells import LimitCell
from sweep.report.limit_words import called, component
from sweep.report.plots import sheet
from sweep.report.plots.draw import cleaned
from sweep.report.plots.panels import bar_panels, legend_of, remark, shortened, title_of
from sweep.report.plots.pareto import name_points
from sweep.report.plots.sheet import font
from sweep.report.words import percent, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND = 0.25
"""Half-width of the band around predictions that hold."""

FAMILIES = {
    "one device": "#555555",
    "cfg_parallel": "#0173B2",
    "ulysses, ring": "#DE8F05",
    "tp": "#029E73",
    "pp, hsdp": "#CC78BC",
    "fp8, int8": "#D55E00",
    "offload": "#CA9161",
}
"""How a cell divides or changes its work, and its colour."""

PARTS_COLOURS = dict(
    zip(
        PARTS,
        (
            "#0173B2",
            "#CA9161",
            "#DE8F05",
            "#029E73",
            "#ECE133",
            "#F2C48D",
            "#949494",
            "#56B4E9",
            "#8FD3BC",
            "#CC78BC",
            "#D9D9D9",
        ),
        strict=True,
    )
)

BARS = 24
"""Above this many cells, the bars of memory leave out combinations."""


def family(does: Effects) -> str:
    """One of FAMILIES: what a cell does to its work, apart from skipping blocks."""
    found = {
        "fp8, int8": bool(does.dtype),
        "offload": bool(does.weights_on_host),
        "tp": does.width > 1,
        "ulysses, ring": does.tokens > 1,
        "pp, hsdp": does.stages > 1 or does.gathers,
        "cfg_parallel": does.branches > 1,
    }
    return next((name for name, is_one in found.items() if is_one), "one device")


def draw_prediction(cells: Sequence[LimitCell]) -> "Figure | None":
    """Predicted against measured latency, with the band of ±25 %; needs two cells."""
    shown = [one for one in cells if one.compared]
    if len(shown) < 2:
        return None
    figure, axes = _square("Predicted and measured latency")
    values = [value for one in shown for value in (one.found.latency_s, one.found.said.latency_s)]
    low, high = min(values) / 1.25, max(values) * 1.25
    line = [low, high]
    axes.fill_between(
        line, [low * (1 - BAND), high * (1 - BAND)], [low * (1 + BAND), high * (1 + BAND)], color="#EEEEEE"
    )
    axes.plot(line, line, color="#222222", linewidth=1, linestyle="--")
    for one in shown:
        look: dict[str, Any] = {"color": FAMILIES[family(one.found.ran.effects)], "markeredgecolor": "white"}
        marker = "D" if one.found.said.point.effects.skip else "o"
        axes.plot(one.found.latency_s, one.found.said.latency_s, marker, markersize=6.5, markeredgewidth=0.6, **look)
    _logarithmic(axes, low, high)
    axes.set_xlabel("measured latency, s")
    axes.set_ylabel("predicted latency, s")
    _legend_of_families(figure, shown)
    off = [abs(one.found.prediction_error) for one in shown]
    within = sum(error <= BAND for error in off)
    middle = percent(statistics.median(off))
    remark(figure, f"{within} of {len(off)} cells are within ±{BAND:.0%} (grey); median error {middle}.")
    remark(figure, _origin(shown))
    if not sheet.current().is_column:
        figure.draw_without_rendering()
        farthest = sorted(shown, key=lambda one: -abs(one.found.prediction_error))
        name_points(axes, [_named(one) for one in farthest])
    return figure


def _named(one: LimitCell) -> tuple[float, float, str, bool]:
    """A point, with its name where it is outside the band."""
    found = one.found
    name = shortened(one.name, 30) if abs(found.prediction_error) > BAND else ""
    return found.latency_s, found.said.latency_s, name, True


def _square(title: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    width = sheet.width_or(7.6)
    height = width * 1.12 if sheet.current().is_column else width * 0.66
    figure = Figure(figsize=(width, height), layout="constrained")
    title_of(figure, title)
    axes: Axes = figure.subplots()
    return figure, axes


def _logarithmic(axes: "Axes", low: float, high: float) -> None:
    """Both axes alike, with round numbers written out."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8)):
        ticks = [step * 10.0**power for power in decades for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    for scale, place, limit in (
        (axes.set_xscale, axes.set_xticks, axes.set_xlim),
        (axes.set_yscale, axes.set_yticks, axes.set_ylim),
    ):
        scale("log")
        place(ticks, [f"{tick:g}" for tick in ticks])
        limit(low, high)
    axes.minorticks_off()


def _legend_of_families(figure: "Figure", cells: Sequence[LimitCell]) -> None:
    from matplotlib.lines import Line2D

    present = {family(one.found.ran.effects) for one in cells}
    look: dict[str, Any] = {"linestyle": "", "markersize": 6.5, "markeredgecolor": "white"}
    handles = [
        Line2D([], [], marker="o", color=FAMILIES[name], label=name, **look) for name in FAMILIES if name in present
    ]
    if any(one.found.said.point.effects.skip for one in cells):
        handles.append(Line2D([], [], marker="D", color=LIGHT, label="with a cache", **look))
    legend_of(figure, handles, columns=2)


def _origin(cells: Sequence[LimitCell]) -> str:
    by = cells[0].calibration.factors
    if by.grade != FITTED:
        return f"Factors are assumed{f' ({by.origin})' if by.origin else ''}."
    return f"Factors fitted on {by.origin}{', this one among them' if cells[0].fitted_on else ''}."


def draw_roofline(cells: Sequence[LimitCell]) -> "Figure | None":
    """Operations per second that each phase reached on a device, against its operations per byte read."""
    device = cells[0].found.device if cells else None
    shown = [one for one in cells if one.compared and device is not None and one.found.device.name == device.name]
    points = sorted((point for one in shown for point in _points(one)), key=lambda point: point[3])  # baselines on top
    if device is None or not points or device.bandwidth_bytes_s is None:
        return None
    figure, axes = _square(f"Roofline of one {called(device)}")
    low, high = min(x for x, *_ in points) / 3, max(x for x, *_ in points) * 3
    top = _roofs(axes, device, shown, low, high)
    for x, y, phase, is_baseline in points:
        edge = "#222222" if is_baseline else "white"
        axes.plot(x, y, "o", color=PHASE_COLOURS[phase], markersize=6.5, markeredgecolor=edge, markeredgewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min(y for _, y, *_ in points) / 2.5, top * 2)
    axes.set_xlabel("operations per byte read (weights, KV cache)")
    axes.set_ylabel("operations/s of a device\nhigher is better →")
    axes.yaxis.set_major_formatter(lambda value, _: _operations(value))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 999 else f"{value:g}")
    axes.minorticks_off()
    _legend_of_phases(figure, points)
    remark(figure, "Dark edges: the baseline. Each point is a phase of a cell; the line is what the device allows.")
    if is_measured(device):
        remark(figure, "The peak is what PyTorch's products reached here.")
    return figure


def _points(one: LimitCell) -> list[tuple[float, float, str, bool]]:
    """For each measured phase: operations per byte, operations per second, its name, and whether of a baseline."""
    found = []
    for phase in one.found.phases:
        seconds, read = one.found.phases_s.get(phase.name), phase.weight_bytes + phase.cache_bytes
        if seconds and read and phase.work.operations:
            operations = phase.work.operations
            is_baseline = text(one.row, "role") == BASELINE
            found.append((operations / read, operations / seconds, phase.name, is_baseline))
    return found


def _roofs(axes: "Axes", device: Device, cells: Sequence[LimitCell], low: float, high: float) -> float:
    """Draw the roof of each dtype that cells use; the highest peak."""
    used = {phase.dtype for one in cells for phase in one.found.phases if phase.work.linear}
    peaks = {dtype: peak for dtype in sorted(used) if (peak := device.peak(dtype))}
    bandwidth = device.bandwidth_bytes_s or 0.0
    for place, peak in enumerate(sorted(set(peaks.values()))):
        corner = peak / bandwidth
        xs = [low, min(max(corner, low), high), high]
        look: dict[str, Any] = {"color": "#222222", "linewidth": 1.4, "linestyle": "--" if place else "-"}
        axes.plot(xs, [min(peak, bandwidth * x) for x in xs], **look)
        label = f"{', '.join(dtype for dtype in peaks if peaks[dtype] == peak)}: {_operations(peak)}"
        beside: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "fontsize": font(8), "color": GREY}
        axes.annotate(label, (high, peak), (-3, 3), **beside)
    return max(peaks.values(), default=1.0)


def _operations(value: float) -> str:
    """`989 TFLOP/s`."""
    for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= 0.9995 * scale:
            return f"{value / scale:.3g} {prefix}FLOP/s"
    return f"{value:.3g} FLOP/s"


def _legend_of_phases(figure: "Figure", points: Sequence[tuple[float, float, str, bool]]) -> None:
    from matplotlib.lines import Line2D

    present = {phase for *_, phase, _ in points}
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 6.5, "markeredgecolor": "white"}
    legend_of(
        figure,
        [Line2D([], [], color=PHASE_COLOURS[name], label=name, **look) for name in PHASE_COLOURS if name in present],
    )


def draw_ledger(cells: Sequence[LimitCell]) -> "Figure | None":
    """Memory of the fullest device by component, as predicted, next to the measured peak."""
    import pandas

    shown = [one for one in cells if one.compared]
    left_out = 0
    if len(shown) > BARS:
        single = [one for one in shown if len(one.found.ran.features) < 2]
        left_out, shown = len(shown) - len(single), single
    if not shown:
        return None
    by_key = {one.key: one.found for one in shown}
    frame = cleaned(pandas.DataFrame([dict(one.row) for one in shown]))
    figure, panels = bar_panels(frame, "Memory of the fullest device")
    present: dict[str, str] = {}
    reach = max(max(one.found.said.memory.total, one.found.peak_memory_bytes or 0.0) for one in shown) / 1e9
    for axes, panel, places in panels:
        for y, key in zip(places, panel.rows["cell_key"], strict=True):
            found, left = by_key[key], 0.0
            for name, size in _stacked(found.said.memory):
                present[name] = PARTS_COLOURS[name]
                axes.barh(y, size, left=left, height=0.68, color=PARTS_COLOURS[name], linewidth=0.5, edgecolor="white")
                left += size
            end, said = left, f"{left:.3g}"
            if found.peak_memory_bytes is not None:
                measured = found.peak_memory_bytes / 1e9
                axes.plot([measured] * 2, [y - 0.42, y + 0.42], color="#222222", linewidth=2.2, solid_capstyle="butt")
                end, said = max(left, measured), f"{left:.3g} / {measured:.3g}"
            axes.text(end + 0.02 * reach, y, said, va="center", fontsize=font(8.5))
        axes.set_xlim(0, reach * (1.4 if sheet.current().is_column else 1.18))
    panels[-1][0].set_xlabel("GB, predicted / measured\n← lower is better")
    _legend_of_parts(figure, present)
    if left_out:
        remark(figure, f"{left_out} combinations are not drawn.")
    return figure


def _stacked(ledger: Ledger) -> list[tuple[str, float]]:
    """Components that add up to the total, GB: of TOGETHER only the largest."""
    largest = max(TOGETHER, key=lambda name: ledger[name])
    return [(name, size / 1e9) for name, size in ledger.parts if name not in TOGETHER or name == largest]


def _legend_of_parts(figure: "Figure", present: dict[str, str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = [name for name in PARTS if name in present]
    handles: list[Any] = [Patch(color=present[name], label=component(name)) for name in names]
    handles.append(Line2D([], [], color="#222222", linewidth=2.2, label="measured peak"))
    legend_of(figure, handles, columns=2)
