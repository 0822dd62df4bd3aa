"""The plots of a sweep, drawn from the rows of summary.csv as PNG and SVG.

Each plot says which direction is better and leaves out cells without numbers. A plot with nothing to show is
not drawn. Colours are safe for the colour-blind and never the only cue. Knows nothing about how rows were computed.
"""

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from profiling.atomic_write import replaced
from profiling.phases import EXCLUSIVE_PHASES, OTHER
from profiling.plot_style import GREY, LIGHT, PHASE_COLOURS, lay_out, style
from sweep.analysis import columns, paired
from sweep.analysis.column import METRIC, PHASE, QUALITY
from sweep.findings import LOST
from sweep.plan.cells import AA
from sweep.report.plots import intervals, sheet
from sweep.report.plots.exactness import draw_exactness
from sweep.report.plots.heatmap import draw_heatmap
from sweep.report.plots.image_quality import draw_image_quality
from sweep.report.plots.lines import line_panels
from sweep.report.plots.loads import draw_batch_under_load, draw_concurrency, draw_rate, draw_soak
from sweep.report.plots.panels import (
    BASELINE,
    CONTEXT,
    bar_panels,
    footnote,
    legend_of_colours,
    remark,
    without_context,
)
from sweep.report.plots.pareto import draw_quality
from sweep.report.plots.scaling import draw_scaling
from sweep.report.plots.sheet import Sheet, drawing_on, font

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

TEXTS = (
    *("cell", "role", "model", "engine", "features", "parallel", "status", "reason", "called", "profiled", "load"),
)
"""Columns of text that the plots read, and the numbers."""

NUMBERS = (
    *(
        "batch",
        "gpus",
        "concurrency",
        "request_rate",
        "part",
        "width",
        "height",
        "steps",
        "speedup",
        "speedup_low",
        "speedup_high",
        "interaction_gain",
    ),
    *columns.of_kind(METRIC, PHASE, QUALITY),
)
ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # keeps a number legible on a line
FASTER, UNCLEAR, SLOWER, NO_INTERVAL = "#0173B2", LIGHT, "#D55E00", "#56B4E9"
WITHIN_NOISE = "no difference\n(within noise)"
BAR_COLOURS = {phase: PHASE_COLOURS[phase] for phase in (*EXCLUSIVE_PHASES, OTHER)}
"""Parts of the bar of one generation, in the order of a request."""


def draw_all(
    summary: "pandas.DataFrame",
    folder: Path,
    note: str = "",
    more: "Mapping[str, Callable[[], Figure | None]]" = MappingProxyType({}),
    only: Collection[str] | None = None,
    on: Sheet = sheet.SCREEN,
    captioned: Callable[[str, str], None] = lambda name, caption: None,
) -> list[Path]:
    """Draw every plot that has something to show into `folder`; returns the files, one of each of the sheet's formats.

    `summary` has the columns of summary.csv (any may be missing); a column `knee` says which rows are the knee of a
    ladder. `note` is small print under each plot, e.g. that weights are random. `more` draws plots that are made from
    other stored results, by file name. `only` names the plots to draw, `on` is what they are drawn for.
    `captioned` gets the name and the small print of each.
    """
    import matplotlib

    frame = cleaned(summary)
    written: list[Path] = []
    with style(), drawing_on(on):
        matplotlib.rcParams.update(sheet.sizes())
        for name, draw in PLOTS.items():
            if only is not None and name not in only:
                continue
            figure = draw(frame[frame["profiled"] == ""] if name in BENCHMARKS else frame)
            if figure is None:
                continue
            captioned(name, footnote(figure, note, None if name in TELLS_ALL else frame))
            written += _save(figure, folder / name)
        for name, make in more.items():
            if (only is None or name in only) and (figure := make()) is not None:
                captioned(name, footnote(figure, note, None))
                written += _save(figure, folder / name)
    return written


def _save(figure: "Figure", file: Path) -> list[Path]:
    """Write a figure in each of the sheet's formats."""
    written = []
    file.parent.mkdir(parents=True, exist_ok=True)
    dpi = sheet.current().dpi
    lay_out(figure, dpi)
    for suffix in sheet.current().formats:
        path = file.with_name(f"{file.name}.{suffix}")
        with replaced(path) as unfinished:
            # Without a date, the same rows give the same file.
            metadata = DATELESS.get(suffix)
            figure.savefig(unfinished, dpi=dpi, format=suffix, metadata=metadata)
        written.append(path)
    return written


def draw_speedup(frame: "pandas.DataFrame") -> "Figure | None":
    """One bar for each cell, with its 95 % interval; the baseline is 1.0."""
    rows = frame[frame["speedup"].notna() & ((frame["features"] != "") | frame["aa"])]
    if rows.empty:
        return None
    figure, panels = bar_panels(rows, "Speed-up over the baseline")
    kinds: dict[str, str] = {}
    reach = _fastest(rows)
    for axes, panel, places in panels:
        for y, row in zip(places, panel.rows.itertuples(), strict=True):
            kind, colour = _speed_kind(row.speedup_low, row.speedup_high, row.called)
            if row.aa:  # the baseline again: its distance from 1 is noise, not speed
                kind, colour = "A/A run:\nbaseline again", GREY
            kinds[kind] = colour
            axes.barh(y, row.speedup, height=0.68, color=colour, **_marked(row.status))
            end = row.speedup
            if row.speedup_low == row.speedup_low:  # not NaN
                errors = [[max(0.0, row.speedup - row.speedup_low)], [max(0.0, row.speedup_high - row.speedup)]]
                axes.errorbar(row.speedup, y, xerr=errors, fmt="none", ecolor="#222222", elinewidth=1.2, capsize=3)
                end = max(end, row.speedup_high)
            axes.text(end + reach * 0.015, y, f"{row.speedup:.2f}×", va="center", fontsize=font(9), bbox=ON_WHITE)
        axes.axvline(1.0, color="#222222", linewidth=1, linestyle="--")
        axes.set_xlim(0, reach * _room())
    remark(figure, "Baseline = 1. Bars: geometric mean of pairs; whiskers: 95 % interval.")
    panels[-1][0].set_xlabel("speed-up, ×\nhigher is better →")
    legend_of_colours(figure, kinds)
    return figure


def draw_phases(frame: "pandas.DataFrame") -> "Figure | None":
    """One stacked bar for each cell: where the time of one generation goes."""
    names = [f"{phase}_ms" for phase in BAR_COLOURS]
    rows = frame[(frame[names].fillna(0) > 0).any(axis=1)]
    if rows.empty:
        return None
    rows = rows.assign(total_ms=rows[names].sum(axis=1))
    low, high, said = intervals.of(rows, "total_ms")
    rows = rows.assign(low=low, high=high)
    longest = rows["total_ms"].max()
    reach = min(1.4 * longest, max(longest, rows["high"].max() if rows["high"].notna().any() else 0.0))
    scale, unit = (1000.0, "s") if longest > 1000 else (1.0, "ms")
    figure, panels = bar_panels(rows, "Time by phase")
    remark(figure, _not_at_once(rows))
    remark(figure, said)
    if (rows["profiled"] != "").any():
        several = "Cells" if (rows["profiled"] != "").all() else "Some cells"
        remark(figure, f"{several} were profiled; their times include profiler overhead.")
    present = {phase: colour for phase, colour in BAR_COLOURS.items() if (rows[f"{phase}_ms"].fillna(0) > 0).any()}
    for axes, panel, places in panels:
        for y, (_, row) in zip(places, panel.rows.iterrows(), strict=True):
            total, left = row["total_ms"], 0.0
            for phase, colour in present.items():
                value = row[f"{phase}_ms"]
                if not value > 0:
                    continue
                bar: dict[str, Any] = {"color": colour, "linewidth": 0.6, **_marked(row["status"])}
                axes.barh(y, value / scale, left=left / scale, height=0.72, **bar)
                if value > (0.16 if sheet.current().is_column else 0.07) * longest:
                    ink = "white" if phase in ("denoise_step", "vae_decode") else "black"
                    centre = (left + value / 2) / scale
                    behind = {"facecolor": colour, "edgecolor": "none", "pad": 0.6}  # keeps it legible on a hatch
                    look: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "bbox": behind}
                    axes.text(centre, y, f"{value / total:.0%}", fontsize=font(8), **look)
                left += value
            end = total
            if row["low"] == row["low"]:  # not NaN
                errors = [[(total - row["low"]) / scale], [(row["high"] - total) / scale]]
                axes.errorbar(total / scale, y, xerr=errors, fmt="none", ecolor="#222222", elinewidth=1, capsize=2.5)
                end = min(row["high"], reach)
            shown = f"{total / scale:.0f}" if total / scale >= 100 else f"{total / scale:.3g}"
            axes.text((end + reach * 0.012) / scale, y, f"{shown} {unit}", va="center", fontsize=font(9))
        axes.set_xlim(0, reach / scale * (_room() + 0.04))
    panels[-1][0].set_xlabel(f"mean time per generation, {unit}\n← lower is better")
    legend_of_colours(figure, present, title="phase")
    return figure


def _marked(status: str) -> dict[str, Any]:
    """The look of a bar: hatched if its cell failed."""
    return {"hatch": "////" if status in LOST else None, "edgecolor": "white"}


def _room() -> float:
    """How far an axis reaches beyond its longest bar, for the number at its end; the bar is 1."""
    return 1.26 if sheet.current().is_column else 1.14


def draw_batch(frame: "pandas.DataFrame") -> "Figure | None":
    """Latency and throughput by batch size, one line for each feature set; needs two batch sizes."""
    rows = frame[frame["latency_mean_s"].notna() & frame["batch"].notna() & (frame["load"] == "")]
    if rows["batch"].nunique() < 2:
        return None
    names = [name for name in ("latency_mean_s", "images_per_s") if rows[name].notna().any()]
    lines = {name: columns.BY_NAME[name].axis for name in names}
    figure = line_panels(rows, lines, "Latency and throughput by batch size")
    remark(figure, _not_at_once(rows))
    return figure


def draw_memory(frame: "pandas.DataFrame") -> "Figure | None":
    """Peak memory: lines by batch size if there are at least two, else one bar for each cell."""
    rows = frame[frame["peak_memory_gb"].notna()]
    if rows.empty:
        return None
    label = columns.BY_NAME["peak_memory_gb"].axis
    if rows["batch"].nunique() >= 2 and (rows["load"] == "").all():
        return line_panels(rows, {"peak_memory_gb": label}, "Peak memory by batch size")
    figure, panels = bar_panels(rows, "Peak memory")
    reach = rows["peak_memory_gb"].max()
    for axes, panel, places in panels:
        for y, value, status in zip(places, panel.rows["peak_memory_gb"], panel.rows["status"], strict=True):
            axes.barh(y, value, height=0.68, color=FASTER, **_marked(status))
            axes.text(value + reach * 0.015, y, f"{value:.3g}", va="center", fontsize=font(9))
        axes.set_xlim(0, reach * _room() or 1.0)
    panels[-1][0].set_xlabel(label)
    return figure


PLOTS: "dict[str, Callable[[pandas.DataFrame], Figure | None]]" = {
    "heatmap": draw_heatmap,
    "speedup": draw_speedup,
    "phases": draw_phases,
    "batch": draw_batch,
    "scaling": draw_scaling,
    "memory": draw_memory,
    "concurrency": draw_concurrency,
    "rate": draw_rate,
    "soak": draw_soak,
    "batch_under_load": draw_batch_under_load,
    "quality": draw_quality,
    "image_quality": draw_image_quality,
    "exactness": draw_exactness,
}
"""File name of each plot, and the function that draws it (None: nothing to show)."""

DATELESS: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Metadata of a format that would hold the time."""

BENCHMARKS = (
    "speedup",
    "batch",
    "scaling",
    "concurrency",
    "rate",
    "soak",
    "batch_under_load",
    "quality",
    "image_quality",
    "exactness",
)
"""Plots of speed. They leave out profiled cells."""

TELLS_ALL = ("heatmap",)
"""Plots that also show cells without numbers."""


def cleaned(summary: "pandas.DataFrame") -> "pandas.DataFrame":
    """A copy with every column that the plots read: numbers as floats, texts as str, missing as NaN or "".

    Adds `aa` (whether it is an A/A run), `series` (what a line or colour stands for: the features, or the cell's
    label if features alone are ambiguous) and `look` (number of the series).
    """
    import pandas

    read: dict[str, Any] = {name: summary[name].fillna("").astype(str) if name in summary else "" for name in TEXTS}
    for name in NUMBERS:
        read[name] = pandas.to_numeric(summary[name], errors="coerce").astype(float) if name in summary else math.nan
    read["knee"] = summary["knee"].fillna(False).astype(bool) if "knee" in summary else False
    others = summary.drop(columns=[name for name in read if name in summary])
    frame = pandas.concat([others, pandas.DataFrame(read, index=summary.index)], axis=1)
    frame["aa"] = frame["role"] == AA
    frame["series"] = frame["features"].where(frame["features"] != "", BASELINE)
    frame.loc[frame["aa"], "series"] += " A/A"
    frame.loc[frame["profiled"] != "", "series"] += " profiled"
    unclear = frame.loc[frame.duplicated([*CONTEXT, "series", "batch"]), "series"].unique()
    frame["series"] = [
        without_context(cell).replace(f" b{batch:.0f}", "", 1) if unsure else series
        for cell, batch, series, unsure in zip(
            frame["cell"], frame["batch"], frame["series"], frame["series"].isin(unclear), strict=True
        )
    ]
    plain = frame["aa"] | (frame["series"] == BASELINE)
    combined = frame["features"].str.contains("+", regex=False)
    names = dict.fromkeys([*frame.loc[~plain & ~combined, "series"], *frame.loc[~plain & combined, "series"]])
    numbers = {name: number for number, name in enumerate(names)}
    frame["look"] = [numbers.get(name, -1) for name in frame["series"]]
    return frame


def _not_at_once(rows: "pandas.DataFrame") -> str:
    """A remark for cells with an interleaved baseline: it is not the baseline row in the plot."""
    if rows["baseline_beside_s"].isna().all():
        return ""
    return (
        "Cells ran one after another; speed-ups compare each cell with its interleaved baseline, "
        "not with the baseline row shown here."
    )


def _speed_kind(low: float, high: float, called: str) -> tuple[str, str]:
    """Words and colour of one speed-up: its verdict, or that there is none.

    `low` and `high` are NaN if there is no interval.
    """
    if called == paired.FASTER:
        return "faster", FASTER
    if called == paired.SLOWER:
        return "slower", SLOWER
    if called != paired.UNKNOWN:
        return WITHIN_NOISE, UNCLEAR
    if not (low == low and high == high):
        return "no interval\n(one measurement)", NO_INTERVAL
    return "not judged\n(noise unknown)", UNCLEAR


def _fastest(rows: "pandas.DataFrame") -> float:
    """The largest value on a speed-up axis; at least 1, the baseline."""
    return max(1.0, float(rows[["speedup", "speedup_high"]].max(axis=None)))
