"""Which part of a load is its steady state: without its beginning, when the server fills up, and without its end.

Pure, over the times of requests. Latencies cover the requests sent within the window, rates those done within it: if a
server cannot keep up, the requests done would be the early and lucky ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweep.results.records import RequestRow

FEWEST = 8
"""Fewest requests sent and done within a window; below, the whole load is used and reported as short."""

GROUP = 5
"""Requests whose mean is one value of the truncation rule, as its author proposes."""


@dataclass(frozen=True)
class Window:
    """A part of a load, in seconds on its clock."""

    from_s: float
    to_s: float
    sent: tuple[RequestRow, ...]  # requests that were sent within it
    done: tuple[RequestRow, ...]  # and those that were done within it
    whole: bool = False  # the load is too short for a part of it
    across: tuple[RequestRow, ...] = ()  # requests that were under way throughout

    @property
    def brief(self) -> bool:
        """Whether it is shorter than a latency: then those sent within it were served after it, and rates and latencies
        cover different stretches."""
        return bool(self.sent) and self.seconds * len(self.sent) < math.fsum(one.e2e_s for one in self.sent)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.to_s - self.from_s


def window(requests: Sequence[RequestRow], concurrency: int | None, ramp_s: float = 0.0) -> Window | None:
    """The steady part of a load; None when it has no times.

    It ends with the last request sent: then the server empties. `concurrency` is how many requests a closed load keeps
    in flight. They arrive all at once at first, so its steady part begins when as many are done. That of an open load
    (None) begins where the mean latency of what follows is known best (`truncated`). Neither begins before the load has
    reached its full level, which takes `ramp_s`.
    """
    timed = [one for one in requests if one.sent_s is not None and one.done_s is not None]
    if not timed:
        return None
    by_sending = sorted(timed, key=_sent)
    dones = sorted(map(_done, timed))
    end = _sent(by_sending[-1])
    if concurrency is not None:
        begin = dones[min(concurrency, len(dones)) - 1]
    else:
        begin = _sent(by_sending[truncated([one.e2e_s for one in by_sending])])
    begin = max(begin, _sent(by_sending[0]) + ramp_s) if ramp_s else begin
    found = _part(by_sending, begin, end)
    if min(len(found.sent), len(found.done)) >= FEWEST and found.seconds > 0:
        return found
    return Window(_sent(by_sending[0]), dones[-1], tuple(by_sending), tuple(by_sending), whole=True)


def truncated(values: Sequence[float]) -> int:
    """How many values at the start of a series to leave out, at most half of them.

    The rule MSER-5 (White, "An effective truncation heuristic for bias reduction in simulation output", 1997): what is
    left has the smallest variance of its mean, over means of five values each.
    """
    means = [math.fsum(values[at : at + GROUP]) / GROUP for at in range(0, len(values) - GROUP + 1, GROUP)]
    count = len(means)
    best, least = 0, math.inf
    for left_out in range(count // 2 + 1):
        rest = means[left_out:]
        if len(rest) < 2:
            break
        mean = math.fsum(rest) / len(rest)
        spread = math.fsum((one - mean) ** 2 for one in rest) / len(rest) ** 2
        if spread < least:
            best, least = left_out, spread
    return best * GROUP


def in_flight(found: Window) -> float:
    """Requests that were under way within a window, on average over time; only those that were answered."""
    own = {id(one): one for one in (*found.sent, *found.done, *found.across)}.values()
    spent = [min(_done(one), found.to_s) - max(_sent(one), found.from_s) for one in own]
    return math.fsum(max(0.0, one) for one in spent) / found.seconds if found.seconds > 0 else 0.0


def _part(by_sending: Sequence[RequestRow], begin: float, end: float) -> Window:
    sent = tuple(one for one in by_sending if begin <= _sent(one) <= end)
    done = tuple(one for one in by_sending if begin < _done(one) <= end)
    across = tuple(one for one in by_sending if _sent(one) < begin and _done(one) > end)
    return Window(begin, end, sent, done, across=across)


def _sent(one: RequestRow) -> float:
    assert one.sent_s is not None
    return one.sent_s


def _done(one: RequestRow) -> float:
    assert one.done_s is not None
    return one.done_s
