"""Which times and sizes of an export are possible. Every value that is read passes through here once.

CUPTI writes start = end = 0 where it collected no times, and exports of other programs, or damaged ones, hold NULL,
text, floats and times that no recording can have. Pure functions over integer arrays; times are nanoseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MISSING = -(1 << 62)
"""Replaces a time that is not an integer: NULL, text or a float."""

DAY_NS = 86_400_000_000_000
"""No recording lasts longer: a time farther from the middle of the recording does not belong to it."""

CLOCKS_DIFFER_NS = 1_000_000_000
"""The clocks of GPU and host agree to microseconds; work cannot start this much before its launch."""

OUTLASTS_NS = 3_600_000_000_000
"""Work may continue after the last recorded call, but no longer than this."""

LARGEST_BYTES = 1 << 44
"""No single copy is larger than 16 TiB."""


@dataclass(frozen=True)
class LeftOut:
    """What was rejected as impossible: the number of events with impossible times, and of impossible sizes.

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
    """First and last possible time, both included."""

    low: int
    high: int

    def holds(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """For each event, whether both its times are possible: collected, in order, and inside the bounds."""
        collected = (start != 0) | (end != 0)
        return collected & (start <= end) & (start >= self.low) & (end <= self.high)


def host_bounds(starts: Sequence[np.ndarray]) -> Bounds:
    """Time bounds of the host's events, from all their starts, most of which must be right.

    Times count from the start of the session, so they are negative only where a whole recording was shifted.
    """
    given = np.concatenate([one[(one != 0) & (np.abs(one) < -MISSING)] for one in starts])
    middle = int(np.median(given)) if len(given) else 0
    return Bounds(max(middle - DAY_NS, 0 if middle >= 0 else MISSING), middle + DAY_NS)


def gpu_bounds(host: Bounds, ends: Sequence[np.ndarray]) -> Bounds:
    """Time bounds of GPU work, from the ends of all host events."""
    last = max((int(one.max()) for one in ends if len(one)), default=host.high)
    return Bounds(host.low, min(host.high, last + OUTLASTS_NS))


def after_launch(start: np.ndarray, call: np.ndarray, call_start: np.ndarray) -> np.ndarray:
    """For each operation, whether it starts after the call that launched it (`call`: its index, -1 for unknown)."""
    if not len(call_start):
        return np.ones(len(start), bool)
    return (call < 0) | (start >= call_start[call] - CLOCKS_DIFFER_NS)


def sizes(given: np.ndarray) -> tuple[np.ndarray, int]:
    """Sizes in bytes, with 0 for impossible ones, and the number of those."""
    wrong = (given < 0) | (given > LARGEST_BYTES)
    return np.where(wrong, 0, given), int(wrong.sum())
