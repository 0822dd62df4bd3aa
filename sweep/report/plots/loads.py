"""Loads: throughput, latency and goodput against how many requests are in flight, or how many come a second."""

from typing import TYPE_CHECKING

from sweep.analysis import columns
from sweep.report.plots.panels import BASELINE, line_panels, remark

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SHORT = "Steady state only: without the beginning, when the server fills up, and the end, when it empties."


def draw_concurrency(frame: "pandas.DataFrame") -> "Figure | None":
    """Closed loads, one line for each feature set; needs two concurrencies."""
    rows = frame[frame["load"].str.startswith("closed") & frame["images_per_s"].notna()]
    return _lines(rows, "concurrency", "latency_mean_s", "Throughput and latency by requests in flight")


def draw_rate(frame: "pandas.DataFrame") -> "Figure | None":
    """Open loads, likewise; latency from when requests were due. Needs two rates."""
    rows = frame[frame["load"].str.startswith("open") & frame["images_per_s"].notna() & frame["request_rate"].notna()]
    return _lines(rows, "request_rate", "e2e_with_queue_mean_s", "Throughput and latency by request rate")


def _lines(rows: "pandas.DataFrame", level: str, latency: str, title: str) -> "Figure | None":
    if rows[level].nunique() < 2:
        return None
    several = rows["batch"].nunique() > 1
    names = [
        f"{features or BASELINE}{f' b{batch:.0f}' if several else ''}"
        for features, batch in zip(rows["features"], rows["batch"], strict=True)
    ]
    looks = {name: number - 1 for number, name in enumerate(sorted(set(names), key=lambda one: (one != BASELINE, one)))}
    rows = rows.assign(series=names, look=[looks[name] for name in names])
    shown = [name for name in ("images_per_s", latency, "queue_mean_s", "goodput_per_s") if rows[name].notna().any()]
    axes = {name: columns.BY_NAME[name].axis for name in shown}
    what = {"concurrency": "requests in flight", "request_rate": "requests sent a second"}[level]
    figure = line_panels(rows, axes, title, level, what)
    remark(figure, SHORT)
    return figure
