"""What changed between two reports: pure decisions over loaded cells.

Speed is judged from paired samples and start-to-start noise, with one family-wise error for everything that a command
judges. Also judged: status, quality, goodput and failed requests of loads, and the phase that explains a change of
speed. Knows no files and no prose.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from profiling import phases
from sweep import findings
from sweep.analysis import paired
from sweep.analysis.paired import Ratio, holm
from sweep.analysis.status import SLOWER as SLOW
from sweep.compare.load import Cell, Report
from sweep.compare.loads import LoadChange, change
from sweep.compare.matching import Rule, match
from sweep.compare.relative import machine_scale, relative_starts
from sweep.findings import Finding

FAMILY_ERROR = 1 - paired.CONFIDENCE  # chance of any wrong "slower" or "faster" in a command
PIXEL_FLOOR = 0.002  # a smaller change of the mean pixel difference never counts, even if two baselines agree exactly
NAMED_SHARE = 0.3  # a second phase is named if it explains at least this much of a change

SLOWER, FASTER, NO_DIFFERENCE = paired.SLOWER, paired.FASTER, paired.NO_DIFFERENCE
MAYBE_SLOWER, MAYBE_FASTER = "maybe slower", "maybe faster"  # judged alone, but not among so many cells
SLIGHTLY_SLOWER, SLIGHTLY_FASTER = "slightly slower", "slightly faster"  # certain, but too small to matter
DOUBTFUL = (MAYBE_SLOWER, MAYBE_FASTER, SLIGHTLY_SLOWER, SLIGHTLY_FASTER)
UNKNOWN = "unknown"
NOT_JUDGED = ""

REGRESSION, STATUS, QUALITY = "regression", "status", "quality"
"""Reasons for which a command can fail."""

WORSE, BETTER, LOST, OTHER, SAME = "worse", "better", "lost", "other", ""

NO_AA, NOT_COMPARED, REPEATED, UNIT, PROFILED = "no_aa", "not_compared", "aa", "baseline", "profiled"
TOO_FEW_PAIRS = "too_few_pairs"
"""Codes that say why a speed is unknown or not judged."""


@dataclass(frozen=True)
class Options:
    """How to compare. `min_change`: a smaller relative difference is never a regression (0.02 is 2 %)."""

    min_change: float = 0.02
    relative: bool = False  # compare speed-ups over each sweep's own baseline instead of latencies
    rule: Rule = field(default_factory=Rule)  # which cells of two reports are compared


@dataclass(frozen=True)
class Speed:
    """How the latency changed. `ratio` is before ÷ after: above 1 is faster."""

    verdict: str  # SLOWER … UNKNOWN, or NOT_JUDGED
    ratio: Ratio = Ratio()
    p_holm: float | None = None  # p_value, adjusted for all cells judged together; None: not one of them
    why: Finding | None = None  # for UNKNOWN and NOT_JUDGED


@dataclass(frozen=True)
class Shift:
    """How much of a change one exclusive phase explains: milliseconds per request, and share of the whole."""

    phase: str
    ms: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """The phases that explain a change of `total_ms` per request, the largest first; empty if none does."""

    total_ms: float = 0.0
    shifts: tuple[Shift, ...] = ()


@dataclass(frozen=True)
class Matched:
    """One cell that both reports have."""

    before: Cell
    after: Cell
    speed: Speed
    explanation: Explanation
    status: str  # WORSE, BETTER, LOST, OTHER, SAME
    quality: str  # WORSE, BETTER, SAME
    doubt: str  # why the numbers are not valid; "" if they are
    load: LoadChange | None = None  # None offline; never a failure on its own

    @property
    def failures(self) -> tuple[str, ...]:
        """Reasons for which a command could fail."""
        slower = self.speed.verdict == SLOWER and not self.doubt
        worse = self.status in (WORSE, LOST)
        found = ((REGRESSION, slower), (STATUS, worse), (QUALITY, self.quality == WORSE and not self.doubt))
        return tuple(name for name, holds in found if holds)

    @property
    def changed(self) -> bool:
        """Whether it deserves a line of its own."""
        quiet = (NO_DIFFERENCE, UNKNOWN, NOT_JUDGED)
        load = self.load is not None and (self.load.worse or self.load.better)
        return bool(self.speed.verdict not in quiet or self.status or self.quality or self.doubt or load)


@dataclass(frozen=True)
class Comparison:
    """Report `after` against report `before`."""

    before: Report
    after: Report
    matched: tuple[Matched, ...]
    only_before: tuple[Cell, ...]
    only_after: tuple[Cell, ...]

    @property
    def failures(self) -> frozenset[str]:
        """Reasons for which a command could fail."""
        return frozenset(name for one in self.matched for name in one.failures)


def compare_reports(before: Report, others: Sequence[Report], options: Options) -> list[Comparison]:
    """Compare each of `others` with `before`. One family-wise error covers all of them together.

    Raises CompareError where the rule matches a cell with several.
    """
    matches = [match(before, after, options.rule) for after in others]
    pairs = [
        [(cell, other, *_ratio(before, after, cell, other, options)) for cell, other in found.pairs]
        for after, found in zip(others, matches, strict=True)
    ]
    family = [
        (number, cell.key, ratio.p_value)
        for number, rows in enumerate(pairs)
        for cell, other, ratio, _ in rows
        if ratio.p_value is not None and not doubt(cell, other)
    ]
    adjusted = dict(zip([f[:2] for f in family], holm([p for *_, p in family]), strict=True))
    comparisons = []
    for number, (after, found, rows) in enumerate(zip(others, matches, pairs, strict=True)):
        matched = tuple(
            _match(before, after, cell, other, ratio, why, adjusted.get((number, cell.key)), options)
            for cell, other, ratio, why in rows
        )
        comparisons.append(Comparison(before, after, matched, found.only_before, found.only_after))
    return comparisons


def speed_verdict(ratio: Ratio, p_holm: float | None, min_change: float) -> str:
    """The verdict on a measured ratio. `p_holm` None: not judged with the other cells, so never certain."""
    if ratio.ratio is None or ratio.called == paired.UNKNOWN:
        return UNKNOWN
    if ratio.called == paired.NO_DIFFERENCE:
        return NO_DIFFERENCE
    slower = ratio.called == paired.SLOWER
    if max(ratio.ratio, 1 / ratio.ratio) - 1 < min_change:
        return SLIGHTLY_SLOWER if slower else SLIGHTLY_FASTER
    if p_holm is None or p_holm >= FAMILY_ERROR:
        return MAYBE_SLOWER if slower else MAYBE_FASTER
    return SLOWER if slower else FASTER


def status_change(before: str, after: str, codes: Collection[str] = ()) -> str:
    """WORSE or BETTER along PASS, WARN, FAIL, ERROR; LOST: it worked and is now SKIP or NOT RUN; OTHER: else from or to
    those.

    PASS to WARN is OTHER if the cell is only slower than its baseline (`codes` decided the status of `after`): the
    comparison judges speed itself, with one error for all cells, and among many cells some get this WARN by chance.
    """
    if before == after:
        return SAME
    if after in (findings.SKIP, findings.NOT_RUN):
        return LOST if before in findings.USABLE else OTHER
    if before in (findings.SKIP, findings.NOT_RUN):
        return OTHER
    if (before, after) == (findings.PASS, findings.WARN) and set(codes) == {SLOW}:
        return OTHER
    return WORSE if findings.gravity(after) > findings.gravity(before) else BETTER


def quality_change(before: float | None, after: float | None, floor: float) -> str:
    """Judge the mean pixel difference from the baseline's images; a change up to the floor is chance."""
    if before is None or after is None or abs(after - before) <= max(floor, PIXEL_FLOOR):
        return SAME
    return WORSE if after > before else BETTER


def doubt(before: Cell, after: Cell) -> str:
    """Why a measurement of the two is not valid; "" if both are."""
    reasons = [cell.invalid_reason or "marked as not valid" for cell in (before, after) if not cell.valid]
    return "; ".join(dict.fromkeys(reasons))


def explain(before: Mapping[str, float], after: Mapping[str, float], slower: bool, scale: float = 1.0) -> Explanation:
    """The exclusive phases behind a change, from milliseconds per request by phase.

    `scale` converts `after` to the speed of `before`'s machine. Empty if the phases do not show the change.
    """
    if not before or not after:
        return Explanation()
    names = [name for name in (*phases.EXCLUSIVE_PHASES, phases.OTHER) if name in before or name in after]
    shifts = {name: after.get(name, 0.0) * scale - before.get(name, 0.0) for name in names}
    total = math.fsum(shifts.values())
    if total == 0 or (total > 0) != slower:
        return Explanation()
    ordered = sorted((Shift(name, ms, ms / total) for name, ms in shifts.items()), key=lambda s: -s.share)
    named = [shift for shift in ordered[1:2] if shift.share >= NAMED_SHARE]
    return Explanation(total, (ordered[0], *named))


def moved_together(matched: Iterable[Matched], min_change: float) -> float | None:
    """The factor by which every cell, baselines included, got slower (below 1: faster); None if cells disagree.

    This takes at least two cells, one of them a baseline, all changed in one direction by half to twice the typical
    change, which must exceed `min_change`.
    """
    measured = [one for one in matched if one.speed.ratio.ratio is not None and not one.before.is_repeat]
    if len(measured) < 2 or not any(one.before.is_baseline for one in measured):
        return None
    logs = sorted(-math.log(one.speed.ratio.ratio or 1.0) for one in measured)
    typical = logs[len(logs) // 2]
    if abs(typical) <= math.log1p(min_change):
        return None
    return math.exp(typical) if all(0.5 <= log / typical <= 2 for log in (logs[0], logs[-1])) else None


def _ratio(before: Report, after: Report, cell: Cell, other: Cell, options: Options) -> tuple[Ratio, Finding | None]:
    """The paired ratio of one cell, and why there is none or no verdict."""
    if cell.is_repeat:
        return Ratio(), Finding(REPEATED, "A/A run: measures noise")
    if options.relative and cell.is_baseline:
        return Ratio(), Finding(UNIT, "baseline: the reference of --relative")
    if profiler := cell.profiled or other.profiled:
        return Ratio(), Finding(PROFILED, f"profiled ({profiler}): profiling changes speed")
    if not cell.starts or not other.starts:
        return Ratio(), Finding(NOT_COMPARED, "not measured")
    noises = [before.floor(cell).alone, after.floor(other).alone]
    starts = [before.starts(cell), after.starts(other)]
    if options.relative:
        for side, (report, one) in enumerate(((before, cell), (after, other))):
            starts[side], noises[side] = relative_starts(report, one)
            if not starts[side]:
                return Ratio(), Finding(NOT_COMPARED, "its baseline was not measured")
    ratio = paired.compare(starts[0], starts[1], noises[0], noises[1])
    if ratio.ratio is None:
        return ratio, Finding(NOT_COMPARED, "no samples in common")
    if ratio.called:
        return ratio, None
    if ratio.too_few:
        few = f"too few pairs for a verdict: {ratio.pairs}, and it takes {paired.FEWEST_PAIRS}"
        return ratio, Finding(TOO_FEW_PAIRS, few)
    return ratio, Finding(NO_AA, "no A/A run finished, so start-to-start noise is unknown")


def _match(
    before: Report,
    after: Report,
    cell: Cell,
    other: Cell,
    ratio: Ratio,
    why: Finding | None,
    p_holm: float | None,
    options: Options,
) -> Matched:
    verdict = speed_verdict(ratio, p_holm, options.min_change)
    if verdict == UNKNOWN and (
        cell.is_repeat or cell.profiled or other.profiled or (options.relative and cell.is_baseline)
    ):
        verdict = NOT_JUDGED
    explanation = Explanation()
    if verdict in (SLOWER, MAYBE_SLOWER, FASTER, MAYBE_FASTER):
        scale = machine_scale(before, after, cell, other) if options.relative else 1.0
        explanation = explain(cell.phases_ms, other.phases_ms, verdict in (SLOWER, MAYBE_SLOWER), scale)
    floor = max(before.floor(cell).mean_diff, after.floor(other).mean_diff)
    return Matched(
        before=cell,
        after=other,
        speed=Speed(verdict, ratio, p_holm, why),
        explanation=explanation,
        status=status_change(cell.status, other.status, other.codes),
        quality=quality_change(cell.quality["mean_diff"], other.quality["mean_diff"], floor),
        doubt=doubt(cell, other),
        load=change(cell.load, other.load),
    )
