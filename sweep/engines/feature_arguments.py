"""What conf/feature files say under `engines`, with the word "ranks" replaced by the number of ranks."""

from collections.abc import Mapping
from typing import Any

RANKS = "ranks"
"""As a value: the number of ranks that the features bring."""


def with_ranks(value: Any, ranks: int) -> Any:
    """A copy in which the word "ranks" is the number."""
    if isinstance(value, Mapping):
        return {key: with_ranks(inner, ranks) for key, inner in value.items()}
    return ranks if value == RANKS else value
