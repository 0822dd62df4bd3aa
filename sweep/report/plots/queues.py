"""Latency and goodput against rate by the queueing model, with what was measured; knows how loads are drawn, not how
they are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY, LIGHT
from sweep.analysis.percentile_intervals import interval_s
from sweep.analysis.queueing import Queueing, Rung, long_loads
from sweep.predict.queueing import Figures
from sweep.report.plots import sheet
from sweep.report.plots.lines import HUES
from sweep.report.plots.panels import legend_of, panels_in_a_row, remark, title_of, wrapped
from sweep.report.plots.sheet import font
from sweep.report.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4
"""Configurations of one figure."""

P50, P95 = HUES[0], HUES[1]
MARKERS = {P50: "o", P95: "s"}
ABOVE = 1.25
"""Height of an axis ÷ its largest measured value: near saturation, curves grow without bound."""

DECADE = 10.0
"""Largest ÷ smallest measured latency from which its axis is logarithmic."""

MODEL = (
    "Lines: long loads by the queueing model. Hollow: the requests that were sent. Filled: measured, 95 % intervals."
)


@dataclass(frozen=True)
class _Curve:
    """What long loads show, at ascending levels."""

    levels: Sequence[float]
    found: Sequence[Figures]


def draw_queues(queues: Sequence[Queueing]) -> "Figure | None":
    """A column per configuration with a prediction: p50 and p95, below them goodput or requests done per second."""
    from matplotlib.figure import Figure

    groups = [one for one in queues if one.tells]
    if not groups:
        return None
    shown = groups[:PANELS]
    columns = min(len(shown), panels_in_a_row())
    blocks = -(-len(shown) // columns)
    if sheet.current().is_column:
        size = (sheet.width_or(0.0), 4.0 * blocks + 0.7)
    else:
        size = (sheet.width_or(max(7.2, 3.6 * columns + 2.4)), 5.4 * blocks + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    title_of(figure, "Loads, measured and by the queueing model")
    remark(figure, MODEL)
    if len(groups) > len(shown):
        remark(figure, f"{len(groups) - len(shown)} more configurations are in summary.csv.")
    table = figure.subplots(2 * blocks, columns, squeeze=False)
    for place in range(blocks * columns):
        block, column = divmod(place, columns)
        pair = table[2 * block][column], table[2 * block + 1][column]
        if place < len(shown):
            _draw(*pair, shown[place])
        else:
            for axes in pair:
                axes.remove()
    _legend(figure, any(one.is_open for one in shown))
    return figure


def _draw(latency: "Axes", done: "Axes", one: Queueing) -> None:
    from matplotlib.ticker import FuncFormatter

    curve = _curve(one)
    levels = [rung.level for rung in one.rungs]
    kind = "open" if one.is_open else "closed"
    latency.set_title(wrapped(f"{one.name}, {kind} load", 34), fontsize=font(10), loc="left")
    tops = []
    for colour, q, name in ((P50, 50, "p50_s"), (P95, 95, "p95_s")):
        said = [getattr(found, name) for found in curve.found]
        known = [(x, value) for x, value in zip(curve.levels, said, strict=True) if value]
        latency.plot(*zip(*known, strict=True), color=colour, linewidth=1.8, zorder=2)
        points = []
        for level, rung in zip(levels, one.rungs, strict=True):
            if one.is_open and (own := getattr(rung.predicted, name)) is not None:
                latency.plot(level, own, MARKERS[colour], **_HOLLOW, markeredgecolor=colour)
            if (value := rung.measured[q == 95]) is not None:
                points.append((level, value, interval_s(rung.data, q)))
        tops += _points(latency, points, colour)
    if tops and max(tops) > DECADE * min(one for one in tops if one > 0):
        latency.set_yscale("log")
        latency.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        latency.set_ylim(min(tops) / 2, ABOVE * max(tops))
    else:
        latency.set_ylim(0, ABOVE * max(tops, default=1.0))
    latency.set_ylabel(f"latency{' from when due' if one.is_open else ''}, s\n← lower is better")
    slo = one.is_open and all(rung.predicted.attained is not None for rung in one.rungs)
    column = "goodput_per_s" if slo else "requests_per_s"
    said = [_done(found, slo) for found in curve.found]
    done.plot(curve.levels, said, color=GREY, linewidth=1.8, zorder=2)
    points = []
    for level, rung in zip(levels, one.rungs, strict=True):
        done.plot(level, _done(rung.predicted, slo), "D", **_HOLLOW, markeredgecolor=GREY)
        if (value := number(rung.row, column)) is not None:
            points.append((level, value, _ends(rung, value, slo)))
    tops = _points(done, points, GREY, "D")
    done.set_ylim(0, ABOVE * max([*tops, *said]))
    what = "goodput, requests/s\nthat meet the SLO" if slo else "requests done a second"
    done.set_ylabel(f"{what}\nhigher is better →")
    done.set_xlabel("requests sent a second" if one.is_open else "requests in flight")
    most = 1.06 * max([*levels, *curve.levels])
    for axes in (latency, done):
        axes.set_xlim(0, most)
        if one.is_open and one.rungs[0].station.saturates_at < most:
            axes.axvline(one.rungs[0].station.saturates_at, color=GREY, linestyle="--", linewidth=1.1, zorder=1)


_HOLLOW: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.2, "zorder": 3}


def _curve(one: Queueing) -> _Curve:
    if one.is_open:
        return _Curve(*long_loads(one))
    return _Curve([rung.level for rung in one.rungs], [rung.predicted for rung in one.rungs])


def _done(said: Figures, slo: bool) -> float:
    return said.per_s * (said.attained or 0.0) if slo else said.per_s


def _ends(rung: Rung, value: float, slo: bool) -> tuple[float, float] | None:
    """95 % interval of the requests done per second."""
    share = number(rung.row, "goodput_share") if slo else None
    names = ("goodput_low", "goodput_high") if slo else ("requests_per_s_low", "requests_per_s_high")
    low, high = (number(rung.row, name) for name in names)
    if low is None or high is None or (slo and not share):
        return None
    return (value * low / share, value * high / share) if share else (low, high)


def _points(
    axes: "Axes", points: Sequence[tuple[float, float, tuple[float, float] | None]], colour: str, marker: str = ""
) -> list[float]:
    """Draw measured values with their intervals; returns the values that the axis must show."""
    if not points:
        return []
    x, y, _ = zip(*points, strict=True)
    axes.plot(x, y, marker or MARKERS[colour], color=colour, markersize=6, markeredgecolor="white", zorder=5)
    tops = list(y)
    for level, value, both in points:
        if both is not None:
            low, high = min(both[0], value), max(both[1], value)
            look: dict[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 1.1, "capsize": 3, "zorder": 4}
            axes.errorbar(level, value, yerr=[[value - low], [high - value]], **look)
            tops.append(min(high, 1.5 * value))
    return tops


def _legend(figure: "Figure", saturates: bool) -> None:
    from matplotlib.lines import Line2D

    hollow: dict[str, Any] = {"linestyle": "", "marker": "o", "markerfacecolor": "none", "markeredgecolor": GREY}
    handles = [
        Line2D([], [], color=P50, marker="o", markeredgecolor="white", label="p50"),
        Line2D([], [], color=P95, marker="s", markeredgecolor="white", label="p95"),
        Line2D([], [], color=LIGHT, linewidth=1.8, label="predicted, long load"),
        Line2D([], [], **hollow, label="predicted, as sent"),
        Line2D([], [], linestyle="", marker="o", color=GREY, label="measured"),
    ]
    if saturates:
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1.1, label="predicted saturation"))
    legend_of(figure, handles)
