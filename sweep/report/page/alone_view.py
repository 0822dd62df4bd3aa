"""Each feature alone, with a line per feature and a column per context: what most readers look for first.

Values for the template. `sweep.report.matrix` decides which rows share a context.
"""

from collections.abc import Sequence
from typing import Any

from sweep.findings import PASS
from sweep.report.matrix import Matrix
from sweep.report.page.matrix_view import SIGNS, interval, quality, uncertain
from sweep.report.page.said import times
from sweep.report.page.table import FOLDED
from sweep.report.words import Row, number, text

CONTEXTS, FEATURES = 4, 20
"""The most columns and lines; a larger sweep shows only its matrices."""


def view(found: Sequence[Matrix]) -> dict[str, Any] | None:
    """The table; None if no single feature ran, or if it would not fit a screen."""
    if not 0 < len(found) <= CONTEXTS:
        return None
    by_name: dict[str, list[Row | None]] = {}
    for place, matrix in enumerate(found):
        for name in matrix.features:
            rows = matrix.field(name, name)
            by_name.setdefault(name, [None] * len(found))[place] = rows[0] if len(rows) == 1 else None
    ran = {name: rows for name, rows in by_name.items() if any(row and number(row, "speedup") for row in rows)}
    lines = [_line(name, rows) for name, rows in ran.items()]
    return (
        {"columns": _apart([matrix.title for matrix in found]), "lines": lines} if 0 < len(lines) <= FEATURES else None
    )


def _apart(titles: Sequence[str]) -> list[str]:
    """Titles without what they all share; "speed-up" for a single one."""
    parts = [title.split(" · ") for title in titles]
    alike = {part for part in parts[0] if all(part in other for other in parts[1:])}
    return [" · ".join(part for part in own if part not in alike) or "speed-up" for own in parts]


def _line(name: str, rows: Sequence[Row | None]) -> dict[str, Any]:
    there = [row for row in rows if row is not None]
    most, ranks = (max((int(number(row, of) or 0) for row in there), default=0) for of in ("gpus", "ranks"))
    needs = ", ".join(filter(None, (_counted(most, "device"), f"{_counted(ranks, 'rank')} ran" if ranks else "")))
    return {"name": name, "needs": needs, "fields": [row and _field(row) for row in rows]}


def _counted(number_of: int, noun: str) -> str:
    """`2 devices`; "" for 0."""
    return f"{number_of} {noun}{'' if number_of == 1 else 's'}" if number_of else ""


def _field(row: Row) -> dict[str, Any]:
    status = text(row, "status")
    return {
        "anchor": "" if status in FOLDED else text(row, "anchor"),
        "status": status,
        "sign": SIGNS.get(status, ""),
        "speedup": times(row, "speedup"),
        "interval": interval(row),
        "noise": uncertain(row),
        "quality": quality(row),
        "reason": "" if status == PASS else text(row, "reason"),
    }
