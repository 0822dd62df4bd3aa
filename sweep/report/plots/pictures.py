"""What features do to pictures: prompts × cells as one figure, with speed-up and what each picture breaks.

Drawn for models whose pictures can be checked. Reads the stored images of a sweep.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiling.plot_style import GREY
from sweep.analysis import image_metrics, image_pairs, prompt_checks, world_questions
from sweep.plan.cells import AA, Cell
from sweep.plan.plans import Plan
from sweep.report.plots import sheet
from sweep.report.plots.panels import BAD
from sweep.report.plots.sheet import font
from sweep.results.files import Unfit
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

PROMPTS, CELLS = 4, 8  # at most
NARROW = 0.9  # width of a cell in a column, inches
Row = Mapping[str, Any]
Key = tuple[int, int]


@dataclass(frozen=True)
class Column:
    """One cell: its heading; of each prompt and seed its picture and the first fact that this breaks, "" for none."""

    heading: str
    pictures: Mapping[Key, tuple["np.ndarray", str]]


def draw_pictures(
    folder: SweepFolder, plan: Plan, rows: Sequence[Row], results: Mapping[str, RunResult | None]
) -> "Figure | None":
    """The first prompts of the first baseline and of the cells that share it; None where no picture was checked."""
    checked = [row for row in rows if row.get("exact_rate") is not None and row["role"] != AA]
    if len(checked) < 2:
        return None
    baseline = plan.by_key[checked[0]["cell_key"]].baseline_key
    most = max(2, int(sheet.width_or(0.0) / NARROW)) if sheet.current().is_column else CELLS
    shown = [row for row in checked if plan.by_key[row["cell_key"]].baseline_key == baseline][:most]
    columns = [_column(folder, plan, row, results) for row in shown]
    keys = sorted(set.intersection(*(set(column.pictures) for column in columns)))[:PROMPTS] if columns else []
    first = results.get(shown[0]["cell_key"])
    if len(columns) < 2 or not keys or first is None:
        return None
    if sources := _sources(folder, plan.by_key[shown[0]["cell_key"]], first, keys):
        columns.insert(0, Column("before the edit", sources))
    return _figure(columns, keys, [first.prompts[key[0]] for key in keys])


def _column(folder: SweepFolder, plan: Plan, row: Row, results: Mapping[str, RunResult | None]) -> Column:
    cell = plan.by_key[row["cell_key"]]
    result = results.get(cell.key)
    found: dict[Key, tuple[np.ndarray, str]] = {}
    checks = prompt_checks.of(folder, cell, result) if result else None
    if result is None or checks is None:
        return Column("", found)
    for key, (file, digest) in image_pairs.stored_images(result).items():
        try:
            picture = image_metrics.read(folder.image_path(cell, file), digest).values
        except (ValueError, OSError, Unfit):
            continue
        wrong = checks.pictures[key].wrong if key in checks.pictures else ()
        found[key] = picture, wrong[0].text if wrong else ""
    speed = f"{row['speedup']:.2f}×" if row.get("speedup") and cell.features else ""
    exact = f"{row['exact_rate']:.0%} exact"
    name = "\n".join(textwrap.wrap(str(row["cell"]).replace("=", "= "), 18)).replace("= ", "=")
    return Column("\n".join(filter(None, (name, f"{speed}, {exact}" if speed else exact))), found)


def _sources(
    folder: SweepFolder, cell: Cell, result: RunResult, keys: Sequence[Key]
) -> "dict[Key, tuple[np.ndarray, str]]":
    """The pictures that a cell edits; {} where there are none."""
    asked = {(one.prompt_index, one.seed): one for one in result.requests if one.image}
    found = {key: world_questions.source_picture(folder, cell, result, asked[key]) for key in keys}
    whole = {key: (picture, "") for key, picture in found.items() if picture is not None}
    return whole if len(whole) == len(keys) else {}


def _figure(columns: Sequence[Column], keys: Sequence[Key], prompts: Sequence[str]) -> "Figure":
    from matplotlib.figure import Figure

    column = sheet.current().is_column
    wide = sheet.width_or(2.3 + 1.45 * len(columns))
    tall = 0.5 + 0.85 * len(keys) if column else 0.9 + 1.75 * len(keys)
    figure = Figure(figsize=(wide, tall), layout="constrained")
    grid = figure.subplots(len(keys), len(columns), squeeze=False)
    for line, (key, prompt) in enumerate(zip(keys, prompts, strict=True)):
        for axes, shown in zip(grid[line], columns, strict=True):
            picture, wrong = shown.pictures[key]
            axes.imshow(picture, cmap="gray", interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            for edge in axes.spines.values():
                edge.set(visible=True, color=BAD if wrong else GREY, linewidth=2.5 if wrong else 0.6)
            if wrong:
                axes.set_xlabel(
                    "\n".join(textwrap.wrap(wrong, 16 if column else 24)[:2]), color=BAD, fontsize=font(7.5)
                )
            if line == 0:
                heading = "\n".join(textwrap.wrap(shown.heading, 12)) if column else shown.heading
                axes.set_title(heading, fontsize=font(8.5))
        words = "\n".join(textwrap.wrap(prompt, 14 if column else 30)[:6])
        grid[line][0].set_ylabel(words, rotation=0, ha="right", va="center", fontsize=font(8), labelpad=6)
    return figure
