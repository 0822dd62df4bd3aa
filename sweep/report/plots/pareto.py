"""Speed vs quality: every feature set as a point, and the Pareto front of those worth choosing.

A feature set is on the front if no other has both a higher speed-up and a smaller image difference.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY, LIGHT
from sweep.findings import LOST
from sweep.report.plots.lines import MARKERS
from sweep.report.plots.panels import BAD, first_panels, legend_of, panel_grid, panels_in_a_row, remark, shortened
from sweep.report.plots.sheet import font

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0173B2", "#DE8F05", "#029E73", "#CC78BC", "#CA9161", "#949494")  # of batches, colour-blind safe
BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.6, "pad": 0.4}  # keeps a name legible on a line
NAMED = 60  # labelled points in a panel at most; beyond that, only the front has whiskers


def front_of(points: Sequence[tuple[float, float]]) -> list[int]:
    """Numbers of the (difference, speed-up) points that no other beats, smallest difference first.

    The baseline, at no difference and speed-up 1, beats every slower point.
    """
    front, best = [], 1.0
    for number in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[number][1] > best:
            front.append(number)
            best = points[number][1]
    return front


def draw_quality(frame: "pandas.DataFrame") -> "Figure | None":
    """Speed-up vs mean difference from the baseline's images; identical images are at the left edge."""
    import numpy as np

    rows = frame[frame["speedup"].notna() & frame["mean_diff"].notna() & ((frame["features"] != "") | frame["aa"])]
    if rows.empty:
        return None
    different = rows.loc[rows["mean_diff"] > 0, "mean_diff"]
    first = float(np.floor(np.log10(different.min()))) if len(different) else 0.0
    last = max(float(np.ceil(np.log10(different.max()))), first + 1) if len(different) else 0.0
    edge = first - 0.7  # the place of identical images: log10(0) is not on the axis
    left = edge - 0.35 if (rows["mean_diff"] == 0).any() else first - 0.1
    right = last + 0.1 if len(different) else edge + 1
    panels, said = first_panels(rows)
    figure, grid = panel_grid(panels, 1, "Speed vs quality", height=4.6, width=4.4 if len(panels) > 1 else 6.8)
    looks = _looks(rows["batch"])
    low, high, cut = _reach(rows)
    names = []
    for place, panel in enumerate(panels):
        axes = grid[place][0]
        axes.set_xlim(left, right)
        axes.set_ylim(low, high)
        axes.axhline(1.0, color="#222222", linewidth=1, linestyle="--")
        placed = panel.rows.assign(x=np.log10(panel.rows["mean_diff"].where(panel.rows["mean_diff"] > 0, 10.0**edge)))
        names.append(_draw_points(axes, placed, looks, right))
        powers: Any = np.arange(last, first - 1, -max(1, (last - first) // 4))[::-1] if len(different) else []
        ticks, words = list(powers), [f"{10**power:g}" for power in powers]
        if (rows["mean_diff"] == 0).any():
            ticks, words = [edge, *ticks], ["identical", *words]
            axes.axvspan(edge - 0.35, edge + 0.35, color="#F2F2F2", zorder=0)
        axes.set_xticks(ticks, words, fontsize=font(9 if len(ticks) < 7 else 8))
        axes.set_xlabel("mean pixel difference (0–1)\n← lower is better")
        if place % panels_in_a_row() == 0:
            axes.set_ylabel("speed-up, ×\nhigher is better →")
    _legend(figure, rows, looks)
    remark(figure, said)
    if len(rows) > NAMED:
        remark(figure, "Whiskers: 95 % interval. Some points have no label.")
    if cut:
        remark(figure, "Some whiskers extend beyond the plot.")
    figure.draw_without_rendering()  # places the axes: labels depend on where points end up
    for stack, points in zip(grid, names, strict=True):
        name_points(stack[0], points)
    return figure


def _reach(rows: "pandas.DataFrame") -> tuple[float, float, bool]:
    """Ends of the speed-up axis, and whether whiskers go beyond them: long whiskers must not squeeze the points."""
    low, high = min(1.0, float(rows["speedup"].min())), max(1.0, float(rows["speedup"].max()))
    margin = max(0.03, 0.12 * (high - low))
    room = max(0.25, high - low)
    lowest = min(low, float(rows["speedup_low"].min())) if rows["speedup_low"].notna().any() else low
    highest = max(high, float(rows["speedup_high"].max())) if rows["speedup_high"].notna().any() else high
    cut = lowest < low - room or highest > high + room
    return max(lowest, low - room) - margin, min(highest, high + room) + margin, cut


def _looks(batches: "Iterable[float]") -> dict[float, tuple[str, str]]:
    """Colour and marker of each batch size."""
    sizes = sorted({float(batch) for batch in batches if batch == batch})
    return {size: (COLOURS[i % len(COLOURS)], ("o" + MARKERS)[i % 8]) for i, size in enumerate(sizes)}


def _draw_points(
    axes: "Axes", rows: "pandas.DataFrame", looks: dict[float, tuple[str, str]], right: float
) -> list[tuple[float, float, str, bool]]:
    """Draw points, whiskers and fronts of one panel; returns (x, y, name, on the front), the front first."""
    named: list[tuple[float, float, str, bool]] = []
    several = len(looks) > 1
    for batch, part in rows.groupby("batch", dropna=False, sort=True):
        colour, marker = looks.get(float(batch), (COLOURS[0], "o"))
        lost = part["status"].isin(LOST)
        chosen = part[~lost & ~part["aa"]]
        front = front_of(list(zip(chosen["mean_diff"], chosen["speedup"], strict=True)))
        best = chosen.iloc[front]
        rest = chosen.drop(best.index)
        point: dict[str, Any] = {"marker": marker, "s": 58, "linewidth": 0.7, "zorder": 3}
        if len(best):
            x, y = [*best["x"], right], [*best["speedup"], best["speedup"].iloc[-1]]
            axes.step(x, y, where="post", color=colour, linewidth=1.6, alpha=0.8, zorder=2)
            axes.scatter(best["x"], best["speedup"], color=colour, edgecolor="white", **point)
        if len(rest):
            axes.scatter(
                rest["x"],
                rest["speedup"],
                color=colour,
                edgecolor="white",
                alpha=0.38,
                rasterized=len(rows) > NAMED,
                **point,
            )
        for group, looks_like in (
            (part[lost], {"color": BAD, "marker": "X"}),
            (part[part["aa"]], {"color": LIGHT, "marker": "d"}),
        ):
            if len(group):
                axes.scatter(group["x"], group["speedup"], edgecolor="white", **(point | looks_like))
        _whiskers(axes, best, colour, 0.75)
        if len(rows) <= NAMED:
            _whiskers(axes, rest, colour, 0.3)
        for group, first in ((best, True), (rest, False), (part[lost], False)):
            for row in group.itertuples():
                name = f"{row.series} b{row.batch:.0f}" if several else row.series
                named.append((row.x, row.speedup, shortened(name, 34), first))
    return sorted(named, key=lambda item: (not item[3], -item[1]))[:NAMED]


def _whiskers(axes: "Axes", rows: "pandas.DataFrame", colour: str, strength: float) -> None:
    import numpy as np

    if len(rows):
        errors = np.array([rows["speedup"] - rows["speedup_low"], rows["speedup_high"] - rows["speedup"]])
        look: dict[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 1, "capsize": 2.5, "alpha": strength}
        axes.errorbar(rows["x"], rows["speedup"], yerr=np.nan_to_num(errors.clip(min=0)), **look)


def name_points(axes: "Axes", points: list[tuple[float, float, str, bool]]) -> None:
    """Label each point on the first side where the name covers no other name or point; leave it out if none is free."""
    figure = axes.get_figure()
    assert figure is not None
    inside = axes.get_window_extent()
    dots: Any = axes.transData.transform([(x, y) for x, y, _, _ in points]) if points else []
    step = figure.dpi / 72.0
    taken: list[tuple[float, ...]] = []
    for (x, y, name, front), dot in zip(points, dots, strict=True):
        width, height = (4.8 if front else 4.3) * step * len(name), 9.5 * step
        sides = [("left", 7, -3), ("right", -7, -3), ("center", 0, 7)]
        if front:  # clear of the line to the right
            sides = [("left", 5, 5), ("right", -7, -3), ("right", -5, 5), ("left", 5, -12)]
        for side, dx, dy in sides:
            x0 = dot[0] + dx * step - {"left": 0, "right": width, "center": width / 2}[side]
            box = (x0, dot[1] + dy * step, x0 + width, dot[1] + dy * step + height)
            if box[0] < inside.x0 or box[2] > inside.x1 or any(_overlap(box, other) for other in taken):
                continue
            room = 4 * step  # half of a point
            around = (box[0] - room, box[1] - room, box[2] + room, box[3] + room)
            if any(_overlap(around, (*other, *other)) for other in dots if tuple(other) != tuple(dot)):
                continue
            taken.append(box)
            look: dict[str, Any] = {"color": "#111111", "fontweight": "bold"} if front else {"color": GREY}
            look |= {"ha": side, "fontsize": font(7.5), "zorder": 4, "bbox": BEHIND}
            axes.annotate(name, (x, y), (dx, dy), textcoords="offset points", **look)
            break


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(figure: "Figure", rows: "pandas.DataFrame", looks: dict[float, tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    several = len(looks) > 1
    handles = []
    for batch, (colour, marker) in looks.items():
        of = f" b{batch:.0f}" if several else ""
        style: dict[str, Any] = {"color": colour, "marker": marker, "markeredgecolor": "white", "markersize": 7}
        handles.append(Line2D([], [], label=f"Pareto front{of}", **style))
        if not several:
            handles.append(Line2D([], [], linestyle="", alpha=0.38, label="dominated", **style))
    if several:
        handles.append(Line2D([], [], linestyle="", marker="o", color=LIGHT, label="pale: dominated"))
    if rows["status"].isin(LOST).any():
        handles.append(Line2D([], [], linestyle="", marker="X", color=BAD, label="FAIL"))
    if rows["aa"].any():
        handles.append(Line2D([], [], linestyle="", marker="d", color=LIGHT, label="A/A run: baseline again"))
    legend_of(figure, handles, columns=2)
