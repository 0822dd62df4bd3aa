"""Paired comparison of latencies: how many times faster, how certain, and whether noise alone could explain it.

Two things make a speed-up uncertain. Engine starts differ, because on a shared machine one process and one minute
differ from the next: baseline against baseline (A/A) shows it. And prompts gain differently: their ratios scatter
beyond what the A/A shows. The interval adds both. Without A/A runs it is a bootstrap over prompts, without a verdict.
Pure functions over plain numbers; knows nothing of cells or files. docs/calibration.md measures how often it is right.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from sweep.analysis.metrics import positive

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 20240901  # fixed, so that a report rebuilt from the same samples shows the same interval

FASTER, SLOWER, NO_DIFFERENCE, UNKNOWN = "faster", "slower", "no difference", ""

FEWEST_PAIRS = 2
"""A single pair gets no verdict, however well start-to-start noise is known: nothing shows that it was typical."""

FEWEST_TO_TELL_GAINS = 3
"""With fewer pairs all of their scatter counts as gains that differ.

Two values say so little about their own scatter that subtracting what noise explains leaves none in most cases, and the
interval then covers the truth in 91 % (docs/calibration.md).
"""

LEAST_P = 1e-100
"""Smallest p-value that is distinguished from 0 where two parts make up the interval."""

TAILS = 1.25
"""How much wider Student's interval of start-to-start noise is made.

It assumes normal noise. Starts stray further: with tails as heavy as those of Student's t with 3 degrees of freedom it
needs this to be right in 95 % of cases, and with the drift of a real machine too (docs/calibration.md).
"""

Sample = tuple[int, int, int]
"""prompt_index, seed, repeat: what identifies a measurement in another cell."""

Start = Mapping[Sample, float]
"""Latencies in seconds measured in one started engine. Requests generated in one batch are one sample."""


@dataclass(frozen=True)
class Noise:
    """How far the means of two engine starts of the same cell differ by chance.

    `sd` is the standard deviation of one start's mean log latency (about a relative error: 0.02 is 2 %), None
    when nothing was measured twice; `df` is the number of independent differences that it was estimated from.
    `prompt_sd` is how far one prompt of a start strays from that mean; 0 where that is unknown, which is cautious.
    """

    sd: float | None = None
    df: int = 0
    prompt_sd: float = 0.0


@dataclass(frozen=True)
class Ratio:
    """How many times faster `after` is than `before`: above 1 is faster. `low`, `high` bound the 95 % interval.

    All are None without a pair; the interval is None without a second pair and without a noise estimate.
    """

    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0  # prompts (with seeds) that both have; with a single prompt, its repeats
    # two-sided, for no difference; None with too few pairs, and unless start-to-start noise is known
    p_value: float | None = None
    too_few: bool = False  # whether only the number of pairs keeps it from a verdict

    @property
    def called(self) -> str:
        """faster, slower, no difference; "" when start-to-start noise is unknown or there are too few pairs."""
        if self.p_value is None or self.low is None or self.high is None:
            return UNKNOWN
        return FASTER if self.low > 1 else SLOWER if self.high < 1 else NO_DIFFERENCE

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width relative to the ratio; None without an interval."""
        if self.low is None or self.high is None or not self.low > 0:
            return None
        return math.sqrt(self.high / self.low) - 1


def noise_between_starts(cells: Iterable[Sequence[Start]]) -> Noise:
    """Noise from cells that were measured in several engine starts, pooled over cells (one-way analysis of variance).

    A cell with one start contributes nothing. Only samples that all starts of a cell have are used.
    """
    import numpy as np

    squares, df = 0.0, 0
    scatter = _Scatter()
    for starts in cells:
        shared = _shared(starts) if len(starts) > 1 else ()
        if not shared:
            continue
        units = np.array([_units(logs, shared) for logs in _logs(starts, shared)])
        means = units.mean(axis=1)
        squares += float(np.square(means - means.mean()).sum())
        df += len(starts) - 1
        scatter.add(
            units - means[:, None] - (units.mean(axis=0) - units.mean()), df=(len(starts) - 1) * (units.shape[1] - 1)
        )
    return Noise(math.sqrt(squares / df), df, scatter.sd) if df else Noise()


def interleaved_noise(pairs: Iterable[tuple[Start, Start]]) -> Noise:
    """Noise left when two baselines are interleaved, batch by batch: the true ratio is 1, so no mean is estimated.

    Drift of the machine affects both equally and cancels; what is left is the process. `sd` is that of one pair of
    starts.
    """
    means, scatter = [], _Scatter()
    for pair in pairs:
        differences = _paired_logs([pair])
        if len(differences):
            means.append(float(differences.mean()))
            scatter.add(differences - means[-1], df=len(differences) - 1)
    if not means:
        return Noise()
    return Noise(math.sqrt(math.fsum(mean * mean for mean in means) / len(means)), len(means), scatter.sd)


class _Scatter:
    """A standard deviation pooled over starts."""

    def __init__(self) -> None:
        self.squares, self.df = 0.0, 0

    def add(self, residuals: "np.ndarray", df: int) -> None:
        self.squares += float((residuals * residuals).sum())
        self.df += df

    @property
    def sd(self) -> float:
        return math.sqrt(self.squares / self.df) if self.df else 0.0


def compare(
    before: Sequence[Start], after: Sequence[Start], noise_before: Noise, noise_after: Noise | None = None
) -> Ratio:
    """`before` ÷ `after`, geometric mean over the prompts and seeds that both have.

    Each argument holds the starts in which that cell was measured. The noise of the mean over starts is
    sd²/starts on either side (`noise_after` None: the same as before). Raises ValueError on a latency that is
    not a finite number above 0.
    """
    import numpy as np

    shared = _shared([*before, *after]) if before and after else ()
    if not shared:
        return Ratio()
    noise_after = noise_after or noise_before
    variances = [
        (noise.sd**2 / len(starts), noise.df)
        for noise, starts in ((noise_before, before), (noise_after, after))
        if noise.sd is not None
    ]
    spread, df = _sum_of_variances(variances) if len(variances) == 2 else (None, 0.0)
    if noise_after == noise_before:
        df = float(noise_before.df)  # one estimate, used twice
    by_chance = noise_before.prompt_sd**2 / len(before) + noise_after.prompt_sd**2 / len(after)
    first, second = (
        np.mean([_units(logs, shared) for logs in _logs(side, shared)], axis=0) for side in (before, after)
    )
    return _ratio(first - second, spread, df, by_chance)


def relative(start: Start, reference: Start) -> dict[Sample, float]:
    """Latencies of a start ÷ those of another, for the samples that both have."""
    return {key: latency / reference[key] for key, latency in start.items() if key in reference}


def compare_interleaved(pairs: Sequence[tuple[Start, Start]], noise: Noise) -> Ratio:
    """Baseline ÷ cell, from starts in which the baseline was interleaved with the cell, batch by batch.

    `noise` is `interleaved_noise` of the A/A cells. They are what the cell would be if its features did nothing, so
    Student's interval with one degree of freedom per A/A start holds for any noise inside a start (drift,
    autocorrelation, how much starts differ). With a single A/A start it is wide, because agreement between prompts
    does not show how much starts vary. docs/calibration.md measures it.
    """
    if not pairs:
        return Ratio()
    spread = None if noise.sd is None else noise.sd**2 / len(pairs)
    return _ratio(_paired_logs(pairs), spread, float(noise.df), noise.prompt_sd**2 / len(pairs))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm's step-down, in the order given (Holm 1979, Scand. J. Statist. 6:65).

    If every value below α is taken as a difference, the chance of any wrong verdict is at most α, for any
    dependence between them (cells of one sweep share their noise estimate).
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted


def _paired_logs(pairs: Sequence[tuple[Start, Start]]) -> "np.ndarray":
    """log(baseline ÷ cell) by unit, averaged over starts."""
    import numpy as np

    starts = [start for pair in pairs for start in pair]
    shared = _shared(starts) if starts else ()
    if not shared:
        return np.empty(0)
    logs = _logs(starts, shared)
    return _mean(_units(logs[::2] - logs[1::2], shared))


def _mean(rows: "np.ndarray") -> "np.ndarray":
    """Mean over the first axis, as `np.mean` computes it; several times as fast for the few values of a cell."""
    import numpy as np

    return np.add.reduce(np.ascontiguousarray(rows)) / len(rows)


def _variance(values: "np.ndarray", mean: float) -> float:
    """Variance of a sample with this mean, as `values.var(ddof=1)` computes it; faster, likewise."""
    import numpy as np

    residuals = values - mean
    return float(np.add.reduce(residuals * residuals)) / (len(values) - 1)


def _shared(starts: Sequence[Start]) -> tuple[Sample, ...]:
    """Samples that all starts have, in order."""
    first = starts[0].keys()
    if all(start.keys() == first for start in starts[1:]):
        return tuple(sorted(first))
    return tuple(sorted(set(first).intersection(*starts[1:])))


def _logs(starts: Sequence[Start], keys: Sequence[Sample]) -> "np.ndarray":
    """Log latencies, starts × samples. Raises as `positive`."""
    import numpy as np

    return np.log(positive([[start[key] for key in keys] for start in starts]))


def _units(values: "np.ndarray", keys: tuple[Sample, ...]) -> "np.ndarray":
    """One value per unit, from one per sample (the last axis): the median over the repeats of a prompt with its seed.

    Repeats of one prompt are not independent evidence, and their median ignores a single one that the machine
    disturbed. With a single prompt, its repeats are the units, because there is nothing else.
    """
    import numpy as np

    counts = _repeats(keys)
    if len(set(counts)) == 1:
        table = values.reshape(*values.shape[:-1], len(counts), counts[0]).copy()
        table.sort()
        middle = counts[0] // 2
        return table[..., middle] if counts[0] % 2 else (table[..., middle - 1] + table[..., middle]) / 2
    ends = np.cumsum(counts)
    parts = [values[..., end - count : end] for end, count in zip(ends, counts, strict=True)]
    return np.stack([np.median(part, axis=-1) for part in parts], axis=-1)


@functools.lru_cache(maxsize=256)
def _repeats(keys: tuple[Sample, ...]) -> tuple[int, ...]:
    """How many samples each unit has; `keys` are in order, so those of a unit follow each other."""
    counts: dict[tuple[int, int], int] = {}
    for prompt, seed, _ in keys:
        counts[prompt, seed] = counts.get((prompt, seed), 0) + 1
    return tuple(counts.values()) if len(counts) > 1 else (1,) * len(keys)


def _ratio(differences: "np.ndarray", spread: float | None, df: float, by_chance: float) -> Ratio:
    """Mean of log ratios with its interval.

    `spread`: variance of the mean over engine starts, which `df` degrees of freedom estimate; None when unknown.
    `by_chance`: the variance of the log ratios of single prompts that the same noise explains.
    """
    n = len(differences)
    if not n:
        return Ratio()
    mean = float(_mean(differences))
    if spread is None or not df > 0:
        if n == 1:
            return Ratio(math.exp(mean), pairs=n)
        low, high = _bootstrap(differences)
        return Ratio(math.exp(mean), math.exp(low), math.exp(high), n)
    explained = by_chance if n >= FEWEST_TO_TELL_GAINS else 0.0
    uneven = max(0.0, _variance(differences, mean) - explained) if n > 1 else 0.0
    parts = ((TAILS * math.sqrt(spread), df), (math.sqrt(uneven / n), n - 1.0))
    half = _half_width(1 - CONFIDENCE, parts)
    enough = n >= FEWEST_PAIRS
    p_value = _p_value(abs(mean), parts) if enough else None
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n, p_value, not enough)


Part = tuple[float, float]
"""A standard error and its degrees of freedom."""


@functools.cache
def _special() -> ModuleType:
    """scipy.special for single numbers, a fifth of the time of its functions for arrays.

    Imported when first needed: an `import` in each call takes longer than the call.
    """
    from scipy.special import cython_special

    return cython_special


def _half_width(alpha: float, parts: Iterable[Part]) -> float:
    """Half-width of the 1 − alpha interval for a sum of independent parts: root of the sum of squared half-widths.

    Each part keeps Student's quantile of its own degrees of freedom (MOVER; Zou, Huang and Zhang 2009, Computational
    Statistics & Data Analysis 53:3755). Welch's single number of degrees of freedom makes it too narrow where one of
    them is 1.
    """
    quantile = _special().stdtrit
    return math.hypot(*[quantile(df, alpha / 2) * error for error, df in parts if error > 0])


def student(df: float, confidence: float) -> float:
    """Standard errors on either side of a mean that an interval of this confidence spans."""
    return float(_special().stdtrit(df, 0.5 + confidence / 2))


def _p_value(distance: float, parts: Sequence[Part]) -> float:
    """The alpha whose half-width is `distance`: two-sided, for no difference."""
    real = [(error, df) for error, df in parts if error > 0]
    if not distance or not real:
        return float(not distance)

    def largest(reach: float) -> float:
        """Largest p-value that a single part gives for a distance of `reach`."""
        return max([2.0 * _special().stdtr(df, -reach / error) for error, df in real])

    if len(real) == 1:
        return largest(distance)
    # All parts together reach further than the furthest one, but not as far as if each reached that far.
    low, high = max(largest(distance), LEAST_P), max(largest(distance / math.sqrt(len(real))), LEAST_P)
    if low >= high:
        return high
    return math.exp(_root(lambda log_p: _half_width(math.exp(log_p), real) - distance, math.log(low), math.log(high)))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0, between `low` and `high`, to 1e-12: regula falsi, Illinois variant."""
    at_low, at_high = function(low), function(high)
    last = 0
    while high - low > 1e-12 and at_low > 0 > at_high:
        middle = high - at_high * (high - low) / (at_high - at_low)
        value = function(middle)
        if abs(value) <= 1e-15 * (at_low - at_high) or not low < middle < high:
            return middle
        if value > 0:
            low, at_low, at_high = middle, value, at_high / 2 if last > 0 else at_high
            last = 1
        else:
            high, at_high, at_low = middle, value, at_low / 2 if last < 0 else at_low
            last = -1
    return low if at_low <= 0 else high if at_high >= 0 else (low + high) / 2


def _bootstrap(differences: "np.ndarray") -> tuple[float, float]:
    """Expanded percentile interval of the mean (Hesterberg 2015, The American Statistician 69:4).

    The plain percentile interval is too narrow for few samples; the expanded one takes outer percentiles, so
    that it has the width of Student's interval.
    """
    import numpy as np

    n = len(differences)
    weights, outer = _resamples(n)
    means = np.sort(weights @ differences)
    place = outer * (RESAMPLES - 1)
    below = int(place)
    part = place - below
    low = means[below] * (1 - part) + means[below + 1] * part
    high = means[-1 - below] * (1 - part) + means[-2 - below] * part
    return float(low), float(high)


@functools.lru_cache(maxsize=64)
def _resamples(n: int) -> "tuple[np.ndarray, float]":
    """How often each of n pairs is drawn in each resample (RESAMPLES × n, ÷ n), and the outer percentile."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    picks = rng.integers(0, n, size=(RESAMPLES, n))
    weights = np.zeros((RESAMPLES, n))
    np.add.at(weights, (np.arange(RESAMPLES)[:, None], picks), 1.0 / n)
    quantile = _special().stdtrit(n - 1.0, 0.5 - CONFIDENCE / 2) * math.sqrt(n / (n - 1))
    return weights, float(_special().ndtr(quantile))


def _sum_of_variances(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Sum of variances estimated with few degrees of freedom each, and the sum's own (Welch-Satterthwaite)."""
    total = math.fsum(variance for variance, _ in parts)
    weight = math.fsum(variance**2 / df for variance, df in parts if df)
    return total, total**2 / weight if weight > 0 else float(sum(df for _, df in parts))
