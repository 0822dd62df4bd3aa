"""One sentence on a sweep, and what sentences share: which cells are compared, and whose speed-up counts."""

from dataclasses import dataclass

from sweep.findings import USABLE
from sweep.report.words import Row, text

NAMED = 4
"""Most cells that one sentence names."""


@dataclass(frozen=True)
class Conclusion:
    """One sentence, a code for programs, and the keys of the cells that it is about."""

    code: str
    text: str
    cells: tuple[str, ...] = ()


Context = tuple[str, ...]
"""What cells share whose speed-ups can be compared: model, engine, batch, size, steps and load."""


def context_of(row: Row) -> Context:
    """What cells share whose speed-ups can be compared."""
    return tuple(text(row, name) for name in ("model", "engine", "batch", "width", "height", "steps", "load"))


def counts(row: Row) -> bool:
    """Whether its speed-up has a verdict that counts."""
    return row["status"] in USABLE and bool(row.get("valid")) and bool(text(row, "called"))
