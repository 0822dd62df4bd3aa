"""The page of a published sweep: of its summary.csv, report.json and manifest.json alone.

    python -m sweep.report.page.published DIR PAGE

A published sweep has neither a plan nor its cells' folders, so the page has no images, timelines and configurations.
"""

import argparse
import csv
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from profiling.atomic_write import write_atomic
from sweep.analysis import limits, paired
from sweep.analysis.columns import NAMES
from sweep.analysis.table import unnamed
from sweep.plan.cells import BASELINE, FEATURE
from sweep.report import conclusions, drawing, limit_cells
from sweep.report.conclusion import Conclusion
from sweep.report.limit_cells import LimitCell
from sweep.report.page import environment, limit_view, timeline_view
from sweep.report.page.html import CellView, ReportContext, phases_of, render, with_section
from sweep.report.words import Row, baseline_latency_s, number, text

NEEDED = ("summary.csv", "report.json", "manifest.json")


def page(folder: Path, plots: bool = True) -> str:
    """The page as text. Raises OSError without one of the files, ValueError when one cannot be read."""
    rows = _rows(folder / "summary.csv")
    known = limit_cells.published(folder, rows)
    rows = with_limits(rows, known)
    report, manifest = (json.loads((folder / name).read_text(encoding="utf-8")) for name in NEEDED[1:])
    rows = with_ranks(rows, report["cells"])
    sweep = report["sweep"]
    with tempfile.TemporaryDirectory() as scratch:
        drawn = drawing.draw_rows(Path(scratch), rows, sweep.get("note") or "", limits=known) if plots else []
        concluded = _concluded(report) or conclusions.conclude(
            _with_p_values(rows), limits=known, random_weights=bool(sweep.get("random_weights"))
        )
        section = limit_view.view(known, conclusions.winners(concluded))
        return render(_context(rows, sweep, report["cells"], manifest, drawn, [one.text for one in concluded], section))


def _concluded(report: Mapping[str, Any]) -> tuple[Conclusion, ...]:
    """The conclusions that are stored."""
    stored = report.get("conclusions", ())
    return tuple(Conclusion(one["code"], one["text"], tuple(one["cells"])) for one in stored)


def with_limits(rows: Sequence[Row], known: Sequence[LimitCell]) -> list[Row]:
    """Rows of an earlier version with the columns of predictions and limits."""
    found = {one.key: limits.columns(one.found) for one in known if not text(one.row, "profiled")}
    return [{**row, **found.get(text(row, "cell_key"), {})} for row in rows]


def with_ranks(rows: Sequence[Row], cells: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows of a version that did not store how many ranks ran, from their evidence."""
    counted = {one["cell_key"]: len(one["evidence"]["ranks"]) for one in cells}
    return [{**row, "ranks": text(row, "ranks") or counted.get(text(row, "cell_key")) or None} for row in rows]


def _with_p_values(rows: Sequence[Row]) -> list[Row]:
    """Rows of a version that stored neither p-values nor conclusions: p-values from the intervals, as if normal."""
    judged = [
        row for row in rows if text(row, "role") == FEATURE and text(row, "called") and number(row, "speedup_low")
    ]
    adjusted = dict(zip(map(id, judged), paired.holm([_p_value(row) for row in judged]), strict=True))
    return [dict(row) | {"p_holm": adjusted.get(id(row)), "valid": text(row, "valid") == "True"} for row in rows]


def _p_value(row: Row) -> float:
    """Two-sided p-value of no difference, from the ends of a 95 % interval of a ratio."""
    ratio, low, high = (math.log(number(row, name) or 1.0) for name in ("speedup", "speedup_low", "speedup_high"))
    return math.erfc(1.96 * abs(ratio) / max((high - low) / 2, 1e-12) / math.sqrt(2))


def _context(
    rows: Sequence[Row],
    sweep: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    manifest: Mapping[str, Any],
    plots: Sequence[Path],
    sentences: Sequence[str],
    told_limits: Mapping[str, Any] | None,
) -> ReportContext:
    models = ", ".join(sorted({text(row, "model") for row in rows}))
    by_key = {text(row, "cell_key"): row for row in rows}
    baselines = {one["cell_key"]: by_key.get(one.get("baseline_key", "")) for one in cells}
    shown = with_section(rows)
    return ReportContext(
        title=f"Sweep of {models}",
        command=str(manifest.get("command", "")),
        date=environment.moment(manifest.get("start")),
        environment=environment.described(manifest),
        note=sweep.get("note") or "",
        conclusions=tuple(sentences),
        cells=tuple(
            CellView(
                text(row, "cell"),
                text(row, "status"),
                row,
                baseline_phases_ms=phases_of(row, baselines.get(text(row, "cell_key"))),
                bottleneck=timeline_view.bottleneck_words(row, None),
                section=place in shown,
            )
            for place, row in enumerate(rows)
        ),
        plots=tuple(path for path in plots if path.suffix == ".svg"),
        limits=told_limits,
    )


def _rows(path: Path) -> list[Row]:
    """Rows of summary.csv with all columns of today; empty fields are None, as in a sweep's own rows."""
    with path.open(encoding="utf-8", newline="") as file:
        found = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    return [dict.fromkeys(NAMES) | row | {"features": unnamed(row["features"])} | _computed(row) for row in found]


def _computed(row: Row) -> dict[str, float | None]:
    """Fields that rows are compared by as numbers, and `baseline_latency_s`, which earlier versions did not write."""
    known = {"p_holm": number(row, "p_holm"), "speedup": number(row, "speedup")}
    return known if text(row, "role") == BASELINE else known | {"baseline_latency_s": baseline_latency_s(row)}


def main(given: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 when the folder is not a published sweep."""
    parser = argparse.ArgumentParser(prog="python -m sweep.report.page.published", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help=f"a folder with {', '.join(NEEDED)}")
    parser.add_argument("page", type=Path, metavar="PAGE", help="the file to write, e.g. report.html")
    arguments = parser.parse_args(given)
    try:
        write_atomic(arguments.page, page(arguments.folder))
    except (OSError, ValueError, KeyError) as error:
        print(f"sweep.report.page: {arguments.folder} is not a published sweep: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
