"""Arguments that conf/feature files give under `engines`, with the word "ranks" replaced by the number of ranks."""

from collections.abc import Mapping
from typing import Any

RANKS = "ranks"
"""As a value: the number of ranks that the features provide."""


def with_ranks(value: Any, ranks: int) -> Any:
    """A copy in which the word "ranks" is replaced by the number."""
    if isinstance(value, Mapping):
        return {key: with_ranks(inner, ranks) for key, inner in value.items()}
    return ranks if value == RANKS else value
