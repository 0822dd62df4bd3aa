"""How good the images of each cell are, measure by measure, with the gates that they were judged by.

The rows hold a cell's gates as `gate_fail_psnr_db` and so on, where they are known. Knows nothing about how gates
come about.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY, LIGHT
from sweep.findings import FAIL, LOST, WARN
from sweep.report.plots import sheet
from sweep.report.plots.panels import BAD, bar_grid, legend_of, remark
from sweep.report.plots.sheet import font

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD = "#0173B2"
GATES: dict[str, dict[str, Any]] = {
    FAIL: {"colors": BAD, "linestyles": "-", "linewidth": 2.0},
    WARN: {"colors": "#8A5A00", "linestyles": "-", "linewidth": 2.0},
}
LEVELS = {FAIL: "fail", WARN: "warn"}
IDENTICAL = "identical"


@dataclass(frozen=True)
class _Measure:
    """A column of summary.csv on an axis. `best` is its value for identical images."""

    name: str
    label: str
    best: float
    shown: str

    def gates(self, rows: "pandas.DataFrame", status: str) -> "pandas.Series | None":
        name = f"gate_{LEVELS[status]}_{self.name}"
        return rows[name] if name in rows and rows[name].notna().any() else None


MEASURES = (
    _Measure("psnr_db", "PSNR, dB\nhigher is better →", math.inf, "{:.1f}"),
    _Measure("ssim", "SSIM\nhigher is better →", 1.0, "{:.3f}"),
    _Measure("facts_right", "facts that are right\nhigher is better →", math.nan, "{:.0%}"),
    _Measure("mean_diff", "mean pixel difference\n← lower is better", 0.0, "{:.3g}"),
    _Measure("max_diff", "largest pixel difference\n← lower is better", 0.0, "{:.3g}"),
)
"""PSNR, SSIM and facts are drawn where they are known, differences where a gate is on them."""

GATED = ("mean_diff", "max_diff")
IN_A_COLUMN = 2  # measures in a column of paper


def draw_image_quality(frame: "pandas.DataFrame") -> "Figure | None":
    """A point for each cell and measure, and the gates that hold for it; None where no image was compared."""
    rows = frame[frame["psnr_db"].notna() & ((frame["features"] != "") | frame["aa"])]
    if rows.empty:
        return None
    shown = [measure for measure in MEASURES if _has(rows, measure)]
    if sheet.current().is_column:
        first, *others = shown
        others.sort(key=lambda one: all(one.gates(rows, status) is None for status in GATES))
        shown = [first, *others[: IN_A_COLUMN - 1]]
    figure, panels = bar_grid(rows, "Image quality", len(shown))
    for stack, panel, places in panels:
        for axes, measure in zip(stack, shown, strict=True):
            _draw(axes, measure, panel.rows, places, rows)
    for axes, measure in zip(panels[-1][0], shown, strict=True):
        axes.set_xlabel(measure.label)
    _legend(figure, rows, shown)
    remark(figure, "Against the baseline's images.")
    if any(measure.gates(rows, status) is not None for measure in shown for status in GATES):
        remark(figure, "Gates include what two runs of the baseline differ by.")
    return figure


def _has(rows: "pandas.DataFrame", measure: _Measure) -> bool:
    if measure.name not in rows or rows[measure.name].isna().all():
        return False
    return measure.name not in GATED or any(measure.gates(rows, status) is not None for status in GATES)


def _draw(
    axes: "Axes", measure: _Measure, rows: "pandas.DataFrame", places: list[float], everything: "pandas.DataFrame"
) -> None:
    left, right, edge = _span(measure, everything)
    for y, (_, row) in zip(places, rows.iterrows(), strict=True):
        value = float(row[measure.name])
        if math.isnan(value):
            continue
        same = value == measure.best
        x = edge if same else value
        failed = row["status"] in LOST
        look: dict[str, Any] = {"color": BAD, "marker": "X"} if failed else {"color": LIGHT if row["aa"] else GOOD}
        axes.hlines(y, left, x, color="#D9D9D9", linewidth=1.2, zorder=1)
        axes.plot([x], [y], **{"marker": "o", "markersize": 5.5, "zorder": 3, **look})
        text = IDENTICAL if same else measure.shown.format(value)
        late = x > left + 0.6 * (right - left)
        side: dict[str, Any] = {"xytext": (-6 if late else 6, 0), "ha": "right" if late else "left", "va": "center"}
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        more: dict[str, Any] = {"textcoords": "offset points", "fontsize": font(8.5), "color": GREY, "zorder": 2}
        axes.annotate(text, (x, y), bbox=behind, **side, **more)
    for status, line in GATES.items():
        gates = measure.gates(rows, status)
        if gates is not None:
            known = [(gate, y) for gate, y in zip(gates, places, strict=True) if math.isfinite(gate)]
            half = 0.42 if status == FAIL else 0.25
            below, above = ([y + side for _, y in known] for side in (-half, half))
            axes.vlines([gate for gate, _ in known], below, above, zorder=4, **line)
    axes.set_xlim(left, right)
    past = edge - 1e-9 if math.isinf(measure.best) else 1.0 + 1e-9
    share = measure.name == "facts_right"
    axes.xaxis.set_major_formatter(lambda x, _: "" if x > past else f"{x:.0%}" if share else f"{x:.4g}")


def _span(measure: _Measure, rows: "pandas.DataFrame") -> tuple[float, float, float]:
    """Ends of an axis, and the place of identical images: right of every other."""
    gates = [gate for status in GATES if (gate := measure.gates(rows, status)) is not None]
    values = [float(value) for series in (rows[measure.name], *gates) for value in series if math.isfinite(value)]
    if measure.best == 0.0:
        top = max([*values, 1e-3])
        return -0.03 * top, 1.12 * top, 0.0
    if measure.name == "facts_right":
        return 0.0, 1.06, 1.0
    low, high = min(values, default=20.0), max(values, default=40.0)
    room = max(0.08 * (high - low), 0.02 * high)
    if measure.best == 1.0:
        return low - room, 1.0 + 0.4 * room, 1.0
    edge = high + 2.5 * room
    return low - 2 * room, edge + room, edge


def _legend(figure: "Figure", rows: "pandas.DataFrame", shown: list[_Measure]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for status, line in GATES.items():
        if any(measure.gates(rows, status) is not None for measure in shown):
            look = {"color": line["colors"], "linestyle": "", "marker": "|", "markersize": 11, "markeredgewidth": 2}
            handles.append(Line2D([], [], label=f"gate of {status}", **look))
    point: dict[str, Any] = {"linestyle": "", "markersize": 6}
    if (~rows["status"].isin(LOST) & ~rows["aa"]).any():
        handles.append(Line2D([], [], color=GOOD, marker="o", label="cell", **point))
    if rows["status"].isin(LOST).any():
        handles.append(Line2D([], [], color=BAD, marker="X", label=FAIL, **point))
    if rows["aa"].any():
        handles.append(Line2D([], [], color=LIGHT, marker="o", label="A/A run: baseline again", **point))
    legend_of(figure, handles, columns=2)
