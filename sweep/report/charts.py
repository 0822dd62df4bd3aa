"""The charts of dashboard.html as values of plotly.js: what loads achieved, how long it took, what each request did.

Plain values in, plain values out; needs no plotly. Texts of users are escaped: plotly.js takes `<b>` for markup.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweep.report.load_cells import LoadCell, families, knee_key, telling
from sweep.report.plots.requests import KINDS, WINDOW, parts, timed
from sweep.report.stored import Stored
from sweep.report.words import number

COLOURS = ("#0173B2", "#DE8F05", "#029E73", "#D55E00", "#CC78BC", "#CA9161", "#949494", "#56B4E9")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
DASHES = {"50": "solid", "90": "dash", "95": "dashdot", "99": "dot"}
"""Look of each percentile."""

POINTS, REQUESTS, TIMELINES = 500, 300, 24
"""Points of a distribution's line, requests of a timeline, and timelines to choose from."""


@dataclass(frozen=True)
class Figure:
    """One figure of plotly.js. The reader chooses it by `name`."""

    name: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """One figure with a heading, or several to choose from."""

    title: str
    about: str
    figures: tuple[Figure, ...]
    wide: bool = False  # spans the whole width of the page


def charts(stored: Stored) -> list[Chart]:
    """Every chart that has something to show."""
    cells = stored.loads
    knees = {knee_key(ladder) for ladder in stored.summary.ladders}
    found: list[Chart | None] = []
    for is_open in (False, True):
        some = [one for one in cells if one.is_open == is_open and one.level is not None and one.data.judged]
        if some:
            throughput, *others = (_against_level(some, what, knees) for what in WHAT[: 3 + is_open])
            found += [throughput, _latency(some), *others]
    return [*filter(None, found), *_distribution(cells), *_timelines(stored)]


@dataclass(frozen=True)
class What:
    """A column of summary.csv against the load."""

    title: str
    axis: str
    column: str


WHAT = (
    What("Throughput", "requests/s · higher is better", "requests_per_s"),
    What("Goodput", "requests/s that meet the SLO · higher is better", "goodput_per_s"),
    What("Waiting in the server", "mean, s · lower is better", "queue_mean_s"),
    What("Requests in flight", "mean over time", "in_flight"),  # only of an open load: a closed one sets them
)


def escaped(text: str) -> str:
    """A user's text that plotly.js shows as it is."""
    return html.escape(text, quote=False)


def _look(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], SYMBOLS[place % len(SYMBOLS)]


def _by(cells: Sequence[LoadCell]) -> str:
    return "request rate" if cells[0].is_open else "requests in flight"


def _against_level(cells: Sequence[LoadCell], what: What, knees: set[str]) -> Chart | None:
    data = []
    for place, group in enumerate(families(cells)):
        points = [(one, number(one.row, what.column)) for one in group]
        shown = [(one, value) for one, value in points if value is not None]
        if not shown:
            continue
        colour, symbol = _look(place)
        at_knee = [one.row["cell_key"] in knees for one, _ in shown]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escaped(group[0].name),
                "x": [one.level for one, _ in shown],
                "y": [value for _, value in shown],
                "text": [
                    escaped(one.label + (" (knee)" if knee else ""))
                    for (one, _), knee in zip(shown, at_knee, strict=True)
                ],
                "hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>",
                "line": {"color": colour},
                "marker": {
                    "symbol": symbol,
                    "size": 10,
                    "color": colour,
                    "line": {"color": "#222222", "width": [3 if knee else 0 for knee in at_knee]},
                },
            }
        )
    if not data:
        return None
    knee = " Dark rings: the knee." if knees & {one.row["cell_key"] for one in cells} else ""
    look = layout(_level_axis(cells), {"title": {"text": what.axis}, "rangemode": "tozero"})
    return Chart(f"{what.title} by {_by(cells)}", f"Of the steady state.{knee}", (Figure("", data, look),))


def _latency(cells: Sequence[LoadCell]) -> Chart:
    """Percentiles: all of one configuration, or a figure for each. Those that need more requests are left out."""
    groups = families(cells)
    lines = {q: [line for place, group in enumerate(groups) if (line := _percentile(group, place, q))] for q in DASHES}
    y = {"title": {"text": "latency, s · lower is better"}, "rangemode": "tozero"}
    if len(groups) == 1:
        shown = {"": [line for found in lines.values() for line in found]}
    else:
        shown = {f"p{q}": found for q, found in lines.items() if found}
    figures = tuple(Figure(name, data, layout(_level_axis(cells), y)) for name, data in shown.items())
    since = "from when a request was due" if cells[0].is_open else "from sending a request"
    about = f"Percentiles {since}, of the steady state. p95 needs 20 requests, p99 needs 100."
    return Chart(f"Latency by {_by(cells)}", about, figures)


def _percentile(group: Sequence[LoadCell], place: int, q: str) -> dict[str, Any] | None:
    """A line of one configuration; None where no cell has enough requests."""
    name = "e2e_with_queue" if group[0].is_open else "latency"
    values = [(one, number(one.row, f"{name}_p{q}_s")) for one in group]
    shown = [(one, value) for one, value in values if value is not None]
    if not shown:
        return None
    colour, symbol = _look(place)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{escaped(group[0].name)}, p{q}",
        "x": [one.level for one, _ in shown],
        "y": [value for _, value in shown],
        "text": [escaped(one.label) for one, _ in shown],
        "hovertemplate": f"%{{text}}<br>p{q} %{{y:.4g}} s<extra></extra>",
        "line": {"color": colour, "dash": DASHES[q]},
        "marker": {"symbol": symbol, "size": 7, "color": colour},
    }


def _distribution(cells: Sequence[LoadCell]) -> list[Chart]:
    """Share of requests that took at most a given time, a figure for each configuration."""
    import numpy

    figures = []
    for group in families([one for one in cells if one.data.judged]):
        data = []
        for place, cell in enumerate(group):
            values = numpy.sort([cell.took_s(one) for one in cell.data.judged])
            shares = numpy.arange(1, len(values) + 1) / len(values)
            if len(values) > POINTS:
                shares = numpy.linspace(1 / POINTS, 1, POINTS)
                values = numpy.quantile(values, shares, method="inverted_cdf")
            failed = f", {len(cell.failed)} failed" if cell.failed else ""
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": escaped(cell.level_words + failed),
                    "x": [float(one) for one in values],
                    "y": [float(100 * one) for one in shares],
                    "hovertemplate": "%{y:.1f} % took at most %{x:.4g} s<extra>%{fullData.name}</extra>",
                    "line": {"shape": "hv", "color": _look(place)[0]},
                }
            )
        x = {"title": {"text": "latency, s · lower is better"}, "rangemode": "tozero"}
        look = layout(x, {"title": {"text": "% of requests"}, "range": [0, 102]})
        kind = "open" if group[0].is_open else "closed"
        figures.append(Figure(f"{group[0].name}, {kind} load", data, look))
    about = "Of requests that were sent in the steady state. Failed ones are in no line."
    return [Chart("Distribution of latency", about, tuple(figures), wide=True)] if figures else []


def _timelines(stored: Stored) -> list[Chart]:
    """Each request as a bar, a figure for each cell; the first shown is that at the knee."""
    cells = [one for one in stored.loads if timed(one)]
    if not cells:
        return []
    first = telling(cells, stored.summary.ladders)[0]
    shown = [first, *(one for one in cells if one is not first)][:TIMELINES]
    about = f"At most {REQUESTS} requests. Shaded: the steady state."
    return [Chart("Requests over time", about, tuple(map(_timeline, shown)), wide=True)]


def _timeline(cell: LoadCell) -> Figure:
    everything = timed(cell)
    requests = everything[:REQUESTS]
    prompts = cell.data.results[0].prompts
    bars: dict[str, dict[str, list[Any]]] = {}
    for place, request in enumerate(requests):
        prompt = prompts[request.prompt_index] if request.prompt_index < len(prompts) else ""
        said = f"{request.request_id}: {prompt[:120]}" + (f" ({request.error[:200]})" if request.error else "")
        for kind, begin, end in parts(request):
            one = bars.setdefault(kind, {"base": [], "x": [], "y": [], "text": []})
            one["base"].append(begin)
            one["x"].append(end - begin)
            one["y"].append(place)
            one["text"].append(escaped(said))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": kind.replace("\n", " "),
            "marker": {"color": colour, "line": {"width": 0}},
            "hovertemplate": "%{text}<br>%{fullData.name}: %{x:.4g} s<extra></extra>",
            "textposition": "none",
            **bars[kind],
        }
        for kind, colour in KINDS.items()
        if kind in bars
    ]
    y = {"title": {"text": "request"}, "autorange": "reversed"}
    look = layout({"title": {"text": "time, s"}}, y) | {"barmode": "overlay", "bargap": 0.1}
    look["shapes"] = [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": window.from_s,
            "x1": window.to_s,
            "y0": 0,
            "y1": 1,
            "fillcolor": WINDOW,
            "line": {"width": 0},
            "layer": "below",
        }
        for window in cell.data.windows[:1]
    ]
    left = f" (first {REQUESTS} of {len(everything)})" if len(everything) > REQUESTS else ""
    return Figure(f"{cell.label}{left}", data, look)


def _level_axis(cells: Sequence[LoadCell]) -> dict[str, Any]:
    levels = sorted({one.level for one in cells if one.level is not None})
    return {
        "title": {"text": "requests sent a second" if cells[0].is_open else "requests in flight"},
        "type": "log",
        "tickvals": levels,
        "ticktext": [f"{one:g}" for one in levels],
    }


def layout(x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
    """A figure's layout, from what is special about its axes."""
    grid = {"gridcolor": "#DDDDDD", "zerolinecolor": "#BBBBBB", "automargin": True}
    return {
        "xaxis": grid | x,
        "yaxis": grid | y,
        "height": 400,
        "margin": {"l": 56, "r": 14, "t": 14, "b": 44},
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "showlegend": True,
    }
