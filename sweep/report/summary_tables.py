"""The summary of a sweep, or what its pictures cost, as a table: a line for each cell.

For a paper (LaTeX, with booktabs), a page (Markdown) or a terminal.

Rows of summary.csv in, text out. Texts of users are escaped. Knows no files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiling.printing import clean
from sweep.findings import NOT_RUN, SKIP
from sweep.plan.cells import BASELINE
from sweep.report import costs, escaping
from sweep.report.words import (
    Row,
    baseline_latency_s,
    cells_words,
    digits,
    number,
    quality_text,
    saved,
    speedup_text,
    text,
    verdict_text,
)


@dataclass(frozen=True)
class _Column:
    heading: str
    shown: Callable[[Row], str]
    right: bool = True  # aligned to the right


def _speedup(row: Row) -> str:
    """`1.86× (1.84–1.88)`."""
    return "" if text(row, "role") == BASELINE else speedup_text(row).replace("x", "×").replace("-", "–")


def _baseline_s(row: Row) -> str:
    return "" if text(row, "role") == BASELINE else digits(baseline_latency_s(row))


def _quality(row: Row) -> str:
    return "" if text(row, "role") == BASELINE else quality_text(row)


COLUMNS = (
    _Column("cell", lambda row: text(row, "cell"), right=False),
    _Column("verdict", verdict_text, right=False),
    _Column("speed-up (95 %)", _speedup),
    _Column("latency, s", lambda row: digits(number(row, "latency_mean_s"))),
    _Column("baseline, s", _baseline_s),
    _Column("quality", _quality),
    _Column("memory, GB", lambda row: digits(number(row, "peak_memory_gb"))),
    _Column("status", lambda row: text(row, "status"), right=False),
)


def _saving(row: Row) -> str:
    """`46 % (44 to 48)`."""
    ends = [saved(number(row, f"{costs.SAVING}_{end}")).removesuffix(" %") for end in ("low", "high")]
    return saved(number(row, costs.SAVING)) + (f" ({' to '.join(ends)})" if all(ends) and ends[0] != ends[1] else "")


OF_COSTS = (
    _Column("cell", lambda row: text(row, "cell"), right=False),
    _Column("GPUs", lambda row: digits(number(row, "gpus")).removesuffix(".00")),
    _Column("latency, s", lambda row: digits(number(row, "latency_mean_s"))),
    _Column("cost of 1,000 images", lambda row: digits(number(row, costs.COST))),
    _Column("predicted", lambda row: digits(number(row, costs.PREDICTED))),
    _Column("saving (95 %)", _saving),
    _Column("verdict", verdict_text, right=False),
    _Column("status", lambda row: text(row, "status"), right=False),
)
"""Columns of the table of costs; its rows are those of `costs.priced`."""


def latex(rows: Sequence[Row], note: str = "", of: Sequence[_Column] = COLUMNS) -> str:
    """A `tabular` that a paper takes in with \\input; its comments say what it needs and what it leaves out."""
    shown, left_out = _shown(rows)
    columns = _columns(shown, of)
    remarks = ["needs \\usepackage{booktabs}", *left_out, note]
    if any(ord(letter) > 0x17F for row in shown for letter in text(row, "cell") if letter not in "×–…·→±≥≤"):
        remarks.append("some names need XeLaTeX or LuaLaTeX and a font that has their letters")
    lines = [f"% {clean(one)}" for one in remarks if one]
    lines.append(f"\\begin{{tabular}}{{{''.join('r' if column.right else 'l' for column in columns)}}}")
    lines += ["\\toprule", _latex_line([column.heading for column in columns]), "\\midrule"]
    for place, (heading, part) in enumerate(_parts(shown)):
        if heading:
            lines += ["\\midrule"] if place else []
            lines.append(f"\\multicolumn{{{len(columns)}}}{{l}}{{\\emph{{{escaping.latex(heading)}}}}} \\\\")
        lines += [_latex_line([column.shown(row) for column in columns]) for row in part]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _latex_line(values: Sequence[str]) -> str:
    return " & ".join(map(escaping.latex, values)) + r" \\"


def plain(rows: Sequence[Row], note: str = "", of: Sequence[_Column] = COLUMNS) -> str:
    """A table of aligned columns for a terminal, and below it what it leaves out."""
    shown, left_out = _shown(rows)
    columns = _columns(shown, of)
    lines = []
    for heading, part in _parts(shown):
        table = [[column.heading for column in columns], *([clean(one.shown(row)) for one in columns] for row in part)]
        wide = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += [clean(heading)] if heading else []
        lines += [
            "  ".join(_padded(*each) for each in zip(line, wide, columns, strict=True)).rstrip() for line in table
        ]
        lines.append("")
    return "\n".join([*lines, *(clean(one) for one in (*left_out, note) if one), ""])


def _padded(value: str, width: int, column: _Column) -> str:
    return value.rjust(width) if column.right else value.ljust(width)


def markdown(rows: Sequence[Row], note: str = "", of: Sequence[_Column] = COLUMNS) -> str:
    """A table as GitHub shows it, and below it what it leaves out."""
    shown, left_out = _shown(rows)
    columns = _columns(shown, of)
    lines = []
    for heading, part in _parts(shown):
        if heading:
            lines += [f"**{escaping.markdown(heading)}**", ""]
        lines.append(_markdown_line([column.heading for column in columns]))
        lines.append("|" + "".join("---:|" if column.right else "---|" for column in columns))
        lines += [_markdown_line([escaping.markdown(column.shown(row)) for column in columns]) for row in part]
        lines.append("")
    for one in (*left_out, note):
        lines += [escaping.markdown(one), ""] if one else []
    return "\n".join(lines)


def _markdown_line(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _shown(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Rows that get a line, and remarks on the others."""
    shown = [row for row in rows if text(row, "status") not in (SKIP, NOT_RUN)]
    counted = [
        (sum(text(row, "status") == status for row in rows), said)
        for status, said in ((SKIP, "skipped"), (NOT_RUN, "not run"))
    ]
    return shown, [
        f"{cells_words(count)} {'was' if count == 1 else 'were'} {said}." for count, said in counted if count
    ]


def _columns(rows: Sequence[Row], of: Sequence[_Column]) -> list[_Column]:
    """Columns that hold something; always the cell and its status."""
    return [one for one in of if one.heading in ("cell", "status") or any(one.shown(row) for row in rows)]


def _parts(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows by model, engine and size, each part with its heading; "" where all rows share them."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(_heading(row), []).append(row)
    return [("", part) for part in parts.values()] if len(parts) < 2 else list(parts.items())


def _heading(row: Row) -> str:
    parallel, width, steps = text(row, "parallel"), number(row, "width"), number(row, "steps")
    parts = (
        *(text(row, "model"), text(row, "engine"), f"parallel {parallel}" if parallel not in ("", "auto") else ""),
        f"{width:.0f}×{number(row, 'height') or 0:.0f}" if width else "",
        f"{steps:.0f} steps" if steps else "",
    )
    return " · ".join(filter(None, parts))
