"""Loads: throughput, latency and goodput against how many requests are in flight, how many arrive per second, or how
many the server takes at once."""

from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY
from sweep.analysis import columns
from sweep.report.plots.lines import Looks, line_panels
from sweep.report.plots.panels import BASELINE, CONTEXT, remark, without_context
from sweep.report.plots.sheet import font

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHORT = "Steady state only: without the beginning, when the server fills up, and the end, when it empties."
KNEE = {
    "concurrency": "Rings: the knee, from where more load stops being worth it.",
    "request_rate": "Rings: the highest rate that is kept up with, or at which the SLO is met.",
}
RATES = {"images_per_s": columns.BY_NAME["images_per_s"].axis, "requests_per_s": "requests/s\nhigher is better →"}
"""Throughput of images, and of texts."""

FEWEST_PARTS = 3
"""The fewest parts of a long load that are drawn."""

OFFLINE = "offline, full batches"
FAR = 2.0
"""Offline ÷ highest throughput under load. Above this, the offline line would flatten the others: a remark has it."""

WITHIN = (*CONTEXT, "features", "batch")
"""Columns that a cell under load shares with the same one offline."""


def draw_concurrency(frame: "pandas.DataFrame") -> "Figure | None":
    """Closed loads, one line for each feature set; needs two concurrencies."""
    rows = frame[frame["load"].str.startswith("closed") & frame["requests_per_s"].notna()]
    title = "Throughput and latency by requests in flight"
    return _lines(rows, "concurrency", "latency_mean_s", title, _offline(frame))


def draw_rate(frame: "pandas.DataFrame") -> "Figure | None":
    """Open loads, likewise; latency from when requests were due. Needs two rates."""
    rows = frame[frame["load"].str.startswith("open") & frame["requests_per_s"].notna() & frame["request_rate"].notna()]
    title = "Throughput and latency by request rate"
    return _lines(rows, "request_rate", "e2e_with_queue_mean_s", title, _offline(frame))


def draw_soak(frame: "pandas.DataFrame") -> "Figure | None":
    """Long loads, part by part; needs three parts."""
    rows = frame[frame["part"].notna() & frame["requests_per_s"].notna()]
    if rows["part"].nunique() < FEWEST_PARTS:
        return None
    names = [f"{row.features or BASELINE}{_settings(row.cell)}" for row in rows.itertuples()]
    rows = _as_series(rows, names)
    axes = _axes(rows, "latency_mean_s", "peak_memory_gb", "goodput_per_s")
    figure = line_panels(rows, axes, "A long load, part by part", "part", "part of the load", doubling=False)
    remark(figure, SHORT)
    return figure


def draw_batch_under_load(frame: "pandas.DataFrame") -> "Figure | None":
    """Loads by how many requests the server takes at once, one line a feature set and load; needs two batches."""
    rows = frame[(frame["load"] != "") & frame["requests_per_s"].notna()]
    if rows["batch"].nunique() < 2:
        return None
    names = [f"{row.features or BASELINE}{_settings(row.cell)}, {row.load}" for row in rows.itertuples()]
    rows = _as_series(rows, names)
    axes = _axes(rows, "latency_mean_s", "peak_memory_gb")
    what = "batch size (requests that the server takes at once at most)"
    figure = line_panels(rows, axes, "Under load, by batch size", "batch", what)
    remark(figure, SHORT)
    return figure


def _axes(rows: "pandas.DataFrame", *more: str) -> dict[str, str]:
    """Columns to draw with the text of their axes: throughput, and those of `more` that have numbers."""
    rate = "images_per_s" if rows["images_per_s"].notna().any() else "requests_per_s"
    return {rate: RATES[rate], **{name: columns.BY_NAME[name].axis for name in more if rows[name].notna().any()}}


def _offline(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    return frame[(frame["load"] == "") & frame["images_per_s"].notna() & ~frame["aa"]]


def _settings(label: str) -> str:
    """What else differs between the sweep's cells, as a cell's label has it: ` placement=split`."""
    return "".join(f" {word}" for word in without_context(label).split() if "=" in word)


def _as_series(rows: "pandas.DataFrame", names: list[str]) -> "pandas.DataFrame":
    """Rows of lines with these names, baselines first."""
    looks = {name: number for number, name in enumerate(sorted(set(names), key=lambda one: (BASELINE not in one, one)))}
    return rows.assign(series=names, look=[looks[name] - (BASELINE in looks) for name in names])


def _lines(
    rows: "pandas.DataFrame", level: str, latency: str, title: str, offline: "pandas.DataFrame"
) -> "Figure | None":
    if rows[level].nunique() < 2:
        return None
    several = rows["batch"].nunique() > 1
    names = [
        f"{row.features or BASELINE}{f' b{row.batch:.0f}' if several else ''}{_settings(row.cell)}"
        for row in rows.itertuples()
    ]
    rows = _as_series(rows, names)
    axes = _axes(rows, latency, "queue_mean_s", "goodput_per_s")
    what = {"concurrency": "requests in flight", "request_rate": "requests sent a second"}[level]
    beyond: dict[str, float] = {}

    def over(axes: "Axes", drawn: "pandas.DataFrame", column: str, looks: Looks) -> None:
        """Rings around knees, and the same configurations offline."""
        knees = drawn[drawn["knee"] & drawn[column].notna()]
        axes.plot(knees[level], knees[column], "o", **_RING)
        if column == "images_per_s":
            _draw_offline(axes, drawn, offline, looks, beyond)

    figure = line_panels(rows, axes, title, level, what, over)
    remark(figure, SHORT)
    if rows["knee"].any():
        remark(figure, KNEE[level])
    for name, value in beyond.items():
        remark(figure, f"{name} {OFFLINE}: {value:.3g} images/s, far above.")
    return figure


_RING: dict[str, Any] = {
    "markersize": 15,
    "markerfacecolor": "none",
    "markeredgecolor": "#222222",
    "markeredgewidth": 1.3,
    "zorder": 5,
    "label": "knee",
}


def _draw_offline(
    axes: "Axes",
    drawn: "pandas.DataFrame",
    offline: "pandas.DataFrame",
    looks: Looks,
    beyond: dict[str, float],
) -> None:
    """A dotted line for each series that was measured offline too; those far above the others go to `beyond`."""
    highest, said = drawn["images_per_s"].max(), False
    for name, part in drawn.groupby("series", sort=False):
        same = offline.merge(part[list(WITHIN)].drop_duplicates(), on=list(WITHIN))
        if same.empty:
            continue
        value = float(same["images_per_s"].mean())
        if value > FAR * highest:
            beyond[str(name)] = value
            continue
        axes.axhline(value, color=looks[str(name)][0], linestyle=":", linewidth=1.6, zorder=2, label=OFFLINE)
        axes.set_ylim(0, max(axes.get_ylim()[1], value * 1.12))
        if not said:
            place: dict[str, Any] = {"xy": (0.02, value), "xycoords": ("axes fraction", "data")}
            look: dict[str, Any] = {"fontsize": font(8), "color": GREY, "va": "bottom"}
            axes.annotate(OFFLINE, xytext=(0, 2), textcoords="offset points", **place, **look)
            said = True
