"""Comparisons and rankings as headings and rows of plain text, shared by the text and markdown renderers.

Decides which rows are shown and in which order. Knows no markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.analysis.paired import UNKNOWN
from sweep.compare import decide, describe
from sweep.compare.best import Ranked, Ranking
from sweep.compare.decide import Comparison, Matched
from sweep.findings import PASS
from sweep.report import words


@dataclass(frozen=True)
class Line:
    """One row. `style`: bad, doubtful, good or ""."""

    values: tuple[str, ...]
    style: str = ""


COMPARED = ("cell", "speed", "status", "what changed")
RANKED = ("", "cell", "speed-up", "quality", "memory", "images/s", "status")


def changed_and_rest(comparison: Comparison) -> tuple[list[Line], list[Line]]:
    """Rows that changed, the gravest first, and the others."""
    reports = (comparison.before, comparison.after)
    full = describe.several_contexts(reports)
    rows = describe.ordered(comparison.matched)
    changed = [_line(one, full) for one in rows if one.changed]
    return changed, [_line(one, full) for one in rows if not one.changed and not one.before.is_repeat]


def only_in(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Cells in only one report: that report's name, and their names with status."""
    full = describe.several_contexts((comparison.before, comparison.after))
    sides = ((comparison.before, comparison.only_before), (comparison.after, comparison.only_after))
    return [
        (
            report.name,
            [f"{describe.label(cell, full)} ({cell.status}{', profiled' * bool(cell.profiled)})" for cell in cells],
        )
        for report, cells in sides
        if cells
    ]


def ranked_rows(ranking: Ranking, reports: int) -> list[Line]:
    """One row for each ranked cell, with its report if there are several."""
    return [_ranked(place, one, reports > 1) for place, one in enumerate(ranking.ranked, 1)]


def _line(one: Matched, full: bool) -> Line:
    worse, better = one.load is not None and one.load.worse, one.load is not None and one.load.better
    doubtful = one.speed.verdict in decide.DOUBTFUL or one.doubt or one.status or one.quality or worse
    good = one.speed.verdict == decide.FASTER or better
    style = "bad" if one.failures else "doubtful" if doubtful else "good" if good else ""
    label = describe.label(one.after, full)
    values = label, describe.speed_words(one.speed), describe.status_words(one), describe.detail_words(one)
    return Line(values, style)


def _ranked(place: int, one: Ranked, name_report: bool) -> Line:
    cell = one.cell
    row: dict[str, object] = {
        "speedup": one.speedup,
        "speedup_low": cell.speedup["low"],
        "speedup_high": cell.speedup["high"],
        **cell.quality,
    }
    called = cell.speedup["called"]
    verdict = "" if one.certain else " noise unknown" if called == UNKNOWN else f" {called}"
    return Line(
        (
            str(place),
            f"{cell.label} [{one.report}]" if name_report else cell.label,
            f"{words.speedup_text(row)}{verdict}",
            words.quality_text(row),
            words.digits(cell.metrics["peak_memory_gb"], "GB"),
            words.digits(cell.metrics["images_per_s"]),
            f"{cell.status}: {cell.reason}" if cell.status != PASS and cell.reason else cell.status,
        ),
        "good" if one.certain else "",
    )


def cut(lines: Sequence[Line], limit: int) -> tuple[Sequence[Line], int]:
    """The first `limit` lines, and how many are left out."""
    return lines[:limit], max(0, len(lines) - limit)
