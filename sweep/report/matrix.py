"""The compatibility matrix of a sweep: which single features and pairs were run, context by context.

Pure: rows of summary.csv in, matrices out, for both the page and the plot. Knows nothing about how
either shows them.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.findings import deciding
from sweep.report import words
from sweep.report.words import Row

CONTEXT = ("model", "engine", "parallel", "batch", "width", "height", "steps", "profiled")
"""Columns that define a context: cells that differ in one of them are not compared with each other."""


@dataclass(frozen=True)
class Matrix:
    """Feature sets of one context.

    A field holds several rows if cells differ in something else, e.g. a threshold.
    """

    title: str
    features: tuple[str, ...]
    fields: Mapping[tuple[str, ...], tuple[Row, ...]]  # key: one feature, or two in the order of `features`
    larger: tuple[Row, ...]  # combinations of three or more

    def field(self, first: str, second: str) -> tuple[Row, ...]:
        """Rows of a pair, or of a single feature given twice; () if the sweep does not include it."""
        return self.fields.get(tuple(sorted({first, second})), ())


def matrices(rows: Sequence[Row]) -> list[Matrix]:
    """One matrix for each context that has a pair or two single features, in order of appearance."""
    contexts: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if words.text(row, "features"):
            contexts.setdefault(tuple(_plain(row, name) for name in CONTEXT), []).append(row)
    found = (_matrix(_title(dict(zip(CONTEXT, key, strict=True))), part) for key, part in contexts.items())
    return [matrix for matrix in found if len(matrix.features) > 1 or matrix.larger]


def names_of(row: Row) -> tuple[str, ...]:
    """The single features of a row, sorted."""
    return tuple(sorted(filter(None, words.text(row, "features").split("+"))))


def short_reason(row: Row, width: int = 24) -> str:
    """A row's reason in a few words for a narrow field: `needs 4 GPUs`, `conflict`."""
    grave = deciding(words.said(row, "findings"))
    if grave and grave[0].short:
        return grave[0].short
    return textwrap.shorten(words.text(row, "reason"), width, placeholder="…")


def _matrix(title: str, rows: Sequence[Row]) -> Matrix:
    fields: dict[tuple[str, ...], list[Row]] = {}
    larger = []
    for row in rows:
        names = names_of(row)
        if len(names) > 2:
            larger.append(row)
        else:
            fields.setdefault(names, []).append(row)
    features = tuple(sorted({name for names in fields for name in names}))
    return Matrix(title, features, {names: tuple(part) for names, part in fields.items()}, tuple(larger))


def _plain(row: Row, name: str) -> str:
    value = words.number(row, name)
    return words.text(row, name) if value is None else f"{value:g}"


def _title(context: Mapping[str, str]) -> str:
    parallel = context["parallel"]
    words = (
        *(context["model"], context["engine"], f"parallel {parallel}" if parallel not in ("", "auto") else ""),
        f"batch {context['batch']}" if context["batch"] else "",
        f"{context['width']}×{context['height']}" if context["width"] else "",
        f"{context['steps']} steps" if context["steps"] else "",
        f"profiled ({context['profiled']})" if context["profiled"] else "",
    )
    return " · ".join(filter(None, words))
