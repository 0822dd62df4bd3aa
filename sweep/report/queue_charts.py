"""Charts of the dashboard that hold loads against the queueing model, as plain values for plotly.js."""

from collections.abc import Sequence
from typing import Any

from sweep.analysis.percentile_intervals import interval_s
from sweep.analysis.queueing import Queueing, Rung, long_loads
from sweep.report.charts import COLOURS, SYMBOLS, Chart, Figure, escaped, layout

PERCENTILES = ((50, "p50_s"), (95, "p95_s"))


def queue_charts(queues: Sequence[Queueing]) -> list[Chart]:
    """A chart with a figure for each configuration that has a prediction; [] without any."""
    figures = tuple(_figure(one) for one in queues if one.tells)
    about = (
        "Lines: long loads, by the queueing model. Open symbols: the requests as they were sent. Bars: 95 % intervals."
    )
    return [Chart("Latency, measured and predicted", about, figures, wide=True)] if figures else []


def _figure(one: Queueing) -> Figure:
    data: list[dict[str, Any]] = []
    for place, (q, name) in enumerate(PERCENTILES):
        colour, symbol = COLOURS[place], SYMBOLS[place]
        if one.is_open:
            levels, found = long_loads(one)
            known = [(x, value) for x, said in zip(levels, found, strict=True) if (value := getattr(said, name))]
            data.append(_trace(f"p{q}, predicted of long loads", known, "lines", colour, symbol))
        own = [(rung.level, value) for rung in one.rungs if (value := getattr(rung.predicted, name)) is not None]
        data.append(_trace(f"p{q}, predicted as sent", own, "markers", colour, f"{symbol}-open"))
        data.append(_measured(one.rungs, q, colour, symbol))
    x = {"title": {"text": "requests sent a second" if one.is_open else "requests in flight"}, "rangemode": "tozero"}
    tops = [2 * value for rung in one.rungs for value in rung.measured if value]
    y = {"title": {"text": "latency, s · lower is better"}, "range": [0, max(tops, default=1.0)]}
    shown = layout(x, y)
    if one.is_open:
        at = one.rungs[0].station.saturates_at
        line = {"dash": "dash", "color": "#555555", "width": 1}
        shown["shapes"] = [{"type": "line", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1, "line": line}]
    return Figure(f"{one.name}, {'open' if one.is_open else 'closed'} load", data, shown)


def _trace(name: str, points: Sequence[tuple[float, float]], mode: str, colour: str, symbol: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": mode,
        "name": escaped(name),
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "hovertemplate": "%{x:.4g}: %{y:.4g} s<extra>%{fullData.name}</extra>",
        "line": {"color": colour},
        "marker": {"symbol": symbol, "size": 10, "color": colour},
    }


def _measured(rungs: Sequence[Rung], q: int, colour: str, symbol: str) -> dict[str, Any]:
    """Points with whiskers where there are enough requests for one."""
    known = [(rung, value) for rung in rungs if (value := rung.measured[q == 95]) is not None]
    trace = _trace(f"p{q}, measured", [(rung.level, value) for rung, value in known], "markers", colour, symbol)
    above, below = [], []
    for rung, value in known:
        low, high = interval_s(rung.data, q) or (value, value)
        above.append(max(0.0, high - value))
        below.append(max(0.0, value - low))
    return trace | {"error_y": {"type": "data", "symmetric": False, "array": above, "arrayminus": below}}
