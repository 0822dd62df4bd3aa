"""Definitions of record: how each reported number follows from raw timings.

Pure functions over plain sequences; every formula of the project is here, once. `None` always
means "not defined by these samples" and becomes an empty field, never 0. Knows nothing of files,
cells, engines or verdicts. `paired` compares the latencies of two cells.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiling.phases import EXCLUSIVE_PHASES, NOT_EXCLUSIVE, OTHER, PHASES
from profiling.telemetry.samples import Span, joined

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Bottleneck:
    """The exclusive phase that takes longest; `share` in [0, 1] of the request."""

    phase: str
    share: float


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean, in the unit of the values; None when there are none."""
    return math.fsum(values) / len(values) if len(values) else None


def samples_needed(q: float) -> int:
    """Fewest samples for which percentile `q` is reported: 100 from p99 on, 20 from p95 on, else 1."""
    return 100 if q >= 99 else 20 if q >= 95 else 1


def percentile(values: Sequence[float], q: float) -> float | None:
    """Percentile `q` in [0, 100] by linear interpolation, as numpy's default, in the unit of the values.

    None when there are too few samples for it to mean anything (`samples_needed`).
    """
    if len(values) < samples_needed(q):
        return None
    ordered = sorted(values)  # in plain Python: for a dozen values, as a cell has, numpy takes ten times as long
    place = (len(ordered) - 1) * q / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (place - below))


def interaction_gain(combination: float | None, members: Sequence[float | None]) -> float | None:
    """Speed-up of a combination ÷ product of its members' own speed-ups.

    1: the members' effects multiply; below 1: they interfere with each other. None when a speed-up is
    unknown or there is no member.
    """
    if combination is None or not members:
        return None
    product = 1.0
    for member in members:
        if member is None:
            return None
        product *= member
    return combination / product if product > 0 else None


Ratio = tuple[float, float, float]
"""A speed-up and the ends of its 95 % interval."""


def gain_interval(combination: Ratio, members: Sequence[Ratio]) -> tuple[float, float] | None:
    """Ends of the 95 % interval of an interaction gain; None unless every speed-up has an interval.

    Logarithms of the speed-ups add up, so their half-widths do in quadrature. This assumes independent
    speed-ups; a baseline that they share errs on the wide side.
    """
    gain = interaction_gain(combination[0], [member[0] for member in members])
    if gain is None or not all(0 < low < high and low <= ratio <= high for ratio, low, high in (combination, *members)):
        return None
    ratio, low, high = combination
    below, above = math.log(ratio / low) ** 2, math.log(high / ratio) ** 2
    for ratio, low, high in members:  # a member's upper end is the gain's lower one
        below, above = below + math.log(high / ratio) ** 2, above + math.log(ratio / low) ** 2
    return gain * math.exp(-math.sqrt(below)), gain * math.exp(math.sqrt(above))


def wall_s(spans: Sequence[Span]) -> float:
    """Seconds in which at least one request was under way, from (sent, done) of each; what overlaps counts once."""
    return math.fsum(end_s - start_s for start_s, end_s in joined(spans))


def images_per_s(images: int, wall_s: float) -> float | None:
    """Completed images ÷ measured wall time in seconds; None when no time was measured."""
    return images / wall_s if wall_s > 0 else None


def images_per_s_per_gpu(images: int, wall_s: float, gpus: int) -> float | None:
    """Completed images ÷ measured wall time ÷ GPUs leased; None without a GPU or a time."""
    rate = images_per_s(images, wall_s)
    return None if rate is None or gpus < 1 else rate / gpus


def energy_j_per_image(starts: Iterable[tuple[float | None, int]]) -> float | None:
    """Joules ÷ images, from (joules, images) of each engine start; starts with unknown energy count on neither side.

    None when no energy is known, or when no image belongs to it.
    """
    known = [(joules, images) for joules, images in starts if joules is not None]
    images = sum(made for _, made in known)
    return math.fsum(joules for joules, _ in known) / images if images else None


def tpot(e2e_s: float | None, ttft_s: float | None, n: int) -> float | None:
    """Time per output token in seconds: (E2E − TTFT) / (n − 1). None for n ≤ 1 or a time not measured.

    `e2e_s` is from the request's start to its last AR token: a DiT that follows writes no token.
    """
    if e2e_s is None or ttft_s is None or n <= 1:
        return None
    return (e2e_s - ttft_s) / (n - 1)


def phase_totals(durations: Iterable[tuple[str, float]], requests: int = 1) -> dict[str, float]:
    """Milliseconds a request spends in each phase, from (phase, ms) of one rank over `requests` requests.

    Holds the phases that occurred, in the order of a request, and `other`: what is left of `request`
    after its exclusive phases (never below 0). `other` is absent when no `request` was recorded.
    Ranks run in parallel: pass the records of one rank, or their times would add up.
    """
    if requests < 1:
        raise ValueError(f"phase_totals: requests={requests}, must be at least 1")
    sums: dict[str, float] = defaultdict(float)
    for phase, ms in durations:
        sums[phase] += ms
    if unknown := sorted(sums.keys() - PHASES):
        raise ValueError(f"phase_totals: unknown phase {', '.join(unknown)}; known phases are {', '.join(PHASES)}")
    totals = {phase: sums[phase] / requests for phase in PHASES if phase in sums}
    if "request" in totals:
        inside = sum(totals.get(phase, 0.0) for phase in EXCLUSIVE_PHASES)
        totals[OTHER] = max(0.0, totals["request"] - inside)
    return totals


def phase_shares(totals: Mapping[str, float]) -> dict[str, float]:
    """Each phase's part of the request, in [0, 1]; of the exclusive phases' sum when `request` is unknown.

    `dit_forward` is given too (its part of the request, already inside `denoise_step`); `request` is not.
    """
    whole = totals.get("request") or sum(ms for phase, ms in totals.items() if phase not in NOT_EXCLUSIVE)
    if whole <= 0:
        return {}
    return {phase: ms / whole for phase, ms in totals.items() if phase != "request"}


def bottleneck(shares: Mapping[str, float]) -> Bottleneck | None:
    """The phase to work on first: the longest exclusive one, from the phases' shares (`phase_shares`).

    `dit_forward` (inside `denoise_step`), `request` (the whole) and `other` (no phase) never count.
    None when no phase took time.
    """
    exclusive = [phase for phase in shares if phase in EXCLUSIVE_PHASES]
    phase = max(exclusive, key=shares.__getitem__, default="")
    return Bottleneck(phase, shares[phase]) if phase and shares[phase] > 0 else None


def positive(rows: Sequence[Sequence[float]]) -> "np.ndarray":
    """`rows`, all of one length, as a float64 array; ValueError unless all values are finite and above 0."""
    import numpy as np

    wrong = [value for row in rows for value in row if not 0 < value < math.inf]
    if wrong:
        raise ValueError(f"expected finite values above 0, got {float(wrong[0])}")
    return np.array(rows, dtype=np.float64)
