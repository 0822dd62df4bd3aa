"""The compatibility matrix as the page shows it: colour is speed, border and sign are status, hatching is noise.

Values for the template. `sweep.report.matrix` decides which rows go where, report.css how a step looks.
"""

import math
from collections.abc import Sequence
from typing import Any

from sweep.analysis.paired import FASTER, SLOWER
from sweep.report.matrix import Matrix, short_reason
from sweep.report.page.said import gain_of, times
from sweep.report.page.table import FOLDED
from sweep.report.words import Row, number, quality_text, text

MATRICES = 12
FEATURES = 30  # rows of one matrix
LARGER_SETS = 50  # combinations of three or more listed below a matrix
ALL_SETTINGS = 3  # rows in one field of a matrix
STEPS = 4
"""Steps of colour on either side of 1."""

LEAST_REACH = 1.25
"""The scale reaches at least this speed-up, so that differences of a few per cent stay pale."""

SIGNS = {"PASS": "✓", "WARN": "!", "FAIL": "✗", "ERROR": "✗", "NOT RUN": "…", "SKIP": "–"}


def views(found: Sequence[Matrix]) -> list[dict[str, Any]]:
    """Values of the first MATRICES matrices, all with one scale of colours."""
    reach = reach_of(found)
    return [_matrix(matrix, reach) for matrix in found[:MATRICES]]


def reach_of(found: Sequence[Matrix]) -> float:
    """The largest speed-up or slow-down of all matrices, as a ratio above 1: where the scale of colours ends."""
    rows = (row for matrix in found for part in (*matrix.fields.values(), matrix.larger) for row in part)
    ratios = [ratio for row in rows if (ratio := number(row, "speedup")) and math.isfinite(ratio) and ratio > 0]
    return max([LEAST_REACH, *(max(ratio, 1 / ratio) for ratio in ratios)])


def step_of(speedup: float, reach: float) -> int:
    """Colour of a speed-up, from -STEPS (slow) over 0 (as the baseline) to STEPS (fast); even on a log scale."""
    share = math.log(speedup) / math.log(reach)
    return max(-STEPS, min(STEPS, round(share * (STEPS + 0.49))))


def legend(found: Sequence[Matrix]) -> dict[str, Any]:
    """Ends of the scale, and which signs and hatching occur."""
    reach = reach_of(found)
    rows = [row for matrix in found[:MATRICES] for part in (*matrix.fields.values(), matrix.larger) for row in part]
    statuses = {text(row, "status") for row in rows}
    return {
        "steps": list(range(-STEPS, STEPS + 1)),
        "fast": f"{reach:.2f}×",
        "uncertain": any(uncertain(row) for row in rows),
        "signs": [(status, sign) for status, sign in SIGNS.items() if status in statuses],
        "gains": any(number(row, "interaction_gain") is not None for row in rows),
    }


def _matrix(matrix: Matrix, reach: float) -> dict[str, object]:
    """Rows of the lower triangle: each pair once, single features on the diagonal."""
    names = matrix.features[:FEATURES]
    lines = []
    for i, first in enumerate(names):
        found = [matrix.field(first, second) for second in names[: i + 1]]
        fields = [
            {
                "entries": [_entry(row, matrix, reach) for row in part[:ALL_SETTINGS]],
                "left_out": max(0, len(part) - ALL_SETTINGS),
            }
            for part in found
        ]
        lines.append({"name": first, "fields": fields, "empty": len(names) - 1 - i})
    larger = sorted(matrix.larger, key=lambda row: -(number(row, "speedup") or 0.0))
    return {
        "title": matrix.title,
        "names": names,
        "features_left_out": len(matrix.features) - len(names),
        "lines": lines,
        "larger": [_entry(row, matrix, reach) for row in larger[:LARGER_SETS]],
        "larger_left_out": max(0, len(larger) - LARGER_SETS),
    }


def _entry(row: Row, matrix: Matrix, reach: float) -> dict[str, Any]:
    """A feature set as a field of the matrix."""
    ratio, status = number(row, "speedup"), text(row, "status")
    return {
        "label": text(row, "cell"),
        "features": text(row, "features"),
        "anchor": text(row, "anchor"),
        "status": status,
        "sign": SIGNS.get(status, ""),
        "ranks": text(row, "ranks") if (number(row, "ranks") or 1) > 1 else "",
        "speedup": times(row, "speedup"),
        "step": step_of(ratio, reach) if ratio and ratio > 0 else None,
        "uncertain": uncertain(row),
        "interval": interval(row),
        "quality": quality(row),
        "gain": gain_of(row, matrix.gain(row)),
        "short": short_reason(row) if ratio is None else "",
        "folded": status in FOLDED,
    }


def interval(row: Row) -> str:
    """`1.38–1.47`; "" where none is known."""
    low, high = number(row, "speedup_low"), number(row, "speedup_high")
    return "" if low is None or high is None else f"{low:.2f}–{high:.2f}"


def quality(row: Row) -> str:
    """`37.5 dB`, `identical`; "" where images were not compared."""
    return "" if text(row, "status") in FOLDED else quality_text(row)


def uncertain(row: Row) -> bool:
    """Whether it has a speed-up that is neither faster nor slower: within noise, or of unknown noise."""
    return number(row, "speedup") is not None and text(row, "called") not in (FASTER, SLOWER)
