"""The table at the end of a sweep, and the small print below it.

Rows of summary.csv in, text out. Knows nothing about files or how rows were computed.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from profiling.printing import clean
from sweep.analysis import family
from sweep.findings import FAIL, IMPRECISE, MORE_STARTS, PASS, SKIP, gravity, texts
from sweep.report.conclusions import Conclusion
from sweep.report.words import (
    AA_EXPLAINED,
    Row,
    bottleneck_text,
    digits,
    mentions_aa,
    number,
    quality_text,
    said,
    speedup_text,
    text,
)

STATUS_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red", "ERROR": "bold red", "SKIP": "dim"}

WIDE = 140  # a terminal this wide has room for evidence in the table

LONG = 300  # a longer table shows only this many rows: first what failed or warns, then the others


def literal(text: str, style: str = "", **options: Any) -> Text:
    """Text that is shown as it is: never markup, and with control characters visible. `options` as for rich's Text."""
    return Text(clean(text), style=style, **options)


def breakable(label: str, longest: int = 12) -> str:
    """A label with line breaks after plus and equals signs, in words too long for a narrow column."""
    return " ".join(re.sub(r"([+=])(?=.)", r"\1\n", w) if len(w) > longest else w for w in label.split(" "))


def _telling(rows: Sequence[Row]) -> list[Row]:
    """All rows, or the first LONG of a longer sweep, with those that failed or warn first."""
    if len(rows) <= LONG:
        return list(rows)
    return sorted(rows, key=lambda row: -gravity(text(row, "status")))[:LONG]


def summary_table(rows: Sequence[Row], width: int) -> RenderableType:
    """The table at the end of a sweep, for a terminal `width` columns wide, without skipped cells.

    Below it are notes and the reason for every cell that is not PASS; cells with the same text share a line. If the
    terminal is too narrow for the evidence column, the evidence of a single cell and of failed cells is there too;
    summary.csv and report.html have the rest. Labels are printed literally, never read as markup.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("cell", overflow="fold", min_width=12)
    table.add_column("status", no_wrap=True)
    for heading, least in (("speed-up", 11), ("latency s", 7), ("img/s", 5), ("quality", 9)):
        table.add_column(heading, justify="right", overflow="fold", min_width=least)
    table.add_column("bottleneck", overflow="fold", min_width=12)
    wide = width >= WIDE
    if wide:
        table.add_column("evidence")  # takes the room that is left; cut to one line
    shown_rows = _telling(rows)
    for row in shown_rows:
        status = text(row, "status")
        if status == SKIP:
            continue
        values = (
            speedup_text(row),
            digits(number(row, "latency_mean_s")),
            _rate(row),
            quality_text(row),
            bottleneck_text(row),
        )
        shown = Text(status + (" ?" if text(row, "invalid_reason") else ""), style=STATUS_STYLES.get(status, ""))
        label = text(row, "cell")
        cells = [literal(label) if wide else Text(breakable(clean(label))), shown, *map(literal, values)]
        evidence = literal(text(row, "evidence"), no_wrap=True, overflow="ellipsis")
        table.add_row(*cells, *([evidence] if wide else []))
    below = [*_reasons(shown_rows), *_evidence(shown_rows, wide), *_small_print(rows, len(shown_rows), wide)]
    return Group(table, *below) if table.row_count else Group(*below)


def _rate(row: Row) -> str:
    """Images a second; of texts, tokens a second."""
    return digits(number(row, "images_per_s")) or digits(number(row, "output_tokens_per_s"), "tok/s")


def _reasons(rows: Sequence[Row]) -> list[Text]:
    """`FAIL  ring b2: …`: why a cell is not PASS or not valid, and notes; cells with the same text share a line."""
    found = []
    for row in rows:
        status, doubted = text(row, "status"), text(row, "invalid_reason")
        reason = "" if status == PASS else text(row, "reason")  # the columns show why a cell is PASS
        found += [
            (text(row, "cell"), status, reason),
            (text(row, "cell"), status, f"not valid: {doubted}" if doubted else ""),
            (text(row, "cell"), "note", texts(note for note in said(row, "notes") if note.code not in _COUNTED)),
        ]
    return together(found)


def conclusions_table(found: Sequence[Conclusion]) -> RenderableType:
    """What the sweep found, a sentence each, as the last thing on the screen."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row()
    for number_of, one in enumerate(found):
        table.add_row("-", literal(one.text, "bold" if number_of == 0 else ""))
    return table


def together(found: Iterable[tuple[str, str, str]]) -> list[Text]:
    """`SKIP  ring b1, ring b2: requires 4 GPUs`, from (label, word, why); the same text is one line, no why is none."""
    labels_by_text: dict[tuple[str, str], list[str]] = {}
    for label, word, why in found:
        if why:
            labels_by_text.setdefault((word, why), []).append(label)
    return [
        Text.assemble(
            *((f"{word:5} ", STATUS_STYLES.get(word, "dim")), (clean(", ".join(labels)), "bold"), f": {clean(why)}")
        )
        for (word, why), labels in labels_by_text.items()
    ]


_COUNTED = (IMPRECISE, MORE_STARTS)
"""Codes of notes that are only counted, in the small print."""


def _evidence(rows: Sequence[Row], wide: bool) -> list[Text]:
    """The full evidence of a single cell, and of failed cells if the table does not show it."""
    return [
        Text.assemble(("      " + clean(text(row, "cell")), "bold"), (f": {clean(text(row, 'evidence'))}", "dim"))
        for row in rows
        if text(row, "evidence") and (len(rows) == 1 or (text(row, "status") == FAIL and not wide))
    ]


def _small_print(rows: Sequence[Row], shown: int, wide: bool) -> list[Text]:
    lines = []
    codes = [note.code for row in rows for note in said(row, "notes") if note.code in _COUNTED]
    vague = len(codes)
    if vague:
        advice = "add aa=3 repeat=auto to measure more"
        if MORE_STARTS not in codes:
            advice = "add prompts, or raise aa or max_repeat"
        lines.append(f"{vague} speed-up{'' if vague == 1 else 's'} missed the target precision; {advice}.")
    if any(number(row, "baseline_beside_s") is not None for row in rows):
        lines.append(
            "Speed-ups compare each cell with its interleaved baseline (run alongside it, batch by batch), "
            "not with the baseline's row."
        )
    judged = family.judged(rows)
    if judged > 1:
        lines.append(
            f"Each interval and verdict allows 5 % error for its cell alone; {judged} cells are judged. "
            "The column p_holm of summary.csv is adjusted for all of them."
        )
    if mentions_aa(rows):
        lines.append(AA_EXPLAINED)
    if any(text(row, "profiled") for row in rows):
        lines.append("Profiling shows where time goes but changes how much, so profiled cells get no speed-up.")
    if shown < len(rows):
        lines.append(f"{len(rows) - shown:,} of {len(rows):,} cells are not shown; summary.csv has all of them.")
    if len(rows) > 1 and not wide and any(text(row, "evidence") for row in rows):
        lines.append(f"For evidence, see summary.csv, report.html, or a terminal at least {WIDE} columns wide.")
    return [Text(line, style="dim") for line in lines]
