"""All verdicts of a sweep together: which cells are faster, given how many cells were tried.

A separate verdict allows each cell a 5 % error, so among 20 features that do nothing one is likely to be called faster.
The conclusion of a whole sweep allows 5 % for all of its cells together. Pure functions over summary rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.analysis import paired
from sweep.findings import PASS
from sweep.plan.cells import FEATURE

ERROR = 1 - paired.CONFIDENCE
"""Chance that any statement about the whole sweep is wrong."""


def adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Fill `p_holm` into the rows of features that have a `p_value` and can be trusted."""
    judged = [row for row in rows if row["role"] == FEATURE and row.get("p_value") is not None and not row["doubts"]]
    for row, p_holm in zip(judged, paired.holm([row["p_value"] for row in judged]), strict=True):
        row["p_holm"] = p_holm


def judged(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many rows were judged together."""
    return sum(row.get("p_holm") is not None for row in rows)


def certain(row: Mapping[str, Any]) -> bool:
    """Whether a row is faster than its baseline by more than chance explains among so many cells."""
    found = row.get("p_holm")
    return found is not None and found < ERROR and row["speedup"] > 1


def fastest(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The fastest row that passed and is `certain`."""
    sure = [row for row in rows if row.get("status") == PASS and certain(row)]
    return max(sure, key=lambda row: row["speedup"], default=None)
