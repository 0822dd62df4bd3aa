"""The layout of plots: panels, axes, the look of a feature set, legends, small print.

Rows that cannot be compared get panels of their own. Knows nothing about what is plotted.
"""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY, LIGHT
from sweep.findings import ERROR, LOST, NOT_RUN, PASS, SKIP

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASELINE = "baseline"
CONTEXT = ("model", "engine", "width", "height", "steps")
"""Columns that define a baseline: rows that differ in one of them get panels of their own."""

BAD = "#D55E00"
MARKERS = "sD^v<>pho"
PANELS_IN_A_ROW = 4  # more panels go below
PANELS = 6  # with points or lines; bars have as many panels as they need
BARS, MOST_BARS = 40, 60  # with more than MOST_BARS cells, only BARS of them are drawn
LINES = 14  # in one panel


@dataclass(frozen=True)
class Panel:
    """Rows that share a baseline, with a title that tells them from other panels ("" for a single panel)."""

    title: str
    rows: "pandas.DataFrame"


def panels_of(rows: "pandas.DataFrame") -> list[Panel]:
    """Rows split by baseline, in order of appearance; titles name only what differs."""
    varying = [name for name in CONTEXT if rows[name].nunique(dropna=False) > 1]
    if {"width", "height"} & set(varying):
        varying = [name for name in varying if name not in ("width", "height")] + ["width", "height"]
    if not varying:
        return [Panel("", rows)]
    panels = []
    for _, part in rows.groupby(varying, sort=False, dropna=False):
        row = part.iloc[0]
        words = [str(row[name]) for name in varying if name in ("model", "engine")]
        if "width" in varying:
            words.append(f"{row['width']:.0f}×{row['height']:.0f}")
        if "steps" in varying:
            words.append(f"{row['steps']:.0f}\u00a0steps")
        panels.append(Panel(" · ".join(words), part))
    return panels


def first_panels(rows: "pandas.DataFrame") -> tuple[list[Panel], str]:
    """The panels that fit on a page, and a remark on the others ("" if all fit)."""
    panels = panels_of(rows)
    left_out = len(panels) - PANELS
    return panels[:PANELS], f"{left_out} more settings are in summary.csv." if left_out > 0 else ""


def telling(rows: "pandas.DataFrame") -> tuple["pandas.DataFrame", str]:
    """Rows that get a bar, and a remark: all rows, or the fastest, the slowest and some that failed."""
    if len(rows) <= MOST_BARS:
        return rows, ""
    plain = rows["features"] == ""
    cells = rows[~plain]
    groups = (
        *(rows[plain & ~rows["aa"]].head(3), rows[rows["aa"]].head(2)),
        cells[cells["status"].isin(LOST)].head(5),
        cells.nlargest(BARS // 2, "speedup"),
        *(cells.nsmallest(BARS // 4, "speedup"), rows),
    )
    chosen = dict.fromkeys(index for group in groups for index in group.index)
    kept = set(list(chosen)[:BARS])
    said = f"{BARS} of {len(rows)} cells are drawn: the fastest, the slowest and some that failed. summary.csv has all."
    return rows[[index in kept for index in rows.index]], said


def bar_panels(rows: "pandas.DataFrame", title: str) -> "tuple[Figure, list[tuple[Axes, Panel, list[float]]]]":
    """Panels one below the other, each as tall as its bars need, each row labelled with its cell.

    Each panel comes with the y positions of its rows: a label of several lines takes more room. If there are very many
    rows, only some are drawn (`telling`).
    """
    from matplotlib.figure import Figure

    rows, said = telling(rows)
    panels = panels_of(rows)
    labels = [[wrapped(label) for label in _cell_labels(panel)] for panel in panels]
    rooms = [[1.0 + 0.5 * label.count("\n") for label in group] for group in labels]
    heights = [sum(group) + 0.3 for group in rooms]
    inches = 0.29 * sum(heights) + 0.42 * len(panels) + 1.2
    figure = Figure(figsize=(9.2, max(2.3, inches)), layout="constrained")
    title_of(figure, title)
    remark(figure, said)
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    places = [[sum(group[:i]) + room / 2 for i, room in enumerate(group)] for group in rooms]
    for i, axes in enumerate(column):
        axes.set_yticks(places[i], labels[i])
        axes.set_ylim(heights[i] - 0.15, -0.15)  # first row on top
        axes.grid(False, axis="y")
        axes.set_title(panels[i].title, fontsize=10, loc="left")
    return figure, list(zip(column, panels, places, strict=True))


def line_panels(
    rows: "pandas.DataFrame",
    columns: dict[str, str],
    title: str,
    by: str = "batch",
    by_words: str = "batch size (prompts generated together)",
    over: "Callable[[Axes, pandas.DataFrame, str, dict[str, tuple[str, str]]], None] | None" = None,
    doubling: bool = True,
) -> "Figure":
    """A panel for each context, with one pair of axes for each column; a line over `by` for each feature set.

    `over` draws more into the axes, from a panel's rows, the column, and the looks of series. `doubling`: each step of
    `by` is about twice the one before, so that its axis is logarithmic. If there are very many
    feature sets, only single features and the fastest combinations are drawn. A/A runs are not: they have one batch
    size and load.
    """
    rows, of_lines = _telling_series(rows[~rows["aa"]])
    panels, of_panels = first_panels(rows)
    rows = rows.loc[[index for panel in panels for index in panel.rows.index]]
    figure, grid = panel_grid(panels, len(columns), title, height=2.7 if len(columns) > 1 else 3.4)
    remark(figure, f"{of_lines} {of_panels}".strip())
    looks = looks_of(rows)
    ticks = sorted(rows[by].unique())
    for place, panel in enumerate(panels):
        for axes, (column, label) in zip(grid[place], columns.items(), strict=True):
            for name, part in panel.rows.groupby("series", sort=False):
                points = part[part[column].notna()].groupby(by)[column].mean()
                colour, marker = looks[str(name)]
                # Later lines have smaller markers, so that both show where two coincide.
                size = max(5.0, 9.0 - 0.9 * list(looks).index(str(name)))
                style: dict[str, Any] = {
                    "color": colour,
                    "marker": marker,
                    "markersize": size,
                    "markeredgecolor": "white",
                }
                axes.plot(points.index, points, linewidth=1.7, zorder=3, **style)
                failed = part[part["status"].isin(LOST)]
                axes.plot(failed[by], failed[column], "X", color=BAD, markeredgecolor="white", zorder=4)
            if doubling:
                axes.set_xscale("log", base=2)
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
                axes.set_xlim(ticks[0] / 1.15, ticks[-1] * 1.15)
            axes.set_ylim(0, rows[column].max() * 1.08 or 1.0)
            if over is not None:
                over(axes, panel.rows, column, looks)
            if place % PANELS_IN_A_ROW == 0:
                axes.set_ylabel(label)
        grid[place][-1].set_xlabel(by_words)
    _legend_of_lines(figure, looks, failed=bool(rows["status"].isin(LOST).any()))
    return figure


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


def panel_grid(
    panels: list[Panel], lines: int, title: str, height: float, width: float = 3.1
) -> "tuple[Figure, list[list[Axes]]]":
    """`lines` axes one below the other for each panel, panels side by side; the legend goes on the right."""
    from matplotlib.figure import Figure

    columns = min(len(panels), PANELS_IN_A_ROW)
    blocks = -(-len(panels) // columns)
    size = (max(7.2, width * columns + 2.6), height * lines * blocks + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    title_of(figure, title)
    table = figure.subplots(lines * blocks, columns, squeeze=False)
    grid = []
    for place in range(blocks * columns):
        block, column = divmod(place, columns)
        stack = [table[block * lines + line][column] for line in range(lines)]
        if place < len(panels):
            stack[0].set_title(wrapped(panels[place].title, 30), fontsize=10, loc="left")
            grid.append(stack)
        else:
            for axes in stack:
                axes.remove()
    return figure, grid


def looks_of(rows: "pandas.DataFrame") -> dict[str, tuple[str, str]]:
    """Colour and marker of each feature set, the same in every plot.

    Neighbours differ in both, so either alone tells them apart. `look` is -1 for baselines.
    """
    import seaborn

    palette = [colour for i, colour in enumerate(seaborn.color_palette("colorblind").as_hex()) if i != 7]  # 7 is grey
    looks: dict[str, tuple[str, str]] = {}
    for name, number, aa in zip(rows["series"], rows["look"], rows["aa"], strict=True):
        colour, marker = palette[number % len(palette)], MARKERS[(number + number // len(palette)) % len(MARKERS)]
        if number < 0:
            colour, marker = (LIGHT, "d") if aa else (GREY, "o")
        looks.setdefault(name, (colour, marker))
    return looks


def title_of(figure: "Figure", text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=13, fontweight="bold")


def remark(figure: "Figure", text: str) -> None:
    """Add a remark to the plot's small print; `footnote` writes it."""
    figure.supxlabel(f"{figure.get_supxlabel()} {text}".strip())


def _legend_of_lines(figure: "Figure", looks: dict[str, tuple[str, str]], failed: bool) -> None:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white"}
    handles = [
        Line2D([], [], color=colour, marker=marker, label=wrapped(name, 28), **style)
        for name, (colour, marker) in looks.items()
    ]
    if failed:
        handles.append(Line2D([], [], linestyle="", marker="X", color=BAD, label="FAIL"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9, labelspacing=0.6)


def legend_of_colours(figure: "Figure", colours: dict[str, str], title: str | None = None) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9, title=title, alignment="left")


def _cell_labels(panel: Panel) -> list[str]:
    """Names of a panel's cells: features and batch if that is unique, else the whole label.

    A status other than PASS follows the name.
    """
    rows = panel.rows
    names = [f"{row.features or BASELINE} b{row.batch:.0f}{' A/A' if row.aa else ''}" for row in rows.itertuples()]
    if len(set(names)) < len(names):
        names = [without_context(cell) for cell in rows["cell"]]
    marks = [f" [{status}]" if status not in ("", PASS) else "" for status in rows["status"]]
    return [name + mark for name, mark in zip(names, marks, strict=True)]


def without_context(label: str) -> str:
    """A cell's label without `steps=8`, `model=…`, which the panel's title names."""
    return " ".join(word for word in label.split() if word.partition("=")[0] not in CONTEXT or "=" not in word)


def wrapped(text: str, width: int = 36) -> str:
    """About three lines of `width` characters at most, broken at spaces and plus signs, shortened in the middle."""
    text = shortened(text, 3 * width - 8, width - 8)
    lines = textwrap.wrap(text.replace("+", "+\x00 "), width + 2, break_on_hyphens=False)
    return "\n".join(line.replace("+\x00 ", "+").replace("\x00", "") for line in lines)


def shortened(text: str, most: int, tail: int = 8) -> str:
    """A text cut to about `most` characters: its start, and its last `tail` characters."""
    return text if len(text) <= most else f"{text[: most - tail - 3]} … {text[-tail:]}"


def footnote(figure: "Figure", note: str, frame: "pandas.DataFrame | None") -> None:
    """Write the small print under the plot: its remarks, the caller's note, and how many cells have no numbers."""
    note = f"{figure.get_supxlabel()} {note}".strip()
    if frame is not None:
        silent = frame.loc[frame["latency_mean_s"].isna() & frame["status"].isin([SKIP, ERROR, NOT_RUN]), "status"]
        counts = ", ".join(f"{count} {status}" for status, count in silent.value_counts().items())
        note = f"{note} Cells without numbers are not shown: {counts}.".strip() if counts else note
    if note:
        width = int(figure.get_figwidth() * 15)
        figure.supxlabel(textwrap.fill(note, width), x=0.01, ha="left", fontsize=8, color=GREY)
