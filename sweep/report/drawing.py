"""Which plots a stored sweep has, and what is written of its loads. Pure apart from the files that it writes."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.analysis import columns, pixel_gates
from sweep.analysis.pixel_gates import Pixels
from sweep.plan.cells import model_and_engine
from sweep.report import bench_json, load_cells
from sweep.report.limit_cells import LimitCell
from sweep.report.plots.sheet import SCREEN, Sheet
from sweep.report.stored import Stored

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

THROUGHPUT = ("concurrency", "rate", "batch_under_load")
"""Plots that show what loads achieve."""

LATENCY = ("concurrency", "rate", "queueing", "latency_cdf", "requests")
"""Plots that show how long their requests take."""

FROM_RESULTS = ("queueing", "latency_cdf", "requests", "pictures")
"""Plots that need more than the rows of summary.csv: single requests, or images."""

OF_LIMITS = ("prediction", "roofline", "ledger")
"""Plots of predictions and limits, which need report.json."""


def names() -> tuple[str, ...]:
    """Every plot there is."""
    from sweep.report.plots.draw import PLOTS

    return (*PLOTS, *FROM_RESULTS, *OF_LIMITS)


def draw(
    stored: Stored,
    only: Collection[str] | None = None,
    on: Sheet = SCREEN,
    captioned: Callable[[str, str], None] = lambda name, caption: None,
) -> list[Path]:
    """Draw the plots that have something to show, or those of them in `only`; returns their files.

    `on` is what they are drawn for; `captioned` gets the name and the small print of each.
    """
    from sweep.report.plots.draw import draw_all

    return draw_all(_frame(stored), stored.folder.plots_path(), stored.note, _more(stored), only, on, captioned)


def draw_rows(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    note: str,
    only: Collection[str] | None = None,
    on: Sheet = SCREEN,
    captioned: Callable[[str, str], None] = lambda name, caption: None,
    limits: Sequence[LimitCell] = (),
) -> list[Path]:
    """Draw into `folder` what rows of summary.csv show on their own; knees and quality gates are not known there."""
    import pandas

    from sweep.report.plots.draw import draw_all

    return draw_all(pandas.DataFrame(rows), folder, note, of_limits(limits), only, on, captioned)


def _frame(stored: Stored) -> "pandas.DataFrame":
    """The rows, with whether each is a knee, and its quality gates."""
    import pandas

    rows = stored.summary.rows
    knees = {load_cells.knee_key(ladder) for ladder in stored.summary.ladders}
    frame = pandas.DataFrame([{**row, **_gates(stored, row)} for row in rows], columns=[*_COLUMNS, *pixel_gates.LIMITS])
    return frame.assign(knee=frame["cell_key"].isin(knees))


_COLUMNS = (*columns.NAMES, "findings")


def _gates(stored: Stored, row: Mapping[str, Any]) -> dict[str, float]:
    cell = stored.plan.by_key[row["cell_key"]]
    return pixel_gates.limits(cell.chosen, stored.summary.pixels.get(model_and_engine(cell), Pixels()))


def _more(stored: Stored) -> "dict[str, Callable[[], Figure | None]]":
    """The plots of FROM_RESULTS."""
    from sweep.report.plots.pictures import draw_pictures
    from sweep.report.plots.queues import draw_queues
    from sweep.report.plots.requests import draw_latency_cdf, draw_requests

    return {
        "queueing": lambda: draw_queues(stored.summary.queues),
        "latency_cdf": lambda: draw_latency_cdf(stored.loads),
        "requests": lambda: draw_requests(stored.loads, stored.summary.ladders),
        "pictures": lambda: draw_pictures(stored.folder, stored.plan, stored.summary.rows, stored.results),
        **of_limits(stored.limits),
    }


def of_limits(cells: Sequence[LimitCell]) -> "dict[str, Callable[[], Figure | None]]":
    """The plots of OF_LIMITS."""
    from sweep.report.plots.limits import draw_ledger, draw_prediction, draw_roofline

    drawers = draw_prediction, draw_roofline, draw_ledger
    return {name: functools.partial(one, cells) for name, one in zip(OF_LIMITS, drawers, strict=True)}


def write_bench(stored: Stored) -> list[Path]:
    """Write bench.json of every engine start under load; returns the files."""
    found = []
    for cell in stored.plan.cells:
        result = stored.results.get(cell.key)
        if cell.under_load and result is not None and result.requests:
            found.append(stored.folder.save_bench(cell, bench_json.document(cell, result)))
    return found
