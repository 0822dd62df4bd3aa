"""What a load achieved before and after: rates, goodput and failed requests. Pure.

Latency under load is judged like any other. Goodput and failed requests are shares: they changed if their 95 %
intervals (Wilson) do not overlap. Such an interval ignores differences between engine starts, so a change is reported
and never fails a command. Rates are reported and not judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sweep.checkpoints.world.shares import wilson

WORSE, BETTER, SAME = "worse", "better", ""

OTHER_SLO = "other slo"
"""Goodput that cannot be compared, because the limits differ."""


@dataclass(frozen=True)
class Load:
    """A load and its results. Rates are per second, shares in [0, 1]; None if nothing was measured."""

    words: str  # how requests arrive: `closed, 4 in flight`
    slo: Mapping[str, float]  # limits in ms, those that are set
    requests_per_s: float | None = None
    goodput_per_s: float | None = None
    goodput_share: float | None = None
    goodput_low: float | None = None
    goodput_high: float | None = None
    sent: int = 0
    failed: int = 0


@dataclass(frozen=True)
class LoadChange:
    """One load in two sweeps."""

    before: Load
    after: Load
    goodput: str  # WORSE, BETTER, SAME or OTHER_SLO
    failed: str  # WORSE, BETTER or SAME

    @property
    def worse(self) -> bool:
        """Whether anything got worse."""
        return WORSE in (self.goodput, self.failed)

    @property
    def better(self) -> bool:
        """Whether something got better and nothing got worse."""
        return BETTER in (self.goodput, self.failed) and not self.worse

    @property
    def text(self) -> str:
        """`requests/s 0.829 -> 0.611 (-26 %); goodput worse: 98 % -> 71 %; failed 0 -> 3 of 40`."""
        return "; ".join(filter(None, [self._rates(), self._goodputs(), self._failures()]))

    def _rates(self) -> str:
        one, two = self.before.requests_per_s, self.after.requests_per_s
        return f"requests/s {one:.3g} -> {two:.3g} ({100 * (two / one - 1):+.0f} %)" if one and two else ""

    def _goodputs(self) -> str:
        one, two = self.before.goodput_share, self.after.goodput_share
        if one is None or two is None:
            return ""
        if self.goodput == OTHER_SLO:
            return f"goodput not compared: SLO {_limits(self.before)} -> {_limits(self.after)}"
        if self.goodput == SAME and one == two:
            return ""
        verdict = f" {self.goodput}:" if self.goodput else ""
        return f"goodput{verdict} {100 * one:.0f} % -> {100 * two:.0f} %"

    def _failures(self) -> str:
        if not self.before.failed and not self.after.failed:
            return ""
        verdict = f" {self.failed}:" if self.failed else ""
        return f"failed{verdict} {_of(self.before)} -> {_of(self.after)}"


def change(before: Load | None, after: Load | None) -> LoadChange | None:
    """What changed; None offline."""
    if before is None or after is None:
        return None
    return LoadChange(before, after, _goodput(before, after), _failed(before, after))


def _goodput(before: Load, after: Load) -> str:
    ends = before.goodput_low, before.goodput_high, after.goodput_low, after.goodput_high
    if any(end is None for end in ends):
        return SAME
    if before.slo != after.slo:
        return OTHER_SLO
    low_before, high_before, low_after, high_after = (end or 0.0 for end in ends)
    return WORSE if high_after < low_before else BETTER if low_after > high_before else SAME


def _failed(before: Load, after: Load) -> str:
    if not before.sent or not after.sent:
        return SAME
    (low_before, high_before), (low_after, high_after) = (wilson(one.failed, one.sent) for one in (before, after))
    return WORSE if low_after > high_before else BETTER if high_after < low_before else SAME


def _of(load: Load) -> str:
    return f"{load.failed} of {load.sent}"


def _limits(load: Load) -> str:
    return ", ".join(f"{name} {limit:g} ms" for name, limit in sorted(load.slo.items())) or "none"
