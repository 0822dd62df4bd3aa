"""Speed vs what pictures show: every feature set as a point, for models whose pictures can be checked."""

from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY, LIGHT
from sweep.findings import LOST
from sweep.report.plots.panels import BAD, first_panels, panel_grid, panels_in_a_row, remark, shortened
from sweep.report.plots.pareto import name_points

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 16  # labelled points in a panel at most: the fastest


def draw_exactness(frame: "pandas.DataFrame") -> "Figure | None":
    """Speed-up vs the share of pictures that show all that was asked; the baseline is a line at its own share."""
    rows = frame[frame["speedup"].notna() & frame["exact_rate"].notna() & ~frame["aa"]]
    if not (rows["features"] != "").any():
        return None
    panels, said = first_panels(rows)
    figure, grid = panel_grid(
        panels, 1, "Speed vs what pictures show", height=4.2, width=4.4 if len(panels) > 1 else 6.8
    )
    names = []
    for place, panel in enumerate(panels):
        axes = grid[place][0]
        axes.axhline(1.0, color="#222222", linewidth=1, linestyle="--")
        baseline = panel.rows[panel.rows["features"] == ""]
        for share in baseline["exact_rate"].head(1):
            axes.axvline(share, color=GREY, linewidth=1, linestyle=":", label="baseline")
        names.append(_draw_points(axes, panel.rows[panel.rows["features"] != ""]))
        axes.set_xlim(-0.03, 1.06)
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}" if -0.01 <= share <= 1.01 else "")
        axes.set_xlabel("pictures that show all that was asked\nhigher is better →")
        if place % panels_in_a_row() == 0:
            axes.set_ylabel("speed-up, ×\nhigher is better →")
    remark(figure, said)
    remark(figure, "Whiskers: 95 % intervals. Dotted: the baseline's own share. Crosses: FAIL. The fastest have names.")
    figure.draw_without_rendering()  # places the axes: names depend on where points end up
    for stack, points in zip(grid, names, strict=True):
        name_points(stack[0], points)
    return figure


def _draw_points(axes: "Axes", rows: "pandas.DataFrame") -> list[tuple[float, float, str, bool]]:
    """Points with whiskers in both directions; returns (x, y, name, True) of those that get a name, fastest first."""
    named: list[tuple[float, float, str, bool]] = []
    for row in rows.sort_values("speedup", ascending=False).itertuples():
        failed = row.status in LOST
        look: dict[str, Any] = {"color": BAD, "marker": "X"} if failed else {"color": "#0173B2", "marker": "o"}
        across = [[row.exact_rate - row.exact_low], [row.exact_high - row.exact_rate]]
        up = [[max(0.0, row.speedup - row.speedup_low)], [max(0.0, row.speedup_high - row.speedup)]]
        known = row.speedup_low == row.speedup_low  # not NaN
        axes.errorbar(
            row.exact_rate,
            row.speedup,
            xerr=across,
            yerr=up if known else None,
            ecolor=LIGHT,
            elinewidth=1,
            capsize=2.5,
            markersize=7,
            markeredgecolor="white",
            linestyle="none",
            **look,
        )
        named.append((row.exact_rate, row.speedup, shortened(row.series, 34), True))
    return named[:NAMED]
