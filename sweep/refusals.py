"""How bad input is refused: one line for the user, with the nearest name where a name is wrong. Knows no fields."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A setting that cannot work: one line that says what was asked, what is wrong, what to do."""


def require(condition: bool, message: str) -> None:
    """Raise ConfigError(message) unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'teacache'?`, or an empty string when no name is close."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ""
