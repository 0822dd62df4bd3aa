"""Which times and sizes of an export can be true. Everything that is read passes through here once.

CUPTI writes start = end = 0 where it collected no times, and exports of other programs, or damaged ones, hold NULL,
text, floats and times that no recording can have. Pure functions over integer arrays; times are nanoseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MISSING = -(1 << 62)
"""Stands for a time that is not an integer: NULL, text or a float."""

DAY_NS = 86_400_000_000_000
"""No recording lasts longer: what lies farther from the middle of the recording is not a time of it."""

CLOCKS_DIFFER_NS = 1_000_000_000
"""The clocks of GPU and host agree to microseconds; work that starts this much before its launch cannot be true."""

OUTLASTS_NS = 3_600_000_000_000
"""Work may go on after the last call that was recorded, but not for longer than this."""

LARGEST_BYTES = 1 << 44
"""A single copy of more than 16 TiB cannot be true."""


@dataclass(frozen=True)
class LeftOut:
    """What was not used, because it cannot be true: numbers of events with impossible times, and of impossible sizes.

    An operation with an impossible size is used and counts as 0 bytes.
    """

    operations: int = 0
    calls: int = 0
    ranges: int = 0
    sizes: int = 0

    def said(self) -> list[str]:
        """A sentence for each kind that was found."""
        times = "left out, because their times are missing, reversed or outside the recording"
        kinds = ((self.operations, "GPU operations"), (self.calls, "API calls"), (self.ranges, "ranges"))
        found = [f"{name} {times}: {count:,}" for count, name in kinds if count]
        sizes = f"copies and fills whose size cannot be true, counted as 0 bytes: {self.sizes:,}"
        return [*found, *([sizes] if self.sizes else [])]

    def counted(self) -> dict[str, int]:
        """The numbers other than 0 by name, for JSON."""
        return {name: count for name, count in vars(self).items() if count}


NOTHING = LeftOut()


@dataclass(frozen=True)
class Bounds:
    """Times that can be true, both included."""

    low: int
    high: int

    def holds(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """For each event, whether both its times can be true: collected, in order, and inside."""
        collected = (start != 0) | (end != 0)
        return collected & (start <= end) & (start >= self.low) & (end <= self.high)


def host_bounds(starts: Sequence[np.ndarray]) -> Bounds:
    """Bounds of what the host did, from the starts of all its events, of which most must be true.

    Times count from the start of the session, so they are negative only where a whole recording was shifted.
    """
    given = np.concatenate([one[(one != 0) & (np.abs(one) < -MISSING)] for one in starts])
    middle = int(np.median(given)) if len(given) else 0
    return Bounds(max(middle - DAY_NS, 0 if middle >= 0 else MISSING), middle + DAY_NS)


def gpu_bounds(host: Bounds, ends: Sequence[np.ndarray]) -> Bounds:
    """Bounds of what GPUs did, from the ends of everything that the host did."""
    last = max((int(one.max()) for one in ends if len(one)), default=host.high)
    return Bounds(host.low, min(host.high, last + OUTLASTS_NS))


def after_launch(start: np.ndarray, call: np.ndarray, call_start: np.ndarray) -> np.ndarray:
    """For each operation, whether it starts after the call that launched it (`call`: its index, -1 for unknown)."""
    if not len(call_start):
        return np.ones(len(start), bool)
    return (call < 0) | (start >= call_start[call] - CLOCKS_DIFFER_NS)


def sizes(given: np.ndarray) -> tuple[np.ndarray, int]:
    """Sizes in bytes, 0 in place of those that cannot be true, and the number of those."""
    wrong = (given < 0) | (given > LARGEST_BYTES)
    return np.where(wrong, 0, given), int(wrong.sum())
