"""How a notebook shows tables: as HTML in which nothing that a user typed is markup or mathematics.

Rows in, text out. Knows no files.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from profiling.printing import clean
from sweep.analysis import options
from sweep.findings import STATUSES
from sweep.plan.cells import BASELINE
from sweep.report.words import (
    bottleneck_text,
    cells_words,
    latency_text,
    quality_text,
    speedup_text,
    text,
    verdict_text,
)

MOST_ROWS = 60
"""Rows that are shown; a sweep can have thousands of cells."""


def summary_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of a table (`analysis.table`): cell, options, status, speed-up, latency, quality and bottleneck."""
    varied = options.names(rows)
    headings = ["cell", *(name.removeprefix(options.PREFIX) for name in varied)]
    headings += ["status", "speed-up (95 %)", "verdict", "latency, s", "quality", "bottleneck", "reason"]
    lines = [
        [
            *(text(row, name) for name in ("cell", *varied, "status")),
            speedup_text(row).replace("x", "×"),
            "" if text(row, "features") == BASELINE else verdict_text(row),
            latency_text(row),
            quality_text(row),
            bottleneck_text(row),
            "" if text(row, "status") == "PASS" else text(row, "reason"),
        ]
        for row in rows
    ]
    counts = {status: sum(text(row, "status") == status for row in rows) for status in STATUSES}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return table_html(headings, lines, f"{cells_words(len(rows))}: {said}" if said else "no cells")


def table_html(headings: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> str:
    """A table without the columns that are empty in every line. Everything is escaped, and MathJax skips it."""
    used = [n for n in range(len(headings)) if n == 0 or any(line[n] for line in lines)]
    head = "".join(f"<th>{_shown(headings[n])}</th>" for n in used)
    body = ["".join(f"<td>{_shown(line[n])}</td>" for n in used) for line in lines[:MOST_ROWS]]
    left = len(lines) - MOST_ROWS
    more = f"; {left:,} more rows are not shown" if left > 0 else ""
    return (
        f'<div class="tex2jax_ignore mathjax_ignore"><p>{_shown(caption + more)}</p><table>'
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{line}</tr>' for line in body)}</tbody></table></div>"
    )


def _shown(value: str) -> str:
    return escape(clean(value))
