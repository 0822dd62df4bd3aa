"""What is said of the loads of a sweep, in the terminal and on the page. Findings in, text out."""

from sweep.analysis.summary import Summary

Line = tuple[str, str]
"""The configuration, and what is said of it."""


def lines(summary: Summary) -> list[Line]:
    """A line each: first the ladders, then what serving costs, then what became of long loads."""
    return [
        *((one.name, one.text) for one in summary.ladders),
        *((one.name, one.text) for one in summary.serving),
        *((one.name, one.text) for one in summary.trends),
    ]
