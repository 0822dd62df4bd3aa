"""Strong scaling: the same requests on more and more devices, one line for each feature set.

A line begins at the baseline, which is on one device. Knows nothing about what makes a feature need devices.
"""

from typing import TYPE_CHECKING

from profiling.plot_style import GREY
from sweep.report.plots.lines import Looks, line_panels
from sweep.report.plots.panels import BASELINE, CONTEXT, remark

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = {
    "speedup": "speed-up\nhigher is better →",
    "images_per_s_per_gpu": "images/s a device\nhigher is better →",
    "peak_memory_gb": "peak memory of the fullest, GB\n← lower is better",
}
"""Columns and the text of their axes, from top to bottom; those without numbers are left out."""

IDEAL = "Dashed: as many times as fast as there are devices."


def draw_scaling(frame: "pandas.DataFrame") -> "Figure | None":
    """Speed-up, throughput a device and memory by devices; needs a feature set that ran on two numbers of them."""
    rows = frame[(frame["load"] == "") & frame["speedup"].notna() & frame["gpus"].notna() & ~frame["aa"]]
    baseline = rows["features"].isin(["", BASELINE])
    rows, first = rows[~baseline], rows[baseline]
    several = rows["batch"].nunique() > 1
    rows = rows.assign(series=rows["features"] + (rows["batch"].map(" b{:.0f}".format) if several else ""))
    within = [*CONTEXT, "series"]
    if rows.duplicated([*within, "gpus"]).any():  # other settings than the number of devices differ
        return None
    if not (rows.groupby(within, dropna=False)["gpus"].nunique() > 1).any():
        return None
    rows = _from_baseline(rows, first)
    shown = {name: text for name, text in SHOWN.items() if rows[name].notna().any()}
    figure = line_panels(rows, shown, "The same requests on more devices", "gpus", "devices", _ideal)
    remark(figure, IDEAL)
    return figure


def _from_baseline(rows: "pandas.DataFrame", first: "pandas.DataFrame") -> "pandas.DataFrame":
    """Each series with its baseline as a first row, so that every line begins on one device."""
    import pandas

    shared = [*CONTEXT, "batch"]
    lines = rows[[*shared, "series", "look"]].drop_duplicates([*shared, "series"])
    begun = first.drop(columns=["series", "look"]).merge(lines, on=shared)
    looks = {name: number for number, name in enumerate(dict.fromkeys(rows["series"]))}
    every = pandas.concat([begun, rows], ignore_index=True)
    return every.assign(look=every["series"].map(looks))


def _ideal(axes: "Axes", drawn: "pandas.DataFrame", column: str, looks: Looks) -> None:
    if column == "speedup":
        most = int(drawn["gpus"].max())
        every = range(1, most + 1)  # a straight line would be bent by the logarithmic axis
        axes.plot(every, every, linestyle="--", color=GREY, linewidth=1, zorder=1)
        axes.set_ylim(0, most * 1.05)
