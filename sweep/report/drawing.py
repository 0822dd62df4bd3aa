"""Which plots a stored sweep has."""

from collections.abc import Collection
from pathlib import Path

from sweep.analysis import columns
from sweep.report import load_cells
from sweep.report.stored import Stored


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
