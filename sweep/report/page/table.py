"""The page's table of cells: which columns, in which order, what a field says, and what is folded away.

Rows of summary.csv in, values for the template out. A baseline's own speed-up of 1 and quality are no reason for a
column.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweep.analysis import columns
from sweep.analysis.column import QUALITY, SPEED, Column
from sweep.findings import NOT_RUN, SKIP, STATUSES
from sweep.plan.cells import BASELINE
from sweep.report import words
from sweep.report.page import said
from sweep.report.page.said import Said
from sweep.report.words import Row, digits, number, text

ROWS = 2000
LABELS = 40  # of folded cells with one reason
FOLDED = (NOT_RUN, SKIP)
"""Statuses of cells without a row of their own: nothing was measured."""

FIRST = (
    *("speedup", "called", "gain_over_base", "latency_mean_s", "baseline_latency_s", "psnr_db", "ssim"),
    *(
        "ranks",
        "bottleneck",
        "interaction_gain",
        "peak_memory_gb",
        "reason",
        "latency_p95_s",
        "ttft_mean_s",
        "images_per_s",
    ),
    *("images_per_s_per_gpu", "energy_j_per_image", "clip_similarity", "mean_diff"),
)
"""Columns that answer a reader's first questions come first, visible without scrolling. The others follow in the order
of summary.csv."""

HEADINGS = {"baseline_latency_s": "its baseline, s", "psnr_db": "quality, PSNR"}
"""Headings that only this table needs."""


def in_order(first: Sequence[str], shown: Callable[[Column], str]) -> list[Column]:
    """Columns for which `shown` is not empty: those named in `first`, in that order, then the rest."""
    known = [columns.BY_NAME[name] for name in first]
    return [column for column in dict.fromkeys((*known, *columns.COLUMNS)) if shown(column)]


def heading(column: Column) -> str:
    """The heading of a column in the table; "" if it is not shown there."""
    return HEADINGS.get(column.name, column.heading)


_SAID: Mapping[str, Callable[[Row], Said]] = {
    "speedup": lambda row: Said(said.speedup_words(row), muted=said.verdict_of(row).muted),
    "called": said.verdict_of,
    "gain_over_base": said.over_base_of,
    "interaction_gain": said.gain_of,
    "ranks": lambda row: Said(text(row, "ranks")),
    "bottleneck": lambda row: Said(words.bottleneck_text(row)),
    "psnr_db": lambda row: Said(words.quality_text(row)),
    "limit_share": lambda row: Said(words.percent(number(row, "limit_share"))),
}
"""Columns whose fields say more than a number."""


def _field(column: Column, row: Row) -> Said:
    """The text of a row in this column of the table."""
    if column.name in _SAID:
        return _SAID[column.name](row)
    value = number(row, column.name)
    return Said(text(row, column.name) if value is None else digits(value))


def view(rows: Sequence[Row]) -> dict[str, Any]:
    """Headings and lines of all rows but those that are folded away. Rows have an `anchor`, "" without a section."""
    ran = [row for row in rows if text(row, "status") not in FOLDED]
    judged = [row for row in ran if text(row, "role") != BASELINE]
    shown = [
        column
        for column in in_order(FIRST, heading)
        if any(_field(column, row).text for row in (judged if column.kind in (SPEED, QUALITY) else ran))
    ]
    numeric = {column.name: any(number(row, column.name) is not None for row in ran) for column in shown}
    several = len({text(row, "model") for row in rows}) > 1
    lines = []
    for row in ran:
        status, label = text(row, "status"), text(row, "cell")
        model = text(row, "model") if several else ""
        fields = [
            (_field(column, row), _sort_value(row, column.name) if numeric[column.name] else None) for column in shown
        ]
        lines.append(
            {
                "label": said.without_model(label, model),
                "model": model,
                "anchor": row["anchor"],
                "status": (status, STATUSES.index(status) if status in STATUSES else -1),
                "doubt": text(row, "invalid_reason"),
                "fields": fields,
            }
        )
    return {
        "columns": [(heading(column), numeric[column.name]) for column in shown],
        "several_models": several,
        "lines": lines,
    }


def folded(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Cells that were not run or skipped, by status and reason."""
    found = []
    for status in FOLDED:
        by_reason: dict[str, list[Row]] = {}
        for row in rows:
            if text(row, "status") == status:
                by_reason.setdefault(text(row, "reason") or "no reason given", []).append(row)
        reasons = [
            {"reason": reason, "count": len(part), "cells": part[:LABELS], "left_out": max(0, len(part) - LABELS)}
            for reason, part in sorted(by_reason.items(), key=lambda group: -len(group[1]))
        ]
        if reasons:
            found.append({"status": status, "count": sum(map(len, by_reason.values())), "reasons": reasons})
    return found


def _sort_value(row: Row, name: str) -> str:
    """The sort value of a row in a numeric column; "" if there is no number."""
    value = number(row, name)
    return "" if value is None else "1e999" if value == math.inf else f"{value:.9g}"
