"""The compatibility matrix of a sweep: which single features and pairs were run, context by context.

Pure: rows of summary.csv in, matrices out, for both the page and the plot. Knows nothing about how
either shows them.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.analysis import metrics
from sweep.analysis.paired import NO_DIFFERENCE, UNKNOWN
from sweep.findings import deciding
from sweep.report import context, words
from sweep.report.words import Row


@dataclass(frozen=True)
class Gain:
    """The interaction gain of a combination, and its 95 % interval where that is known."""

    ratio: float
    interval: tuple[float, float] | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 1: the features help or hinder each other."""
        return self.interval is not None and not self.interval[0] <= 1 <= self.interval[1]


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

    def gain(self, row: Row) -> Gain | None:
        """The interaction gain of one of its rows; None where the row has none.

        For sweeps from before its interval was a column, this needs one row in each member's own field.
        """
        ratio, low, high = (words.number(row, f"interaction_{name}") for name in ("gain", "low", "high"))
        if ratio is None:
            return None
        if low is not None and high is not None:
            return Gain(ratio, (low, high))
        alone = [self.fields.get((name,), ()) for name in names_of(row)]
        known = [_interval(part[0]) for part in alone if len(part) == 1]
        own, members = _interval(row), [one for one in known if one is not None]
        whole = own is not None and len(members) == len(alone)
        return Gain(ratio, metrics.gain_interval(own, members) if whole and own is not None else None)


def matrices(rows: Sequence[Row]) -> list[Matrix]:
    """One matrix for each context that has a pair or two single features, in order of appearance."""
    contexts: dict[context.Context, list[Row]] = {}
    for row in rows:
        if words.text(row, "features"):
            contexts.setdefault(context.context_of_any_load(row), []).append(row)
    found = (_matrix(_title(part[0]), part) for part in contexts.values())
    return [matrix for matrix in found if len(matrix.features) > 1 or matrix.larger]


def names_of(row: Row) -> tuple[str, ...]:
    """The single features of a row, sorted."""
    return tuple(sorted(filter(None, words.text(row, "features").split("+"))))


def within_noise(row: Row) -> bool:
    """Whether a row's speed-up may be no difference: its verdict says so, or without one its interval holds 1."""
    called, interval = words.text(row, "called"), _interval(row)
    return called == NO_DIFFERENCE or (called == UNKNOWN and interval is not None and interval[1] <= 1 <= interval[2])


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


def _interval(row: Row) -> metrics.Ratio | None:
    """A row's speed-up with the ends of its interval; None where one of them is unknown."""
    ratio, low, high = (words.number(row, name) for name in ("speedup", "speedup_low", "speedup_high"))
    return None if ratio is None or low is None or high is None or low == high else (ratio, low, high)


def _title(row: Row) -> str:
    """Title of the context that a row is in."""
    values = dict(zip(context.COLUMNS, context.columns_of(row), strict=True))
    parallel = values["parallel"]
    parts = (
        *(values["model"], values["engine"], f"parallel {parallel}" if parallel not in ("", "auto") else ""),
        f"batch {values['batch']}" if values["batch"] else "",
        f"{values['width']}×{values['height']}" if values["width"] else "",
        f"{values['steps']} steps" if values["steps"] else "",
        f"profiled ({values['profiled']})" if values["profiled"] else "",
        *context.said(context.settings_of(row)),
    )
    return " · ".join(filter(None, parts))
