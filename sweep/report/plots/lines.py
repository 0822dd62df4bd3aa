"""Lines over batch sizes, loads or parts, one for each feature set, named at its end.

There are never more colours than a reader can distinguish: further feature sets are grey. Knows nothing about what is
plotted.
"""

import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY, LIGHT
from sweep.findings import LOST, gravest
from sweep.report.plots import intervals, sheet
from sweep.report.plots.panels import (
    BAD,
    PANELS,
    Panel,
    first_panels,
    legend_of,
    panel_grid,
    panels_in_a_row,
    remark,
    shortened,
    wrapped,
)
from sweep.report.plots.sheet import font

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HUES = ("#0173B2", "#DE8F05", "#029E73", "#CC78BC", "#56B4E9", "#A0622D")
"""Colours of feature sets, safe for the colour-blind. Failures have one of their own, baselines are dark grey."""

MUTED = "#BBBBBB"
"""Colour of feature sets beyond the hues."""

MARKERS = "sD^v<>pho"
LINES = 14  # in one panel
NAMED = 34  # letters of a line's name at most
Looks = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class _End:
    """The last point of a line, and its name."""

    x: float
    y: float
    name: str
    lost: str  # that some of its cells failed
    colour: str


def line_panels(
    rows: "pandas.DataFrame",
    columns: dict[str, str],
    title: str,
    by: str = "batch",
    by_words: str = "batch size (prompts generated together)",
    over: "Callable[[Axes, pandas.DataFrame, str, Looks], None] | None" = None,
    doubling: bool = True,
) -> "Figure":
    """A panel for each context, with one pair of axes for each column; a line over `by` for each feature set.

    `over` draws more into the axes, from a panel's rows, the column, and the looks of series. `doubling`: each step of
    `by` is about twice the one before, so that its axis is logarithmic. If there are very many
    feature sets, only single features and the fastest combinations are drawn. A/A runs are not: they have one batch
    size and load. Lines are named at their ends; panels side by side have a legend.
    """
    rows, of_lines = _telling_series(rows[~rows["aa"]])
    height = 2.7 if len(columns) > 1 else 3.4
    fitting = int(sheet.TALLEST / (height * len(columns))) if sheet.current().is_column else PANELS
    panels, of_panels = first_panels(rows, max(1, fitting))
    rows = rows.loc[[index for panel in panels for index in panel.rows.index]]
    figure, grid = panel_grid(panels, len(columns), title, height=height)
    remark(figure, f"{of_lines} {of_panels}".strip())
    looks = looks_of(rows)
    ticks = sorted(rows[by].unique())
    named: list[tuple[Axes, list[_End]]] = []
    for place, panel in enumerate(panels):
        for axes, (column, label) in zip(grid[place], columns.items(), strict=True):
            named.append((axes, _draw_lines(axes, panel, by, column, looks)))
            if doubling:
                axes.set_xscale("log", base=2)
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
                axes.set_xlim(ticks[0] / 1.15, ticks[-1] * 1.15)
            axes.set_ylim(0, _highest(rows, column) * 1.08 or 1.0)
            if over is not None:
                over(axes, panel.rows, column, looks)
            if place % panels_in_a_row() == 0:
                axes.set_ylabel(label)
        width = sheet.letters(0.6 * sheet.width_or(0.0)) if sheet.current().is_column else 90
        grid[place][-1].set_xlabel(textwrap.fill(by_words, width))
    for said in dict.fromkeys(intervals.of(rows, column)[2] for column in columns):
        remark(figure, said)
    if min(len(panels), panels_in_a_row()) == 1:
        _name_ends(figure, named)
    else:
        _legend(figure, looks, failed=bool(rows["status"].isin(LOST).any()))
    return figure


def _highest(rows: "pandas.DataFrame", column: str) -> float:
    """The largest value, and as much of its whiskers as does not squeeze the lines."""
    value, ends = float(rows[column].max()), intervals.of(rows, column)[1]
    return min(max(value, float(ends.max())), 1.5 * value) if ends.notna().any() else value


def _draw_lines(axes: "Axes", panel: Panel, by: str, column: str, looks: Looks) -> list[_End]:
    """Draw the lines of one panel with their intervals and failures; returns their ends."""
    low, high, _ = intervals.of(panel.rows, column)
    rows = panel.rows.assign(low=low, high=high)
    ends = []
    for name, part in rows.groupby("series", sort=False):
        points = part[part[column].notna()].groupby(by)[[column, "low", "high"]].mean()
        if points.empty:
            continue
        colour, marker = looks[str(name)]
        muted, order = colour == MUTED, list(looks).index(str(name))
        # Later lines have smaller markers, so that both show where two coincide.
        thin = sheet.current().is_column
        size = max(4.0, 6.0 - 0.4 * order) if thin else max(5.0, 9.0 - 0.9 * order)
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": size, "markeredgecolor": "white"}
        width, place = (1.0, 2.5) if muted else (1.7, 3.0)
        edge = 0.4 if thin else 1.0
        axes.plot(
            points.index, points[column], linewidth=0.7 * width if thin else width, zorder=place, mew=edge, **style
        )
        known = points[points["low"].notna() & points["high"].notna()]
        if len(known):
            whiskers = [known[column] - known["low"], known["high"] - known[column]]
            look: dict[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 1, "capsize": 2.5, "alpha": 0.7}
            axes.errorbar(known.index, known[column], yerr=whiskers, zorder=place - 0.1, **look)
        failed = part[part["status"].isin(LOST) & part[column].notna()]
        axes.plot(failed[by], failed[column], "X", color=BAD, markeredgecolor="white", mew=edge, zorder=4)
        lost = f" ✗ {gravest(failed['status'])}" if len(failed) else ""
        ends.append(_End(float(points.index[-1]), float(points[column].iloc[-1]), str(name), lost, colour))
    return ends


def _name_ends(figure: "Figure", named: "list[tuple[Axes, list[_End]]]") -> None:
    """Write each line's name right of its end, one below the other where ends meet, with a stroke to its line."""
    texts, column = [], sheet.current().is_column
    most = sheet.letters(0.42 * sheet.width_or(0.0)) if column else NAMED
    for axes, ends in named:
        common = _beginning([end.name for end in ends]) if column else 0
        for end in ends:
            name = wrapped(end.name[common:], most) if column else shortened(end.name, most)
            muted = end.colour == MUTED
            stroke: dict[str, Any] = {"arrowstyle": "-", "color": end.colour, "linewidth": 0.9, "shrinkA": 1}
            look: dict[str, Any] = {"va": "center", "fontsize": font(8.5), "color": GREY if muted else "#111111"}
            text = axes.annotate(
                name + end.lost,
                (end.x, end.y),
                (1.05, 0.5),
                textcoords="axes fraction",
                annotation_clip=False,
                arrowprops=stroke | {"shrinkB": 3, "relpos": (0, 0.5)},
                **look,
            )
            texts.append(text)
    figure.draw_without_rendering()  # places the axes: how far names must be apart depends on their height
    placed = iter(texts)
    for axes, ends in named:
        tall = axes.get_window_extent().height * 72 / figure.dpi
        top = axes.get_ylim()[1]
        own = [next(placed) for _ in ends]
        lines = 1 + max((text.get_text().count("\n") for text in own), default=0)
        places = spread([end.y / top for end in ends], font(8.5) * 1.25 * lines / tall)
        for place, text in zip(places, own, strict=True):
            text.set_position((1.05, place))


def _beginning(names: Sequence[str]) -> int:
    """How many letters of whole words all of several names begin with."""
    common = os.path.commonprefix(names)
    return common.rfind(" ") + 1 if len(set(names)) > 1 else 0


def spread(places: Sequence[float], gap: float) -> list[float]:
    """The same places, in [0, 1], moved as little as needed to be `gap` apart, or less if they do not all fit."""
    if not places:
        return []
    gap = min(gap, 1 / max(1, len(places) - 1))
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[float]] = []  # [centre, count]: names that touch, moved together
    for i in order:
        groups.append([places[i], 1])
        while len(groups) > 1 and _reach(groups[-2], gap)[1] + gap > _reach(groups[-1], gap)[0] + 1e-9:
            (a, n), (b, m) = groups[-2:]
            groups[-2:] = [[_kept_in((a * n + b * m) / (n + m), n + m, gap), n + m]]
    moved = [0.0] * len(places)
    spots = [_reach(group, gap)[0] + k * gap for group in groups for k in range(int(group[1]))]
    for i, spot in zip(order, spots, strict=True):
        moved[i] = spot
    return moved


def _reach(group: list[float], gap: float) -> tuple[float, float]:
    """First and last place of a group of names."""
    half = gap * (group[1] - 1) / 2
    return group[0] - half, group[0] + half


def _kept_in(centre: float, count: float, gap: float) -> float:
    half = gap * (count - 1) / 2
    return max(half, min(1 - half, centre))


def _telling_series(rows: "pandas.DataFrame") -> tuple["pandas.DataFrame", str]:
    """Rows of at most LINES series, and a remark: baselines, then single features, then combinations, the fastest
    first."""
    names = list(dict.fromkeys(rows["series"]))
    if len(names) <= LINES:
        return rows, ""
    best = rows.groupby("series", sort=False)["speedup"].max().fillna(0.0).sort_values(ascending=False, kind="stable")
    plain = list(dict.fromkeys(rows.loc[rows["look"] < 0, "series"]))
    combined = set(rows.loc[rows["features"].str.contains("+", regex=False, na=False), "series"])
    kept = list(dict.fromkeys([*plain, *sorted(best.index, key=combined.__contains__)]))[:LINES]
    said = f"{LINES} of {len(names)} feature sets are drawn: single features and the fastest combinations."
    return rows[rows["series"].isin(kept)], said


def looks_of(rows: "pandas.DataFrame") -> Looks:
    """Colour and marker of each feature set, the same in every plot of a sweep that has a hue for each.

    Otherwise the first ones of these rows, as `look` counts them, have hues, and the others are muted. `look` is -1 for
    baselines.
    """
    looks: Looks = {}
    present = sorted({int(number) for number in rows["look"] if number >= 0})
    places = {number: number if present[-1] < len(HUES) else place for place, number in enumerate(present)}
    for name, look, aa in zip(rows["series"], rows["look"], rows["aa"], strict=True):
        number = places.get(int(look), -1)
        colour, marker = HUES[number] if number < len(HUES) else MUTED, MARKERS[number % len(MARKERS)]
        if number < 0:
            colour, marker = (LIGHT, "d") if aa else (GREY, "o")
        looks.setdefault(name, (colour, marker))
    return looks


def _legend(figure: "Figure", looks: Looks, failed: bool) -> None:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white"}
    handles = [
        Line2D([], [], color=colour, marker=marker, label=wrapped(name, 28), **style)
        for name, (colour, marker) in looks.items()
    ]
    if failed:
        handles.append(Line2D([], [], linestyle="", marker="X", color=BAD, label="FAIL"))
    legend_of(figure, handles)
