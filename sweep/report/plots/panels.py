"""The layout of plots: panels, bars, legends, small print.

Rows that cannot be compared get panels of their own. Knows nothing about what is plotted.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY
from sweep.findings import ERROR, LOST, NOT_RUN, PASS, SKIP
from sweep.report.plots import sheet
from sweep.report.plots.sheet import font

if TYPE_CHECKING:
    import pandas
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASELINE = "baseline"
CONTEXT = ("model", "engine", "width", "height", "steps")
"""Columns that define a baseline: rows that differ in one of them get panels of their own."""

BAD = "#D55E00"
PANELS_IN_A_ROW = 4  # more panels go below
PANELS = 6  # with points or lines; bars have as many panels as they need
BARS, MOST_BARS = 40, 60  # with more than MOST_BARS cells, only BARS of them are drawn
COLUMN_BARS = 34  # in a column of paper


@dataclass(frozen=True)
class Panel:
    """Rows that share a baseline, with a title that distinguishes them from other panels ("" for a single panel)."""

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


def first_panels(rows: "pandas.DataFrame", most: int = PANELS) -> tuple[list[Panel], str]:
    """The first `most` panels, and a remark on the others ("" if all fit)."""
    panels = panels_of(rows)
    left_out = len(panels) - most
    return panels[:most], f"{left_out} more settings are in summary.csv." if left_out > 0 else ""


def telling(rows: "pandas.DataFrame") -> tuple["pandas.DataFrame", str]:
    """Rows that get a bar, and a remark: all rows, or the fastest, the slowest and some that failed."""
    most = BARS if not sheet.current().is_column else COLUMN_BARS
    if len(rows) <= (MOST_BARS if most == BARS else most):
        return rows, ""
    plain = rows["features"] == ""
    cells = rows[~plain]
    groups = (
        *(rows[plain & ~rows["aa"]].head(3), rows[rows["aa"]].head(2)),
        cells[cells["status"].isin(LOST)].head(5),
        cells.nlargest(most // 2, "speedup"),
        *(cells.nsmallest(most // 4, "speedup"), rows),
    )
    chosen = dict.fromkeys(index for group in groups for index in group.index)
    kept = set(list(chosen)[:most])
    said = f"{most} of {len(rows)} cells are drawn: the fastest, the slowest and some that failed. summary.csv has all."
    return rows[[index in kept for index in rows.index]], said


def bar_panels(rows: "pandas.DataFrame", title: str) -> "tuple[Figure, list[tuple[Axes, Panel, list[float]]]]":
    """`bar_grid` with one column."""
    figure, panels = bar_grid(rows, title, 1)
    return figure, [(stack[0], panel, places) for stack, panel, places in panels]


def bar_grid(
    rows: "pandas.DataFrame", title: str, columns: int
) -> "tuple[Figure, list[tuple[list[Axes], Panel, list[float]]]]":
    """Panels one below the other, each as tall as its bars need, with `columns` axes side by side.

    Each row is labelled with its cell, left of the first axes.
    Each panel comes with the y positions of its rows: a label of several lines takes more room. If there are very many
    rows, only some are drawn (`telling`).
    """
    from matplotlib.figure import Figure

    rows, said = telling(rows)
    panels = panels_of(rows)
    width, column = sheet.width_or(9.2 if columns == 1 else 6.0 + 2.2 * columns), sheet.current().is_column
    letters = sheet.letters(0.42 * width) if column else 36
    labels = [[wrapped(label, letters) for label in cell_labels(panel)] for panel in panels]
    rooms = [[1.0 + (0.7 if column else 0.5) * label.count("\n") for label in group] for group in labels]
    heights = [sum(group) + 0.3 for group in rooms]
    if column:
        inches = 0.19 * sum(heights) + 0.3 * len(panels) + 0.7
    else:
        inches = max(2.3, 0.29 * sum(heights) + 0.42 * len(panels) + 1.2)
    figure = Figure(figsize=(width, inches), layout="constrained")
    title_of(figure, title)
    remark(figure, said)
    table = figure.subplots(len(panels), columns, sharex="col", sharey="row", squeeze=False, height_ratios=heights)
    places = [[sum(group[:i]) + room / 2 for i, room in enumerate(group)] for group in rooms]
    for i, line in enumerate(table):
        for axes in line:
            axes.set_yticks(places[i], labels[i])
            axes.set_ylim(heights[i] - 0.15, -0.15)  # first row on top
            axes.grid(False, axis="y")
        line[0].set_title(wrapped(panels[i].title, 46 if column else 90), fontsize=font(10), loc="left")
    return figure, [(list(line), panels[i], places[i]) for i, line in enumerate(table)]


def panel_grid(
    panels: list[Panel], lines: int, title: str, height: float, width: float = 3.1
) -> "tuple[Figure, list[list[Axes]]]":
    """`lines` axes one below the other for each panel, panels side by side; the legend goes on the right."""
    from matplotlib.figure import Figure

    columns = min(len(panels), panels_in_a_row())
    blocks = -(-len(panels) // columns)
    if sheet.current().is_column:
        size = (sheet.width_or(0.0), _low(height) * lines * blocks + 0.5)
    else:
        size = (sheet.width_or(max(7.2, width * columns + 2.6)), height * lines * blocks + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    title_of(figure, title)
    table = figure.subplots(lines * blocks, columns, squeeze=False)
    grid = []
    for place in range(blocks * columns):
        block, column = divmod(place, columns)
        stack = [table[block * lines + line][column] for line in range(lines)]
        if place < len(panels):
            stack[0].set_title(wrapped(panels[place].title, 30), fontsize=font(10), loc="left")
            grid.append(stack)
        else:
            for axes in stack:
                axes.remove()
    return figure, grid


def panels_in_a_row() -> int:
    return 1 if sheet.current().is_column else PANELS_IN_A_ROW


def _low(height: float) -> float:
    """Height of axes in a column, from that on a screen; inches."""
    return min(2.2, 0.62 * height)


def title_of(figure: "Figure", text: str) -> None:
    if sheet.current().title:
        figure.suptitle(text, x=0.01, ha="left", fontsize=font(13), fontweight="bold")


def remark(figure: "Figure", text: str) -> None:
    """Add a remark to the plot's small print; `footnote` writes it."""
    figure.supxlabel(f"{figure.get_supxlabel()} {text}".strip())


def legend_of_colours(figure: "Figure", colours: dict[str, str], title: str | None = None) -> None:
    from matplotlib.patches import Patch

    legend_of(figure, [Patch(color=colour, label=name) for name, colour in colours.items()], title=title)


def legend_of(figure: "Figure", handles: "Sequence[Artist]", title: str | None = None, columns: int = 3) -> None:
    """A legend at the right of the plot; in a column below it, in up to `columns` columns."""
    if not handles:
        return
    look: dict[str, Any] = {"handles": handles, "frameon": False, "fontsize": font(9), "alignment": "left"}
    if sheet.current().is_column:
        figure.legend(**look, loc="outside lower left", ncols=min(columns, len(handles)), columnspacing=1.0)
    else:
        figure.legend(**look, loc="outside right upper", title=title, labelspacing=0.6)


def cell_labels(panel: Panel) -> list[str]:
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


def footnote(figure: "Figure", note: str, frame: "pandas.DataFrame | None") -> str:
    """Write the small print under the plot: its remarks, the caller's note, and how many cells have no numbers.

    Returns the small print. On a sheet with a width it is not written: a paper has a caption.
    """
    note = f"{figure.get_supxlabel()} {note}".strip()
    if frame is not None:
        silent = frame.loc[frame["latency_mean_s"].isna() & frame["status"].isin([SKIP, ERROR, NOT_RUN]), "status"]
        counts = ", ".join(f"{count} {status}" for status, count in silent.value_counts().items())
        note = f"{note} Cells without numbers are not shown: {counts}.".strip() if counts else note
    if sheet.current().width is not None:
        figure.supxlabel("")
    elif note:
        width = int(figure.get_figwidth() * 15)
        figure.supxlabel(textwrap.fill(note, width), x=0.01, ha="left", fontsize=8, color=GREY)
    return note
