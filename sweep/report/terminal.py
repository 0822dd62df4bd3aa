"""The table at the end of a sweep, and the small print below it.

Rows of summary.csv in, text out. Every row is one line: columns that a terminal is too narrow for are left out, the
least important first, and labels are shortened. Knows nothing about files or how rows were computed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from profiling.printing import clean
from sweep.analysis import family
from sweep.findings import FAIL, IMPRECISE, MORE_STARTS, NOT_RUN, PASS, SKIP, gravity, texts
from sweep.report import labels
from sweep.report.conclusion import Conclusion
from sweep.report.labels import Name
from sweep.report.words import (
    AA_EXPLAINED,
    Row,
    bottleneck_text,
    digits,
    latency_text,
    mentions_aa,
    number,
    quality_text,
    said,
    speedup_text,
    text,
    verdict_text,
)

STATUS_STYLES = {
    "PASS": "green",
    "WARN": "yellow",
    "FAIL": "bold red",
    "ERROR": "bold red",
    "NOT RUN": "cyan",
    "SKIP": "dim",
}

VERDICT_STYLES = {"faster": "green", "slower": "red", "no difference": "", "within noise": "dim", "unknown": "dim"}

LONG = 300  # a longer table shows only this many rows: first what failed or warns, then the others

LABEL, LEAST_LABEL = 44, 14
"""Columns that a label gets before further columns are shown, at most; and that it keeps in a narrow terminal."""

LEAST_EVIDENCE = 24  # columns; a narrower evidence column says nothing

MOST_LABELS, MOST_OF_NOTE = 8, 3  # cells that a line below the table names, at most; and a note

MOST_EVIDENCE = 3  # lines of evidence of failed cells, at most


class Lines:
    """Lines as they are; on a terminal that is not UTF-8, with signs that it has."""

    def __init__(self, lines: Sequence[Text]) -> None:
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            if options.ascii_only:
                line.plain = line.plain.translate(_IN_ASCII)
            yield line


_IN_ASCII = str.maketrans({"─": "-", "━": "=", "→": ">", "…": "~", "·": "-", "×": "x", "↑": "^", "↓": "v"})
"""One sign for each, so that widths stay the same."""


def literal(text: str, style: str = "", **options: Any) -> Text:
    """Text that is shown as it is: never markup, and with control characters visible. `options` as for rich's Text."""
    return Text(clean(text), style=style, **options)


def heading_line(heading: str, width: int) -> Text:
    """`── tiny_glm_image ─────`: what the cells below it have in common."""
    said = labels.cut(f"── {clean(heading)} ", width)
    return Text.assemble((said, "bold"), ("─" * (width - cell_len(said)), "dim"), no_wrap=True, overflow="crop")


def names_of(rows: Sequence[Row]) -> list[Name]:
    """How the cells are called in the table."""
    fields = ("model", "engine", "width", "height")
    return labels.named(
        [labels.Cell(clean(text(row, "cell")), *(clean(_plain(row, field)) for field in fields)) for row in rows]
    )


def _plain(row: Row, name: str) -> str:
    value = number(row, name)
    return text(row, name) if value is None else f"{value:g}"


def _telling(rows: Sequence[Row]) -> list[Row]:
    """All rows, or the first LONG of a longer sweep, with those that failed or warn first."""
    if len(rows) <= LONG:
        return list(rows)
    return sorted(rows, key=lambda row: -gravity(text(row, "status")))[:LONG]


def summary_table(rows: Sequence[Row], width: int) -> Lines:
    """The table at the end of a sweep, for a terminal `width` columns wide, without cells that did not run.

    Below it are notes and the reason for every cell that is not PASS; cells with the same text share a line. If the
    terminal is too narrow for the evidence column, the evidence of a single cell and of failed cells is there too;
    summary.csv and report.html have the rest. Labels are printed literally, never read as markup.
    """
    shown = _telling(rows)
    names = names_of(shown)
    by_label = {clean(text(row, "cell")): name for row, name in zip(shown, names, strict=True)}
    places = [place for place, row in enumerate(shown) if text(row, "status") not in (SKIP, NOT_RUN)]
    layout = _layout([shown[place] for place in places], [names[place].label for place in places], width)
    below = [*_reasons(shown, by_label), *_evidence(shown, by_label, "evidence" not in layout.left_out)]
    below += _small_print(rows, len(shown), layout.left_out)
    if not places:
        return Lines(below)
    lines = dict(zip(places, layout.lines, strict=True))
    table: list[Text] = [layout.head, Text("─" * width, style="dim", no_wrap=True, overflow="crop")]
    for heading, members in labels.by_heading(places, names).items():
        table += [heading_line(heading, width)] if heading else []
        table += [lines[place] for place in members]
    return Lines([Text(), *table, Text(), *below])


@dataclass(frozen=True)
class _Column:
    """Texts of one column, with the style of each."""

    heading: str
    values: list[str]
    right: bool = False
    styles: Sequence[str] = ()

    @property
    def width(self) -> int:
        return max(map(cell_len, (self.heading, *self.values)))


@dataclass(frozen=True)
class _Layout:
    """The lines of a table without its headings, and the columns that it has no room for."""

    head: Text
    lines: list[Text]
    left_out: list[str]


def _layout(rows: Sequence[Row], names: Sequence[str], width: int) -> _Layout:
    """Columns that fit: all with room for whole labels; else labels are shortened, then columns left out."""
    label = max(map(cell_len, ("cell", *names)), default=4)
    left_out: list[str] = []
    gap = 2
    columns = _important(rows, " → ")
    if _room(columns, width, gap) < label:
        gap, columns = 1, _important(rows, "→")
        for heading in ("latency, s", "quality", "verdict"):
            if _room(columns, width, gap) >= min(label, LEAST_LABEL):
                break
            left_out += [column.heading for column in columns if column.heading == heading]
            columns = [column for column in columns if column.heading != heading]
    label = min(label, max(1, _room(columns, width, gap)))
    kept = min(label, LABEL)
    for column in _further(rows):
        if not any(column.values):
            continue
        room = _room(columns, width, gap) - kept - gap
        if column.heading == "evidence" and room >= LEAST_EVIDENCE:
            column = _Column(column.heading, [labels.cut(value, room) for value in column.values], styles=column.styles)
        if column.width <= room:
            columns.append(column)
        else:
            left_out.append(column.heading)
    label = min(label, _room(columns, width, gap))
    cells = _Column("cell", labels.shortened(names, label))
    widths = [label, *(column.width for column in columns)]
    lines = [_line([cells, *columns], widths, gap, row) for row in range(-1, len(rows))]
    return _Layout(lines[0], lines[1:], left_out)


def _room(columns: Sequence[_Column], width: int, gap: int) -> int:
    """What the columns leave for labels."""
    return width - sum(gap + column.width for column in columns)


def _line(columns: Sequence[_Column], widths: Sequence[int], gap: int, row: int) -> Text:
    """One line of a table; row -1 is its head."""
    line = Text(no_wrap=True, overflow="crop")
    for column, width in zip(columns, widths, strict=True):
        value = column.values[row] if row >= 0 else column.heading
        style = "bold" if row < 0 else column.styles[row] if column.styles else ""
        line.append(" " * gap if line else "")
        line.append(labels.padded(labels.cut(value, width), width, column.right), style)
    line.rstrip()
    return line


def _important(rows: Sequence[Row], arrow: str) -> list[_Column]:
    """Columns that a terminal of 80 columns shows; those without any value are left out."""
    statuses = [text(row, "status") for row in rows]
    verdicts = [verdict_text(row) for row in rows]
    doubts = [" ?" if text(row, "invalid_reason") else "" for row in rows]
    marked = [status + doubt for status, doubt in zip(statuses, doubts, strict=True)]
    columns = [
        _Column("status", marked, styles=[STATUS_STYLES.get(status, "") for status in statuses]),
        _Column("speed-up", [speedup_text(row) for row in rows], right=True),
        _Column("verdict", verdicts, styles=[VERDICT_STYLES.get(verdict, "") for verdict in verdicts]),
        _Column("latency, s", [latency_text(row, arrow) for row in rows], right=True),
        _Column("quality", [quality_text(row) for row in rows], right=True),
    ]
    return [column for column in columns if any(column.values)]


def _further(rows: Sequence[Row]) -> list[_Column]:
    """Columns for wider terminals, the most important first."""
    return [
        _Column("img/s", [_rate(row) for row in rows], right=True),
        _Column("bottleneck", [bottleneck_text(row) for row in rows]),
        _Column("evidence", [clean(text(row, "evidence")) for row in rows], styles=["dim"] * len(rows)),
    ]


def _rate(row: Row) -> str:
    """Images a second; of texts, tokens a second."""
    return digits(number(row, "images_per_s")) or digits(number(row, "output_tokens_per_s"), "tok/s")


def _reasons(rows: Sequence[Row], names: Mapping[str, Name]) -> list[Text]:
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
    grave = sorted(found, key=lambda one: -gravity(one[1]))  # notes last
    notes = [one for one in grave if one[1] == "note"]
    return [*together(grave[: len(grave) - len(notes)], names, MOST_LABELS), *together(notes, names, MOST_OF_NOTE)]


def conclusions_table(found: Sequence[Conclusion]) -> RenderableType:
    """What the sweep found, a sentence each, as the last thing on the screen."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row()
    for number_of, one in enumerate(found):
        table.add_row("-", literal(one.text, "bold" if number_of == 0 else ""))
    return table


def together(
    found: Iterable[tuple[str, str, str]], names: Mapping[str, Name] | None = None, most: int | None = None
) -> list[Text]:
    """`SKIP  ring b1, b2: requires 4 GPUs`, from (label, word, why); equal texts share a line, an empty why gives none.

    `names` are those of the table, by label; a line names `most` cells at most.
    """
    labels_by_text: dict[tuple[str, str], list[str]] = {}
    for label, word, why in found:
        if why:
            labels_by_text.setdefault((word, why), []).append(clean(label))
    return [
        Text.assemble(
            *((f"{word:5} ", STATUS_STYLES.get(word, "dim")), (labels.listed(of, names or {}, most), "bold")),
            f": {clean(why)}",
        )
        for (word, why), of in labels_by_text.items()
    ]


_COUNTED = (IMPRECISE, MORE_STARTS)
"""Codes of notes that the conclusions count."""


def _evidence(rows: Sequence[Row], names: Mapping[str, Name], in_table: bool) -> list[Text]:
    """The full evidence of a single cell, and of failed cells if the table does not show it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if text(row, "evidence") and (len(rows) == 1 or (text(row, "status") == FAIL and not in_table)):
            found.setdefault(text(row, "evidence"), []).append(clean(text(row, "cell")))
    return [
        Text.assemble(("      " + labels.listed(of, names, MOST_LABELS), "bold"), (f": {clean(evidence)}", "dim"))
        for evidence, of in list(found.items())[:MOST_EVIDENCE]
    ]


def _small_print(rows: Sequence[Row], shown: int, left_out: Sequence[str]) -> list[Text]:
    lines = []
    if any(number(row, "baseline_beside_s") is not None for row in rows):
        lines.append("Speed-ups compare each cell with its interleaved baseline, whose latency is before the arrow.")
    judged = family.judged(rows)
    if judged > 1:
        lines.append(
            f"Each verdict allows 5 % error for its cell alone; {judged} cells are judged "
            "(p_holm in summary.csv is for all of them)."
        )
    if mentions_aa(rows):
        lines.append(AA_EXPLAINED)
    if any(text(row, "profiled") for row in rows):
        lines.append("Profiling shows where time goes but changes how much, so profiled cells get no speed-up.")
    if shown < len(rows):
        lines.append(f"{len(rows) - shown:,} of {len(rows):,} cells are not shown; summary.csv has all of them.")
    if left_out:
        lines.append(f"For {', '.join(left_out)}, see report.html or summary.csv, or widen the terminal.")
    return [Text(line, style="dim") for line in lines]
