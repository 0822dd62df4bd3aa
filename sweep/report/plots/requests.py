"""Figures made from single requests under load: how latency is distributed, and what each request spent its time on."""

import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY, LIGHT
from sweep.report.load_cells import LoadCell, families, telling
from sweep.report.plots import sheet
from sweep.report.plots.panels import BAD, PANELS, legend_of, panels_in_a_row, remark, title_of, wrapped
from sweep.report.plots.sheet import font

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sweep.analysis.ladders import Ladder
    from sweep.results.records import RequestRow

LINES = 7
"""Loads of one panel: as many shades as a reader can distinguish."""

POINTS = 1000
"""Steps of a line: quantiles of more requests look the same."""

DECADE = 10.0
"""Longest ÷ shortest latency from which the axis is logarithmic."""

SHOWN, TIMELINES = 200, 4
"""Requests of one timeline, and timelines in a figure."""

LEAST, VISIBLE = 40, 1 / 120
"""Fewest requests of a timeline that has more, and share of its width that a request should take on average."""

STEADY = "Latency of requests that were sent in the steady state: without the beginning, when the server fills up."
STYLES = ("-", "--", "-.", ":")
NOT_SENT, WAITING, GENERATING, UNKNOWN, WINDOW = "#949494", "#DE8F05", "#0173B2", "#56B4E9", "#ECECEC"
KINDS = {
    "due, not yet sent": NOT_SENT,
    "waiting\n(network and queue)": WAITING,
    "generating": GENERATING,
    "waiting or generating\n(the server does not say)": UNKNOWN,
    "failed": BAD,
}
"""Parts of a request's line, in their order."""


def draw_latency_cdf(cells: Sequence[LoadCell]) -> "Figure | None":
    """Share of requests that took at most a given time, one line per cell; a panel for each configuration."""
    from matplotlib.figure import Figure

    groups = [kept for group in families(cells) if (kept := [one for one in group if one.data.judged])]
    if not groups:
        return None
    shown = groups[:PANELS]
    columns = min(len(shown), max(1, panels_in_a_row() // 2))
    lines = -(-len(shown) // columns)
    if sheet.current().is_column:
        size = (sheet.width_or(0.0), 2.4 * lines + 0.3)
    else:
        size = (sheet.width_or(4.9 * columns + 0.6), 3.7 * lines + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    title_of(figure, "Latency under load")
    remark(figure, STEADY)
    if len(groups) > len(shown):
        remark(figure, f"{len(groups) - len(shown)} more configurations are in requests.csv of their cells.")
    grid = [axes for line in figure.subplots(lines, columns, squeeze=False) for axes in line]
    for axes in grid[len(shown) :]:
        axes.remove()
    for axes, group in zip(grid, shown, strict=False):
        if len(group) > LINES:
            remark(figure, f"{LINES} of {len(group)} loads of {group[0].name} are drawn: the heaviest or last.")
        _cdf(axes, group[-LINES:])
        axes.set_title(wrapped(_said(group[0]), 42), fontsize=font(10), loc="left")
    if lost := sum(len(one.failed) for group in shown for one in group):
        remark(figure, f"{_requests(lost)} failed and {'is' if lost == 1 else 'are'} in no line.")
    return figure


def _said(cell: LoadCell) -> str:
    """A configuration, and how its requests arrive."""
    return f"{cell.name}, {'open' if cell.is_open else 'closed'} load"


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"


def _cdf(axes: "Axes", group: Sequence[LoadCell]) -> None:
    import numpy
    import seaborn

    colours = seaborn.color_palette("viridis", len(group) + 1).as_hex()[: len(group)][::-1]  # without light yellow
    spans = []
    for cell, colour, style in zip(group, colours, cycle(STYLES), strict=False):
        values = numpy.sort([cell.took_s(one) for one in cell.data.judged])
        spans += [values[0], values[-1]]
        shares = numpy.arange(1, len(values) + 1) / len(values)
        if len(values) > POINTS:
            shares = numpy.linspace(1 / POINTS, 1, POINTS)
            values = numpy.quantile(values, shares, method="inverted_cdf")
        name = cell.level_words + (f", {len(cell.failed)} failed" if cell.failed else "")
        x, y = numpy.r_[values[0], values], numpy.r_[0.0, shares]
        axes.plot(x, y, drawstyle="steps-post", color=colour, linestyle=style, linewidth=1.8, label=name)
    if min(spans) > 0 and max(spans) / min(spans) >= DECADE:
        axes.set_xscale("log")
        from matplotlib.ticker import FuncFormatter

        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 1], ["0", "25 %", "50 %", "75 %", "90 %", "100 %"])
    axes.set_ylabel("share of requests that\ntook at most this long")
    since = "from when it was due" if group[0].is_open else "from sending"
    axes.set_xlabel(f"latency {since}, s\n← lower is better")
    axes.legend(loc="best", fontsize=font(8.5), framealpha=0.9, edgecolor=LIGHT)


def draw_requests(cells: Sequence[LoadCell], ladders: "Sequence[Ladder]") -> "Figure | None":
    """Each request as a horizontal line, for one cell of each configuration: the one at the knee if there is one."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    chosen = [one for one in telling(cells, ladders) if timed(one)]
    if not chosen:
        return None
    shown = chosen[:TIMELINES]
    column = sheet.current().is_column
    low, each, rest = (1.0, 0.008, 0.9) if column else (1.4, 0.016, 1.3)
    heights = [low + each * len(_first(timed(one))) for one in shown]
    figure = Figure(figsize=(sheet.width_or(9.6), sum(heights) + rest), layout="constrained")
    title_of(figure, "Requests over time")
    kinds: set[str] = set()
    stack = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, cell in zip(stack, shown, strict=True):
        kinds |= _timeline(axes, cell)
    if any(len(timed(one)) > len(_first(timed(one))) for one in shown):
        remark(figure, "Only the first requests of a cell are drawn; requests.csv has all.")
    if len(chosen) > len(shown):
        remark(figure, f"{len(chosen) - len(shown)} more configurations are not drawn.")
    stack[-1].set_xlabel("time, s")
    handles = [Patch(color=colour, label=name) for name, colour in KINDS.items() if name in kinds]
    handles.append(Patch(color=WINDOW, label="steady state: what\nfigures are made from"))
    legend_of(figure, handles, columns=2)
    return figure


def timed(cell: LoadCell) -> "list[RequestRow]":
    """The requests of a cell's first start, failed ones too, in the order in which they were due."""
    first = cell.data.results[0]
    found = [one for one in (*first.requests, *first.failed) if one.sent_s is not None and one.done_s is not None]
    return sorted(found, key=lambda one: one.sent_s if one.intended_s is None else one.intended_s)  # type: ignore[return-value,arg-type]


def _first(requests: "Sequence[RequestRow]") -> "Sequence[RequestRow]":
    """As many as a reader can distinguish: fewer of a light load, whose requests are short and far between."""
    begin = min(one.sent_s for one in requests if one.sent_s is not None)
    span_s = max(one.done_s for one in requests if one.done_s is not None) - begin
    in_flight = sum(one.e2e_s for one in requests) / span_s if span_s > 0 else SHOWN
    return requests[: min(SHOWN, max(LEAST, int(in_flight / VISIBLE)))]


def parts(request: "RequestRow") -> list[tuple[str, float, float]]:
    """What a request spent its time on, with begin and end in seconds: a kind of KINDS each.

    A server that does not say how long requests wait leaves only one part after sending.
    """
    sent, done = request.sent_s, request.done_s
    assert sent is not None
    assert done is not None
    found = []
    if request.intended_s is not None and request.intended_s < sent:
        found.append(("due, not yet sent", request.intended_s, sent))
    if request.exit_code:
        return [*found, ("failed", sent, done)]
    if request.queue_s is None:
        return [*found, ("waiting or generating\n(the server does not say)", sent, done)]
    begun = min(done, max(request.start_s, sent + request.queue_s))
    return [*found, ("waiting\n(network and queue)", sent, begun), ("generating", begun, done)]


def _timeline(axes: "Axes", cell: LoadCell) -> set[str]:
    """Draw one cell; returns the kinds of parts that are in it."""
    all_of_them = timed(cell)
    requests = _first(all_of_them)
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for number, request in enumerate(requests):
        for kind, begin, end in parts(request):
            lines.setdefault(kind, []).append((number, begin, end))
    width = max(0.7, min(4.0, 260 / len(requests)))
    zero = min(begin for found in lines.values() for _, begin, _ in found)
    last = max(end for found in lines.values() for _, _, end in found)
    for kind, found in lines.items():
        places, begins, ends = zip(*found, strict=True)
        style: dict[str, Any] = {"color": KINDS[kind], "linewidth": width, "label": kind, "zorder": 3}
        axes.hlines(places, [one - zero for one in begins], [one - zero for one in ends], **style)
        if kind == "failed":
            axes.plot([one - zero for one in ends], places, "x", color=BAD, markersize=4, zorder=4)
    for window in cell.data.windows[:1]:
        axes.axvspan(window.from_s - zero, window.to_s - zero, color=WINDOW, zorder=0)
    axes.set_xlim(-0.01 * (last - zero), 1.01 * (last - zero))
    axes.set_ylim(len(requests), -1)  # the first on top
    axes.grid(False, axis="y")
    axes.set_ylabel("request")
    count = f", first {len(requests)} of {len(all_of_them)} requests" if len(all_of_them) > len(requests) else ""
    part = "" if cell.part is None else f", {cell.level_words}"
    title = f"{cell.name}, {cell.row['load']}{part}{count}"
    axes.set_title(
        "\n".join(textwrap.wrap(title, 46 if sheet.current().is_column else 80)), fontsize=font(10), loc="left"
    )
    axes.tick_params(axis="y", colors=GREY)
    return set(lines)
