"""How one number of a row reads on the page: with its interval, its verdict, and muted where it may be noise.

Plain values in, text out. `sweep.report.words` has what the terminal and comparisons share.
"""

from dataclasses import dataclass

from sweep.analysis.paired import FASTER, SLOWER
from sweep.plan.cells import AA
from sweep.report import words
from sweep.report.matrix import Gain
from sweep.report.words import Row, number, text

OFF_ONE = "interval leaves out 1"
"""Verdict on an A/A run whose interval says that the baseline differs from itself; its note says why."""


@dataclass(frozen=True)
class Said:
    """A text; `muted` where it may be noise, `warns` where it should not be."""

    text: str
    muted: bool = False
    warns: bool = False


def speedup_words(row: Row) -> str:
    """`1.42× (1.38–1.47)`."""
    return _typeset(words.speedup_text(row))


def _typeset(times: str) -> str:
    return times.replace("x", "×").replace("-", "–")


def times(row: Row, name: str) -> str:
    """`1.42×`; "" without a number."""
    value = number(row, name)
    return "" if value is None else f"{value:.2f}×"


def verdict_of(row: Row) -> Said:
    """The verdict of a row, muted unless it is faster or slower; a warning for an A/A run off 1."""
    if off_one(row):
        return Said(OFF_ONE, warns=True)
    return Said(words.verdict_text(row), muted=text(row, "called") not in (FASTER, SLOWER))


def off_one(row: Row) -> bool:
    """Whether it is an A/A run whose interval leaves out 1."""
    low, high = number(row, "speedup_low"), number(row, "speedup_high")
    return text(row, "role") == AA and low is not None and high is not None and not low <= 1 <= high


def gain_of(row: Row, gain: Gain | None = None) -> Said:
    """The interaction gain with its interval; muted without one, and where the interval holds 1.

    `gain` is what the matrix knows of it, where the row of an earlier version has no interval.
    """
    low, high = number(row, "interaction_low"), number(row, "interaction_high")
    if gain is not None and gain.interval is not None:
        low, high = gain.interval
    words_of = times(row, "interaction_gain")
    if not words_of or low is None or high is None:
        return Said(words_of, muted=True)
    return Said(f"{words_of} ({low:.2f}–{high:.2f})", muted=low <= 1 <= high)


def over_base_of(row: Row) -> Said:
    """The gain of an add-on over its base with its interval; muted without one, and where the interval holds 1."""
    low, high = number(row, "gain_over_base_low"), number(row, "gain_over_base_high")
    muted = low is None or high is None or low <= 1 <= high
    return Said(_typeset(words.times_text(row, "gain_over_base")), muted)


def without_model(label: str, model: str) -> str:
    """A label without the model's name, for a table that has a column for it."""
    return " ".join(
        word for word in label.split(" ") if not model or word not in (f"model={model}", f"model.name={model}")
    )
