"""What is said of the loads of a sweep, in the terminal and on the page. Findings in, text out."""

from collections.abc import Sequence

from sweep.analysis.ladders import Ladder, Serving

Line = tuple[str, str]
"""The configuration, and what is said of it."""


def lines(ladders: Sequence[Ladder], serving: Sequence[Serving]) -> list[Line]:
    """A line each: first the ladders, then what serving costs."""
    return [*((one.name, one.text) for one in ladders), *((one.name, one.text) for one in serving)]
