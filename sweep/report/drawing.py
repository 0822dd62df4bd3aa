"""Which plots a stored sweep has, and what is written of its loads. Pure apart from the files that it writes."""

from collections.abc import Collection
from pathlib import Path

from sweep.analysis import columns
from sweep.report import bench_json, load_cells
from sweep.report.stored import Stored

THROUGHPUT = ("concurrency", "rate", "batch_under_load")
"""Plots that show what loads get done."""

LATENCY = ("concurrency", "rate", "latency_cdf", "requests")
"""Plots that show how long their requests take."""


def draw(stored: Stored, only: Collection[str] | None = None) -> list[Path]:
    """Draw the plots that have something to show, or those of them in `only`; returns their files, PNG and SVG."""
    import pandas

    from sweep.report.plots.draw import draw_all
    from sweep.report.plots.pictures import draw_pictures
    from sweep.report.plots.requests import draw_latency_cdf, draw_requests

    rows, ladders = stored.summary.rows, stored.summary.ladders
    knees = {load_cells.knee_key(ladder) for ladder in ladders}
    frame = pandas.DataFrame([dict(row) for row in rows], columns=[*columns.NAMES, "findings"])
    more = {
        "latency_cdf": lambda: draw_latency_cdf(stored.loads),
        "requests": lambda: draw_requests(stored.loads, ladders),
        "pictures": lambda: draw_pictures(stored.folder, stored.plan, rows, stored.results),
    }
    frame = frame.assign(knee=frame["cell_key"].isin(knees))
    return draw_all(frame, stored.folder.plots_path(), stored.note, more, only)


def write_bench(stored: Stored) -> list[Path]:
    """Write bench.json of every engine start under load; returns the files."""
    found = []
    for cell in stored.plan.cells:
        result = stored.results.get(cell.key)
        if cell.under_load and result is not None and result.requests:
            found.append(stored.folder.save_bench(cell, bench_json.document(cell, result)))
    return found
