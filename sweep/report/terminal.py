"""Rows of summary.csv as text for people: the words of one number, and the table at a sweep's end.

The words serve the terminal and the HTML page alike. Knows nothing of files or of how rows came about.
"""

import re
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweep.findings import IMPRECISE, MORE_STARTS, SKIP, gravity, texts
from sweep.report.words import Row, bottleneck_text, digits, number, quality_text, said, speedup_text, text

STATUS_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red", "ERROR": "bold red", "SKIP": "dim"}

WIDE = 140  # terminal columns from which the evidence fits into the table

LONG = 300  # rows above which the table shows only cells that want attention, and the first of the others


def breakable(label: str, longest: int = 12) -> str:
    """A label with line breaks behind plus and equals signs in words that a narrow column would cut anywhere."""
    return " ".join(re.sub(r"([+=])(?=.)", r"\1\n", w) if len(w) > longest else w for w in label.split(" "))


def _telling(rows: Sequence[Row]) -> list[Row]:
    """All rows of a sweep of usual size; of a long one LONG, those that failed or warn first."""
    if len(rows) <= LONG:
        return list(rows)
    return sorted(rows, key=lambda row: -gravity(text(row, "status")))[:LONG]


def summary_table(rows: Sequence[Row], width: int) -> RenderableType:
    """The table at the end of a sweep, for a terminal `width` columns wide; skipped cells are not in it.

    Below it stand the reason of every cell that is not PASS and the notes, cells with the same one together, and,
    where the terminal is too narrow for its column, the evidence of single cells and of those that failed; the rest
    is in summary.csv and report.html. Labels are shown as they are, never read as markup.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("cell", overflow="fold", min_width=12)
    table.add_column("status", no_wrap=True)
    for heading, least in (("speed-up", 11), ("latency s", 7), ("img/s", 5), ("quality", 9)):
        table.add_column(heading, justify="right", overflow="fold", min_width=least)
    table.add_column("bottleneck", overflow="fold", min_width=12)
    wide = width >= WIDE
    if wide:
        table.add_column("evidence")  # gives way to the others; each is cut to one line
    shown_rows = _telling(rows)
    for row in shown_rows:
        status = text(row, "status")
        if status == SKIP:
            continue
        values = (
            speedup_text(row),
            digits(number(row, "latency_mean_s")),
            digits(number(row, "images_per_s")),
            quality_text(row),
            bottleneck_text(row),
        )
        shown = Text(status + (" ?" if text(row, "invalid_reason") else ""), style=STATUS_STYLES.get(status, ""))
        label = text(row, "cell")
        cells = [Text(label if wide else breakable(label)), shown, *(Text(value) for value in values)]
        evidence = Text(text(row, "evidence"), no_wrap=True, overflow="ellipsis")
        table.add_row(*cells, *([evidence] if wide else []))
    below = [*_reasons(shown_rows), *_evidence(shown_rows, wide), *_small_print(rows, len(shown_rows), wide)]
    return Group(table, *below) if table.row_count else Group(*below)


def _reasons(rows: Sequence[Row]) -> list[Text]:
    """`FAIL  ring b2: …`: why a cell is not PASS or not to be trusted, and notes; cells with the same one together."""
    found = []
    for row in rows:
        status, doubted = text(row, "status"), text(row, "invalid_reason")
        reason = "" if status == "PASS" else text(row, "reason")  # of a PASS the columns say it
        found += [
            (text(row, "cell"), status, reason),
            (text(row, "cell"), status, f"not to be trusted: {doubted}" if doubted else ""),
            (text(row, "cell"), "note", texts(note for note in said(row, "notes") if note.code not in _COUNTED)),
        ]
    return together(found)


def together(found: Iterable[tuple[str, str, str]]) -> list[Text]:
    """`SKIP  ring b1, ring b2: requires 4 GPUs`, of (label, word, why); cells of the same on one line, no why none."""
    told: dict[tuple[str, str], list[str]] = {}
    for label, word, why in found:
        if why:
            told.setdefault((word, why), []).append(label)
    return [
        Text.assemble((f"{word:5} ", STATUS_STYLES.get(word, "dim")), (", ".join(labels), "bold"), f": {why}")
        for (word, why), labels in told.items()
    ]


_COUNTED = (IMPRECISE, MORE_STARTS)
"""Codes of notes that `_small_print` counts."""


def _evidence(rows: Sequence[Row], wide: bool) -> list[Text]:
    """The whole evidence of a single cell, and of those that failed where the table does not show it."""
    return [
        Text.assemble(("      " + text(row, "cell"), "bold"), (f": {text(row, 'evidence')}", "dim"))
        for row in rows
        if text(row, "evidence") and (len(rows) == 1 or (text(row, "status") == "FAIL" and not wide))
    ]


def _small_print(rows: Sequence[Row], shown: int, wide: bool) -> list[Text]:
    lines = []
    codes = [note.code for row in rows for note in said(row, "notes") if note.code in _COUNTED]
    vague = len(codes)
    if vague:
        advice = "aa=3 repeat=auto measures more"
        if MORE_STARTS not in codes:
            advice = "more prompts, aa or max_repeat would tell more"
        known = "speed-up is" if vague == 1 else "speed-ups are"
        lines.append(f"{vague} {known} known less well than asked (precision): {advice}.")
    if any(number(row, "baseline_beside_s") is not None for row in rows):
        lines.append("Speed-ups are against the baseline measured beside each cell, batch by batch, not its row.")
    if any(text(row, "profiled") for row in rows):
        lines.append("Profiled cells say where time goes; how much it is, profiling changes: speed is not judged.")
    if shown < len(rows):
        lines.append(f"{len(rows) - shown:,} of {len(rows):,} cells are not shown; summary.csv has them all.")
    if len(rows) > 1 and not wide and any(text(row, "evidence") for row in rows):
        lines.append(f"Evidence: summary.csv, report.html, or a terminal of {WIDE} columns.")
    return [Text(line, style="dim") for line in lines]
