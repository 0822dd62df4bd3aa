"""Summary rows as a table for other programs: the form of summary.csv and every data frame, and of nothing else.

Internally, a baseline's features are "". A table says `baseline`, because pandas and SQL leave rows with an empty key
out of their groups. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.analysis import columns, options
from sweep.plan.cells import BASELINE


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of all columns, and for each row its values by them; missing ones are None. Options come last."""
    names = [*columns.NAMES, *options.names(rows)]
    return names, [{name: row.get(name) for name in names} | {"features": named(row)} for row in rows]


def named(row: Mapping[str, Any]) -> str:
    """A row's features as a table has them: `cfg_parallel+teacache`, `baseline`."""
    return row.get("features") or BASELINE


def unnamed(features: str | None) -> str | None:
    """The inverse of `named`, for a row read from a table; earlier versions left a baseline's features empty."""
    return None if features == BASELINE else features
