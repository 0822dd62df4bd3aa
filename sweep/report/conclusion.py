"""One sentence on a sweep, and whose speed-up counts in it."""

from dataclasses import dataclass

from sweep.findings import USABLE
from sweep.report.words import Row, text

NAMED = 4
"""The most cells that one sentence names."""


@dataclass(frozen=True)
class Conclusion:
    """One sentence, a code for programs, and the keys of the cells that it is about."""

    code: str
    text: str
    cells: tuple[str, ...] = ()


def counts(row: Row) -> bool:
    """Whether its speed-up has a verdict that counts."""
    return row["status"] in USABLE and bool(row.get("valid")) and bool(text(row, "called"))
