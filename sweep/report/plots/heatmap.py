"""The compatibility heatmap: single features on the diagonal, pairs below it, one panel for each context.

Colour and a word show the status; each field holds speed-up and interaction gain. `matrix` decides which rows go
where.
"""

from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY, LIGHT
from sweep.analysis.paired import NO_DIFFERENCE
from sweep.findings import USABLE, gravest
from sweep.report import words
from sweep.report.matrix import Matrix, matrices, short_reason
from sweep.report.plots.panels import legend_of_colours, remark, title_of, wrapped

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "PASS": "#BFE5D0",
    "WARN": "#FBDD94",
    "FAIL": "#F2A98F",
    "ERROR": "#D98BA8",
    "NOT RUN": "#D3DEEA",
    "SKIP": "#E4E6EA",
}
PANELS, ROWS = 6, 24  # maximum of panels, and of rows of fields one below the other
FEATURES = 14  # more would leave no room for words
FIELD = (1.08, 0.74)  # width and height of a field, inches


def draw_heatmap(frame: "pandas.DataFrame") -> "Figure | None":
    """One panel for each context with a pair or two single features; None if there is no such context."""
    from matplotlib.figure import Figure

    rows = frame[frame["features"] != ""].to_dict("records")
    found = [matrix for matrix in matrices(rows) if len(matrix.features) > 1]
    if not found:
        return None
    most = min(FEATURES, max(len(matrix.features) for matrix in found))
    columns = min(len(found), max(1, 12 // most))
    shown = found[: min(PANELS, columns * max(1, ROWS // most))]
    lines = -(-len(shown) // columns)
    size = (max(5.2, columns * (most * FIELD[0] + 1.1) + 1.2), lines * (most * FIELD[1] + 0.75) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    title_of(figure, "Which features work together")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, matrix in zip(grid, shown, strict=False):
        _panel(axes, matrix)
    for axes in grid[len(shown) :]:
        axes.remove()
    statuses = {words.text(row, "status") for matrix in shown for part in matrix.fields.values() for row in part}
    legend_of_colours(figure, {name: colour for name, colour in COLOURS.items() if name in statuses})
    remark(figure, _explained(found, len(shown)))
    return figure


def _explained(found: list[Matrix], shown: int) -> str:
    parts = ["Diagonal: single features; below it: pairs. Speed-up over the baseline; higher is better."]
    if any("gain" in _words(part)[2] for matrix in found[:shown] for part in matrix.fields.values()):
        parts.append("gain: the pair's speed-up ÷ the product of its members' speed-ups; at 1 they multiply.")
    if any(len(matrix.features) > FEATURES for matrix in found[:shown]):
        parts.append(f"Only the first {FEATURES} features of each context are shown.")
    if len(found) > shown:
        parts.append(f"{len(found) - shown} more contexts are in summary.csv.")
    return " ".join(parts)


def _panel(axes: "Axes", matrix: Matrix) -> None:
    from matplotlib.patches import Rectangle

    names = matrix.features[:FEATURES]
    for i, first in enumerate(names):
        for k, second in enumerate(names[: i + 1]):
            rows = matrix.field(first, second)
            if not rows:
                axes.text(k + 0.5, i + 0.5, "–", ha="center", va="center", color=LIGHT)
                continue
            status, value, small = _words(rows)
            edge: dict[str, Any] = {"edgecolor": GREY if i == k else "none", "linewidth": 1.1}
            axes.add_patch(Rectangle((k + 0.03, i + 0.04), 0.94, 0.92, facecolor=COLOURS.get(status, "white"), **edge))
            axes.text(k + 0.5, i + 0.2, status, ha="center", va="center", fontsize=6.5, color=GREY, fontweight="bold")
            centre: dict[str, Any] = {"ha": "center", "va": "center"}
            axes.text(k + 0.5, i + 0.5, value, fontsize=11.5 if len(value) < 8 else 8.5, color="#111111", **centre)
            axes.text(k + 0.5, i + 0.8 if value else i + 0.58, small, fontsize=7, color="#333333", **centre)
    places = [i + 0.5 for i in range(len(names))]
    axes.set_xticks(places, [wrapped(name, 14) for name in names])
    axes.set_yticks(places, [wrapped(name, 18) for name in names])
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(names), 0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(wrapped(matrix.title, max(24, 12 * len(names))), fontsize=9.5, loc="left", pad=8)


def _words(rows: tuple[words.Row, ...]) -> tuple[str, str, str]:
    """Status, large text and small text of a field."""
    status = gravest(words.text(row, "status") for row in rows)
    values = [value for row in rows if (value := words.number(row, "speedup")) is not None]
    if not values and words.text(rows[0], "profiled") and status in USABLE:
        return status, "", "profiled"
    if not values:
        return status, "", wrapped(short_reason(rows[0], 32), 16)
    if len(rows) > 1:
        return status, f"{min(values):.2f}–{max(values):.2f}×", f"{len(rows)} settings"
    gain = words.number(rows[0], "interaction_gain")
    noise = "within noise" if words.text(rows[0], "called") == NO_DIFFERENCE else ""
    return status, f"{values[0]:.2f}×", noise if gain is None else f"gain {gain:.2f}"
