"""The pictures of a sweep, drawn from the rows of summary.csv as PNG and SVG.

Each says which direction is better and leaves out what has no number; a picture with nothing to show is
not drawn. Colours are colour-blind safe and never the only sign. Knows nothing of how rows came about.
"""

import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.metrics import EXCLUSIVE_PHASES

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
BASELINE = "baseline"
CONTEXT = ("model", "engine", "width", "height", "steps")
"""Columns that set baselines apart: rows that differ in one of them stand in panels of their own."""

NUMBERS = (
    *("batch", "width", "height", "steps", "latency_mean_s", "images_per_s", "peak_memory_gb"),
    *("speedup", "speedup_low", "speedup_high", "mean_diff", "other_ms"),
    *(f"{phase}_ms" for phase in EXCLUSIVE_PHASES),
)
ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # keeps a number legible on a line
GREY, LIGHT = "#555555", "#B0B0B0"
FASTER, UNCLEAR, SLOWER = "#0173B2", LIGHT, "#D55E00"
PHASE_COLOURS = dict(
    zip(
        (*EXCLUSIVE_PHASES, "other"),
        ("#CA9161", "#FBAFE4", "#ECE133", "#DE8F05", "#0173B2", "#029E73", "#CC78BC", "#C8C8C8"),
        strict=True,
    )
)
MARKERS = "osD^v<>p"
COLUMNS_OF_PANELS = 4  # side by side; further panels go below


@dataclass(frozen=True)
class Panel:
    """Rows that share a baseline, with the title that sets them apart ("" when all rows do)."""

    title: str
    rows: "pandas.DataFrame"


def draw_all(summary: "pandas.DataFrame", folder: Path, note: str = "") -> list[Path]:
    """Draw every plot that has something to show into `folder`; the files written, PNG and SVG of each.

    `summary` has the columns of summary.csv (any may be missing). `note` is printed small under each
    plot, e.g. that weights are random.
    """
    frame = _clean(summary)
    written: list[Path] = []
    with _style():
        for name, draw in PLOTS.items():
            figure = draw(frame)
            if figure is None:
                continue
            _footnote(figure, note, frame)
            folder.mkdir(parents=True, exist_ok=True)
            for suffix in ("png", "svg"):
                path = folder / f"{name}.{suffix}"
                # Without a date the same rows give the same file.
                figure.savefig(path, dpi=DPI, metadata={"Date": None} if suffix == "svg" else None)
                written.append(path)
    return written


def draw_speedup(frame: "pandas.DataFrame") -> "Figure | None":
    """One bar a cell, with its 95 % interval, against the baseline at 1.0."""
    rows = frame[frame["speedup"].notna() & ((frame["series"] != BASELINE) | frame["aa"])]
    if rows.empty:
        return None
    figure, panels = _bar_panels(rows, "Speed-up over the baseline")
    kinds: dict[str, str] = {}
    reach = _fastest(rows)
    for axes, panel in panels:
        for y, row in enumerate(panel.rows.itertuples()):
            kind, colour = _speed_kind(row.speedup, row.speedup_low, row.speedup_high)
            kinds[kind] = colour
            failed = row.status in ("FAIL", "ERROR")
            axes.barh(y, row.speedup, height=0.68, color=colour, hatch="////" if failed else None, edgecolor="white")
            end = row.speedup
            if row.speedup_low == row.speedup_low:  # not NaN
                errors = [[max(0.0, row.speedup - row.speedup_low)], [max(0.0, row.speedup_high - row.speedup)]]
                axes.errorbar(row.speedup, y, xerr=errors, fmt="none", ecolor="#222222", elinewidth=1.2, capsize=3)
                end = max(end, row.speedup_high)
            axes.text(end + reach * 0.015, y, f"{row.speedup:.2f}×", va="center", fontsize=9, bbox=ON_WHITE)
        axes.axvline(1.0, color="#222222", linewidth=1, linestyle="--")
        axes.set_xlim(0, reach * 1.14)
    panels[-1][0].set_xlabel("speed-up, × (baseline = 1; bars: mean of pairs, whiskers: 95 % interval)\nhigher is better →")
    _swatches(figure, kinds)
    return figure


def draw_phases(frame: "pandas.DataFrame") -> "Figure | None":
    """One stacked bar a cell: where the time of one generation goes."""
    names = [f"{phase}_ms" for phase in PHASE_COLOURS]
    rows = frame[(frame[names].fillna(0) > 0).any(axis=1)]
    if rows.empty:
        return None
    longest = rows[names].sum(axis=1).max()
    scale, unit = (1000.0, "s") if longest >= 20_000 else (1.0, "ms")
    figure, panels = _bar_panels(rows, "Time by phase")
    present = {
        phase: colour for phase, colour in PHASE_COLOURS.items() if (rows[f"{phase}_ms"].fillna(0) > 0).any()
    }
    for axes, panel in panels:
        for y, (_, row) in enumerate(panel.rows.iterrows()):
            total, left = row[names].sum(), 0.0
            for phase, colour in present.items():
                value = row[f"{phase}_ms"]
                if not value > 0:
                    continue
                axes.barh(y, value / scale, left=left / scale, height=0.72, color=colour, edgecolor="white", linewidth=0.6)
                if value > 0.07 * longest:
                    ink = "white" if phase in ("denoise_step", "vae_decode") else "black"
                    centre = (left + value / 2) / scale
                    axes.text(centre, y, f"{value / total:.0%}", ha="center", va="center", color=ink, fontsize=8)
                left += value
            shown = f"{total / scale:.0f}" if total / scale >= 100 else f"{total / scale:.3g}"
            axes.text((total + longest * 0.012) / scale, y, f"{shown} {unit}", va="center", fontsize=9)
        axes.set_xlim(0, longest / scale * 1.14)
    panels[-1][0].set_xlabel(f"time of one generation, {unit} (mean)\n← lower is better")
    _swatches(figure, present, title="phase")
    return figure


def draw_batch(frame: "pandas.DataFrame") -> "Figure | None":
    """Latency and throughput against batch, one line a feature set; needs two batch sizes."""
    rows = frame[frame["latency_mean_s"].notna() & frame["batch"].notna()]
    if rows["batch"].nunique() < 2:
        return None
    lines = {
        "latency_mean_s": "mean latency of a batch, s\n← lower is better",
        "images_per_s": "throughput, images/s\nhigher is better →",
    }
    if rows["images_per_s"].isna().all():
        del lines["images_per_s"]
    return _line_panels(rows, lines, "Latency and throughput against batch")


def draw_memory(frame: "pandas.DataFrame") -> "Figure | None":
    """Peak memory: lines against batch where there are two batch sizes, else one bar a cell."""
    rows = frame[frame["peak_memory_gb"].notna()]
    if rows.empty:
        return None
    label = "peak memory, GB\n← lower is better"
    if rows["batch"].nunique() >= 2:
        return _line_panels(rows, {"peak_memory_gb": label}, "Peak memory against batch")
    figure, panels = _bar_panels(rows, "Peak memory")
    reach = rows["peak_memory_gb"].max()
    for axes, panel in panels:
        for y, value in enumerate(panel.rows["peak_memory_gb"]):
            axes.barh(y, value, height=0.68, color=FASTER, edgecolor="white")
            axes.text(value + reach * 0.015, y, f"{value:.3g}", va="center", fontsize=9)
        axes.set_xlim(0, reach * 1.14 or 1.0)
    panels[-1][0].set_xlabel(label)
    return figure


def draw_quality(frame: "pandas.DataFrame") -> "Figure | None":
    """Speed-up against the difference from the baseline's images; identical ones at the left edge."""
    import numpy as np

    rows = frame[frame["speedup"].notna() & frame["mean_diff"].notna() & ((frame["series"] != BASELINE) | frame["aa"])]
    if rows.empty:
        return None
    different = rows.loc[rows["mean_diff"] > 0, "mean_diff"]
    first = np.floor(np.log10(different.min())) if len(different) else 0.0
    last = max(np.ceil(np.log10(different.max())), first + 1) if len(different) else 0.0
    edge = first - 0.7  # where identical images stand: log10(0) has no place on the axis
    panels = _panels(rows)
    figure, grid = _grid(panels, 1, "Speed against quality", height=3.9)
    looks = _looks(rows)
    low, high = min(1.0, float(rows[["speedup", "speedup_low"]].min(axis=None))), _fastest(rows)
    margin = max(0.02, 0.09 * (high - low))
    for place, panel in enumerate(panels):
        axes, points = grid[place][0], []
        for name, part in panel.rows.groupby("series", sort=False):
            x = [edge if d == 0 else float(np.log10(d)) for d in part["mean_diff"]]
            colour, marker = looks[str(name)]
            errors = np.nan_to_num(
                np.array([part["speedup"] - part["speedup_low"], part["speedup_high"] - part["speedup"]]).clip(min=0)
            )
            whiskers = {"fmt": "none", "ecolor": colour, "elinewidth": 1, "capsize": 2.5, "alpha": 0.7}
            axes.errorbar(x, part["speedup"], yerr=errors, **whiskers)
            look = {"color": colour, "marker": marker, "edgecolor": "white"}
            axes.scatter(x, part["speedup"], s=48, linewidth=0.7, zorder=3, **look)
            points += [(at, row.speedup, f"b{row.batch:.0f}") for at, row in zip(x, part.itertuples(), strict=True)]
        if rows["batch"].nunique() > 1:
            _name_points(axes, points, apart=(0.08 * (last - edge), 0.045 * (high - low + 2 * margin)))
        axes.axhline(1.0, color="#222222", linewidth=1, linestyle="--")
        powers = np.arange(first, last + 1) if len(different) else np.array([])
        ticks, names = list(powers), [f"{10**power:g}" for power in powers]
        left, right = first - 0.1, last + 0.1
        if (rows["mean_diff"] == 0).any():
            ticks, names = [edge, *ticks], ["identical", *names]
            axes.axvspan(edge - 0.35, edge + 0.35, color="#F2F2F2", zorder=0)
            left = edge - 0.35
        axes.set_xticks(ticks, names, fontsize=9 if len(ticks) < 7 else 8)
        axes.set_xlim(left, right if len(different) else edge + 1)
        axes.set_ylim(low - margin, high + margin)
        axes.set_xlabel("mean pixel difference from the baseline, 0–1\n← lower is better")
        if place % COLUMNS_OF_PANELS == 0:
            axes.set_ylabel("speed-up, ×\nhigher is better →")
    _points(figure, looks, joined=False)
    return figure


def _name_points(axes: "Axes", points: list[tuple[float, float, str]], apart: tuple[float, float]) -> None:
    """Write each point's text beside it, unless one that stands closer than `apart` has its text there."""
    named: list[tuple[float, float]] = []
    for x, y, text in sorted(points, key=lambda point: -point[1]):
        if all(abs(x - other[0]) > apart[0] or abs(y - other[1]) > apart[1] for other in named):
            axes.annotate(text, (x, y), (7, -3), textcoords="offset points", fontsize=8, color=GREY)
            named.append((x, y))


PLOTS: "dict[str, Callable[[pandas.DataFrame], Figure | None]]" = {
    "speedup": draw_speedup,
    "phases": draw_phases,
    "batch": draw_batch,
    "memory": draw_memory,
    "quality": draw_quality,
}
"""File name of each plot, and what draws it (None: nothing to show)."""


def _clean(summary: "pandas.DataFrame") -> "pandas.DataFrame":
    """A copy with every column that the plots read: numbers as floats, texts as str, absent as NaN or ""."""
    import pandas

    frame = summary.copy()
    for name in ("cell", "model", "engine", "features", "status"):
        frame[name] = frame[name].fillna("").astype(str) if name in frame else ""
    for name in NUMBERS:
        frame[name] = pandas.to_numeric(frame[name], errors="coerce").astype(float) if name in frame else float("nan")
    frame["aa"] = frame["cell"].str.endswith("A/A")
    frame["series"] = frame["features"].where(frame["features"] != "", BASELINE)
    frame.loc[frame["aa"], "series"] += " A/A"
    return frame


def _panels(rows: "pandas.DataFrame") -> list[Panel]:
    """Rows split by what their baselines differ in, in order of appearance; titles name only that."""
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
            words.append(f"{row['steps']:.0f} steps")
        panels.append(Panel(" · ".join(words), part))
    return panels


def _bar_panels(rows: "pandas.DataFrame", title: str) -> "tuple[Figure, list[tuple[Axes, Panel]]]":
    """A figure with one panel under the other, as tall as its bars need, each row labelled with its cell."""
    from matplotlib.figure import Figure

    panels = _panels(rows)
    labels = [[_wrapped(label) for label in _cell_labels(panel)] for panel in panels]
    heights = [sum(1.0 + 0.45 * label.count("\n") for label in group) + 0.3 for group in labels]
    inches = 0.29 * sum(heights) + 0.42 * len(panels) + 1.2
    figure = Figure(figsize=(9.2, max(2.6, inches)), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel, group in zip(column, panels, labels, strict=True):
        axes.set_yticks(range(len(group)), group)
        axes.set_ylim(len(group) - 0.4, -0.6)  # first row on top
        axes.grid(False, axis="y")
        axes.set_title(panel.title, fontsize=10, loc="left")
    return figure, list(zip(column, panels, strict=True))


def _line_panels(rows: "pandas.DataFrame", columns: dict[str, str], title: str) -> "Figure":
    """A panel a context, with one pair of axes a column in it; a line a feature set against batch."""
    panels = _panels(rows)
    figure, grid = _grid(panels, len(columns), title, height=2.7 if len(columns) > 1 else 3.4)
    looks = _looks(rows)
    ticks = sorted(rows["batch"].unique())
    for place, panel in enumerate(panels):
        for axes, (column, label) in zip(grid[place], columns.items(), strict=True):
            for name, part in panel.rows.sort_values("batch").groupby("series", sort=False):
                points = part[part[column].notna()].groupby("batch")[column].mean()
                colour, marker = looks[str(name)]
                style = {"color": colour, "marker": marker, "markersize": 6.5, "markeredgecolor": "white"}
                axes.plot(points.index, points, linewidth=1.7, zorder=3, **style)
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
            axes.minorticks_off()
            axes.set_xlim(ticks[0] / 1.15, ticks[-1] * 1.15)
            axes.set_ylim(0, rows[column].max() * 1.08 or 1.0)
            if place % COLUMNS_OF_PANELS == 0:
                axes.set_ylabel(label)
        grid[place][-1].set_xlabel("batch, prompts generated at once")
    _points(figure, looks, joined=True)
    return figure


def _grid(panels: list[Panel], lines: int, title: str, height: float) -> "tuple[Figure, list[list[Axes]]]":
    """`lines` axes under each other for each panel, panels side by side; the legend's place is on the right."""
    from matplotlib.figure import Figure

    columns = min(len(panels), COLUMNS_OF_PANELS)
    blocks = -(-len(panels) // columns)
    size = (max(7.2, 3.1 * columns + 2.6), height * lines * blocks + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    table = figure.subplots(lines * blocks, columns, squeeze=False)
    grid = []
    for place in range(blocks * columns):
        block, column = divmod(place, columns)
        stack = [table[block * lines + line][column] for line in range(lines)]
        if place < len(panels):
            stack[0].set_title(_wrapped(panels[place].title, 30), fontsize=10, loc="left")
            grid.append(stack)
        else:
            for axes in stack:
                axes.remove()
    return figure, grid


def _looks(rows: "pandas.DataFrame") -> dict[str, tuple[str, str]]:
    """Colour and marker of each feature set; both differ, so either alone tells neighbours apart."""
    import seaborn

    palette = [colour for i, colour in enumerate(seaborn.color_palette("colorblind").as_hex()) if i != 7]  # 7 is grey
    names = list(dict.fromkeys(rows["series"]))
    features = [name for name in names if not name.startswith(BASELINE)]
    looks = {name: (palette[i % 9], MARKERS[(i + 1) % len(MARKERS)]) for i, name in enumerate(features)}
    plain = {BASELINE: (GREY, "o"), f"{BASELINE} A/A": (LIGHT, "d")}
    return {name: looks.get(name) or plain[name] for name in names}


def _points(figure: "Figure", looks: dict[str, tuple[str, str]], joined: bool) -> None:
    """The legend of points, `joined` by lines or not."""
    from matplotlib.lines import Line2D

    style = {"linestyle": "-" if joined else "", "markersize": 6.5, "markeredgecolor": "white"}
    handles = [
        Line2D([], [], color=colour, marker=marker, label=_wrapped(name, 26), **style)
        for name, (colour, marker) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9, labelspacing=0.6)


def _swatches(figure: "Figure", colours: dict[str, str], title: str | None = None) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(
        handles=handles, loc="outside right upper", frameon=False, fontsize=9, title=title, alignment="left"
    )


def _speed_kind(ratio: float, low: float, high: float) -> tuple[str, str]:
    """Words and colour of one speed-up, by where its interval lies (NaN: there is none)."""
    if not (low == low and high == high):
        return "no interval\n(one measurement)", "#56B4E9"
    return ("faster", FASTER) if low > 1 else ("slower", SLOWER) if high < 1 else ("no clear difference", UNCLEAR)


def _fastest(rows: "pandas.DataFrame") -> float:
    """Upper end of what is drawn on a speed-up axis; at least 1, where the baseline stands."""
    return max(1.0, float(rows[["speedup", "speedup_high"]].max(axis=None)))


def _cell_labels(panel: Panel) -> list[str]:
    """Names of a panel's cells: features and batch where they suffice, else the whole label.

    A status that is not PASS stands beside the name.
    """
    rows = panel.rows
    names = [f"{series} b{batch:.0f}" for series, batch in zip(rows["series"], rows["batch"], strict=True)]
    if len(set(names)) < len(names):
        names = list(rows["cell"])
    marks = [f" [{status}]" if status not in ("", "PASS") else "" for status in rows["status"]]
    return [name + mark for name, mark in zip(names, marks, strict=True)]


def _wrapped(text: str, width: int = 36) -> str:
    """At most about three lines of `width` characters, broken at spaces and plus signs, shortened in the middle."""
    if len(text) > 3 * width - 8:
        text = f"{text[: 2 * width - 8]} … {text[-(width - 8) :]}"
    lines = textwrap.wrap(text.replace("+", "+\x00 "), width + 2, break_on_hyphens=False)
    return "\n".join(line.replace("+\x00 ", "+").replace("\x00", "") for line in lines)


def _footnote(figure: "Figure", note: str, frame: "pandas.DataFrame") -> None:
    """Small print under the plot: the caller's note, and which cells have no numbers."""
    silent = frame[frame["latency_mean_s"].isna() & frame["status"].isin(["SKIP", "ERROR"])]
    if len(silent):
        counts = ", ".join(f"{count} {status}" for status, count in silent["status"].value_counts().items())
        note = f"{note} Cells without numbers are not shown: {counts}.".strip()
    if note:
        width = int(figure.get_figwidth() * 15)
        figure.supxlabel(textwrap.fill(note, width), x=0.01, ha="left", fontsize=8, color=GREY)


@contextmanager
def _style() -> Iterator[None]:
    """seaborn's white grid, for what is drawn inside only; labels are never read as math."""
    import matplotlib
    import seaborn

    extra = {"text.parse_math": False, "svg.hashsalt": "sweep", "axes.edgecolor": LIGHT, "hatch.linewidth": 0.8}
    size = {"font.size": 10, "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9.5, "axes.titleweight": "bold"}
    with matplotlib.rc_context(), seaborn.axes_style("whitegrid"), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; no reason to stop a report.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        matplotlib.rcParams.update({**extra, **size})
        yield
