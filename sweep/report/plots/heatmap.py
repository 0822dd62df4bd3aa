"""The compatibility heatmap: single features on the diagonal, pairs below it, one panel for each context.

Colour is the speed-up, border and icon are the status, and what may be noise is hatched. `matrix` decides which rows
go where, `speed_colour` which colour a speed-up has.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiling.plot_style import LIGHT
from sweep.findings import ERROR, FAIL, NOT_RUN, PASS, SKIP, USABLE, WARN, gravest
from sweep.report import speed_colour, words
from sweep.report.matrix import Matrix, matrices, short_reason, within_noise
from sweep.report.plots import sheet
from sweep.report.plots.panels import legend_of, remark, title_of, wrapped
from sweep.report.plots.sheet import font

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BORDERS: dict[str, dict[str, Any]] = {
    PASS: {"edgecolor": "#8C8C8C", "linewidth": 0.8, "linestyle": "-"},
    WARN: {"edgecolor": "#8A5A00", "linewidth": 1.8, "linestyle": "--"},
    FAIL: {"edgecolor": "#B3261E", "linewidth": 2.4, "linestyle": "-"},
    ERROR: {"edgecolor": "#7B1E5B", "linewidth": 2.4, "linestyle": ":"},
    NOT_RUN: {"edgecolor": "#8C8C8C", "linewidth": 1.2, "linestyle": "--"},
    SKIP: {"edgecolor": "#C8C8C8", "linewidth": 0.8, "linestyle": ":"},
}
ICONS = {PASS: "✓", WARN: "!", FAIL: "✗", ERROR: "⊘", NOT_RUN: "…", SKIP: "–"}
NO_BORDER: dict[str, Any] = {"edgecolor": LIGHT, "linewidth": 0.8, "linestyle": ":"}
HATCH, HATCHED = "////", "within noise"
INK, MUTED = "#111111", "#4A4A4A"

PANELS, ROWS = 6, 24  # maximum of panels, and of rows of fields one below the other
FEATURES = 14  # more would leave no room for words
FIELD = (1.24, 0.82)  # width and height of a field, inches
LEAST_FIELD = 0.4  # width of a field in a column, inches
NAMES = 0.8  # room for the names of features at the left, inches
STEPS = 40  # of the colour bar: from 50 on matplotlib draws it as a picture
TICKS, FEW_TICKS = (0.1, 0.25, 0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3, 4, 10), (0.1, 0.25, 0.5, 1, 2, 4, 10)


@dataclass(frozen=True)
class Field:
    """What one field shows. `ratio`, None without a speed-up, decides its colour."""

    status: str
    value: str = ""
    small: str = ""  # below the value: its interval, or why there is none
    gain: str = ""
    gain_is_clear: bool = False
    ratio: float | None = None
    is_noise: bool = False

    @property
    def icon(self) -> str:
        return f"{ICONS.get(self.status, '')} {self.status}".strip()


def draw_heatmap(frame: "pandas.DataFrame") -> "Figure | None":
    """One panel for each context with a pair or two single features; None if there is no such context."""
    from matplotlib.figure import Figure

    rows = frame[frame["features"] != ""].to_dict("records")
    found = [matrix for matrix in matrices(rows) if len(matrix.features) > 1]
    if not found:
        return None
    width, column = sheet.width_or(0.0), sheet.current().is_column
    fitting = int((width - NAMES) / LEAST_FIELD) if column else FEATURES
    most = min(fitting, FEATURES, max(len(matrix.features) for matrix in found))
    columns = 1 if column else min(len(found), max(1, 12 // most))
    shown = found[: min(PANELS, columns * max(1, (12 if column else ROWS) // most))]
    lines = -(-len(shown) // columns)
    if column:
        size = (width, lines * (0.42 * most + 0.95) + 1.0)
    else:
        wide = sheet.width_or(max(6.4, columns * (most * FIELD[0] + 1.1) + 1.5))
        size = (wide, lines * (most * FIELD[1] + 0.75) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    title_of(figure, "Which features work together")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    fields = [_fields(matrix, most) for matrix in shown]
    everything = [field for panel in fields for field in panel.values()]
    largest = speed_colour.reach(field.ratio for field in everything if field.ratio is not None)
    for axes, matrix, panel in zip(grid, shown, fields, strict=False):
        _panel(axes, matrix.features[:most], panel, largest)
        if sheet.current().title or len(shown) > 1:
            title = wrapped(matrix.title, 46 if column else max(30, 14 * min(most, len(matrix.features))))
            axes.set_title(title, fontsize=font(9.5), loc="left", pad=8)
    for axes in grid[len(shown) :]:
        axes.remove()
    if any(field.ratio is not None for field in everything):
        _colour_bar(figure, list(grid[: len(shown)]), largest)
    _legend(figure, everything)
    remark(figure, _explained(found, len(shown), most, everything))
    return figure


def _explained(found: list[Matrix], shown: int, most: int, fields: list[Field]) -> str:
    parts = ["Diagonal: single features; below it: pairs. Speed-up over the baseline; higher is better."]
    if any(field.gain for field in fields) and not sheet.current().is_column:
        gain = "gain: the pair's speed-up ÷ the product of its members' speed-ups; at 1 they multiply."
        parts.append(f"{gain} Grey where its 95 % interval includes 1 or is unknown.")
    if any(len(matrix.features) > most for matrix in found[:shown]):
        parts.append(f"Only the first {most} features of each context are shown.")
    larger = sum(len(matrix.larger) for matrix in found[:shown])
    if larger:
        parts.append(f"{larger} set{'s' if larger > 1 else ''} of three or more features: see report.html.")
    if len(found) > shown:
        parts.append(f"{len(found) - shown} more contexts are in summary.csv.")
    return " ".join(parts)


def _fields(matrix: Matrix, most: int) -> dict[tuple[int, int], Field]:
    """The fields of one panel by row and column; pairs that the sweep does not have are missing."""
    names = matrix.features[:most]
    return {
        (i, k): _field(matrix, rows)
        for i, first in enumerate(names)
        for k, second in enumerate(names[: i + 1])
        if (rows := matrix.field(first, second))
    }


def _field(matrix: Matrix, rows: tuple[words.Row, ...]) -> Field:
    status = gravest(words.text(row, "status") for row in rows)
    values = [value for row in rows if (value := words.number(row, "speedup")) is not None]
    if not values and words.text(rows[0], "profiled") and status in USABLE:
        return Field(status, small="profiled")
    if not values:
        return Field(status, small=wrapped(short_reason(rows[0], 32), 16))
    middle = math.sqrt(min(values) * max(values))
    noise = all(map(within_noise, rows))
    if len(rows) > 1:
        reach = f"{min(values):.2f}–{max(values):.2f}×"
        return Field(status, reach, f"{len(rows)} settings", ratio=middle, is_noise=noise)
    low, high = (words.number(rows[0], name) for name in ("speedup_low", "speedup_high"))
    interval = f"{low:.2f}–{high:.2f}" if low is not None and high is not None and low != high else "no interval"
    gain, said = matrix.gain(rows[0]), ""
    if gain is not None:
        said = f"gain {gain.ratio:.2f}"
        said += f" ({gain.interval[0]:.2f}–{gain.interval[1]:.2f})" if gain.interval else ""
    return Field(status, f"{values[0]:.2f}×", interval, said, bool(gain and gain.is_clear), middle, noise)


def _panel(axes: "Axes", names: tuple[str, ...], fields: dict[tuple[int, int], Field], largest: float) -> None:
    for i in range(len(names)):
        for k in range(i + 1):
            if (i, k) in fields:
                _draw_field(axes, i, k, fields[i, k], largest)
            else:
                axes.text(k + 0.5, i + 0.5, "·", ha="center", va="center", color=LIGHT)
    column = sheet.current().is_column
    places = [i + 0.5 for i in range(len(names))]
    turned: dict[str, Any] = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if column else {}
    axes.set_xticks(places, [_broken(name, 14) for name in names], **turned)
    axes.set_yticks(places, [_broken(name, 14 if column else 18) for name in names])
    axes.tick_params(length=0, labelsize=font(9.5))
    axes.xaxis.tick_top()
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(names), 0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _broken(name: str, width: int) -> str:
    """A feature's name in lines of `width`, broken behind underscores."""
    return wrapped(name.replace("_", "_ "), width).replace("_ ", "_")


def _draw_field(axes: "Axes", i: int, k: int, field: Field, largest: float) -> None:
    from matplotlib.patches import Rectangle

    fill = "white" if field.ratio is None else speed_colour.colour(field.ratio, largest)
    box: dict[str, Any] = {"xy": (k + 0.04, i + 0.05), "width": 0.92, "height": 0.9}
    axes.add_patch(Rectangle(**box, facecolor=fill, linewidth=0))
    if field.is_noise:
        axes.add_patch(Rectangle(**box, fill=False, hatch=HATCH, edgecolor="#B4B4B4", linewidth=0))
    axes.add_patch(Rectangle(**box, fill=False, **BORDERS.get(field.status, NO_BORDER)))
    behind: dict[str, Any] = {"facecolor": fill, "edgecolor": "none", "pad": 0.8}
    look: dict[str, Any] = {"ha": "center", "va": "center", "bbox": behind}
    middle = k + 0.5
    if sheet.current().is_column:
        axes.text(middle, i + 0.3, ICONS.get(field.status, ""), fontsize=font(7), color=MUTED, **look)
        short = field.value if len(field.value) < 8 else ""
        axes.text(middle, i + 0.66, short.removesuffix("×"), fontsize=font(7), color=INK, **look)
        return
    axes.text(middle, i + 0.18, field.icon, fontsize=font(7), color=MUTED, fontweight="bold", **look)
    size = font(11.5 if len(field.value) < 8 else 8.5)
    axes.text(middle, i + 0.44, field.value, fontsize=size, color=INK, **look)
    below = i + 0.66 if field.value else i + 0.56
    axes.text(middle, below, field.small, fontsize=font(7), color=INK if field.value else MUTED, **look)
    strong: dict[str, Any] = {"color": INK} if field.gain_is_clear else {"color": MUTED, "fontstyle": "italic"}
    axes.text(middle, i + 0.84, field.gain, fontsize=font(6.8), **strong, **look)


def _colour_bar(figure: "Figure", axes: "list[Axes]", largest: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    colours = [speed_colour.colour(ratio, largest) for ratio in (1 / largest, 1, largest)]
    scale = ScalarMappable(LogNorm(1 / largest, largest), LinearSegmentedColormap.from_list("speed", colours, STEPS))
    column = sheet.current().is_column
    place: dict[str, Any] = {"location": "bottom", "aspect": 40} if column else {"location": "right", "aspect": 28}
    bar = figure.colorbar(scale, ax=axes, shrink=0.9 if column else 0.62, pad=0.02, anchor=(0.5, 0.0), **place)
    few = column and largest > 2
    ticks = [tick for tick in (FEW_TICKS if few else TICKS) if 1 / largest <= tick * 1.001 and tick <= largest * 1.001]
    bar.set_ticks(ticks, labels=[f"{tick:g}×" for tick in ticks])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=font(8.5))
    bar.outline.set_visible(False)
    bar.set_label("speed-up (orange: slower, blue: faster)" if column else "speed-up", fontsize=font(8.5))


def _legend(figure: "Figure", fields: list[Field]) -> None:
    from matplotlib.patches import Patch

    present = {field.status for field in fields}
    handles = [
        Patch(facecolor="white", label=f"{ICONS[status]} {status}", **border)
        for status, border in BORDERS.items()
        if status in present
    ]
    if any(field.is_noise for field in fields):
        handles.append(Patch(facecolor="white", hatch=HATCH, edgecolor="#B4B4B4", linewidth=0, label=HATCHED))
    legend_of(figure, handles)
