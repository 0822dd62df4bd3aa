"""Status of a cell, and whether the measurement can be trusted. Pure functions over stored values.

ERROR: did not finish. SKIP: decided by the plan. FAIL: a feature left no evidence that it engaged, or the
images are outside the gate. WARN: between the gates, or slower than the baseline beyond the A/A noise. PASS: the
rest. A difference that two runs of the baseline show as well is nobody's loss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweep.config import Feature
from sweep.engines.base import RankEvidence
from sweep.features import gpus_needed

PASS, WARN, FAIL, ERROR, SKIP = "PASS", "WARN", "FAIL", "ERROR", "SKIP"
RULES = (
    *("fewer_forwards_per_rank", "skipped_blocks", "sharded_sequence", "sharded_parameters"),
    *("attention_backend", "setting"),
)
"""What a feature's file can name as `evidence`, besides `more NAME` and `fewer NAME`, which compare what an engine
counted under that name with the baseline. All but `setting` count what was executed."""

COMPARISONS = ("more", "fewer")

UNEVEN = 1.5  # a part of a sequence, padded, may be so much longer than its share

LOSSLESS_MEAN_DIFF = 0.005  # reduction order moves ulysses, ring and tp by about 0.0023 in bf16
LOSSLESS_MAX_DIFF = 0.05


@dataclass(frozen=True)
class Verdict:
    """A status and why, in one line ("" for the PASS of a baseline)."""

    status: str
    reason: str = ""


def total_evidence(batches: Sequence[Sequence[RankEvidence]]) -> tuple[RankEvidence, ...]:
    """Sum of what each rank executed over all batches; sequence, parameters and counts are maxima."""
    ranks: dict[int, list[RankEvidence]] = {}
    for evidence in batches:
        for one in evidence:
            ranks.setdefault(one.rank, []).append(one)
    return tuple(
        RankEvidence(
            rank=rank,
            dit_forwards=sum(e.dit_forwards for e in ranks[rank]),
            denoise_steps=sum(e.denoise_steps for e in ranks[rank]),
            blocks_run=sum(e.blocks_run for e in ranks[rank]),
            blocks_skipped=sum(e.blocks_skipped for e in ranks[rank]),
            block_sequence=max(e.block_sequence for e in ranks[rank]),
            dit_parameters=max(e.dit_parameters for e in ranks[rank]),
            settings=ranks[rank][-1].settings,
            counts={
                name: max(e.counts.get(name, 0) for e in ranks[rank])
                for name in sorted({name for e in ranks[rank] for name in e.counts})
            },
        )
        for rank in sorted(ranks)
    )


def forwards_per_step(evidence: Sequence[RankEvidence]) -> float:
    """DiT forwards of the busiest rank for each denoising step; 0 when there was no step."""
    return max((e.dit_forwards / e.denoise_steps for e in evidence if e.denoise_steps), default=0.0)


def not_engaged(
    feature: Feature, evidence: Sequence[RankEvidence], baseline: Sequence[RankEvidence], ways: int = 0
) -> str:
    """Why the evidence does not show that `feature` engaged; "" when it does.

    `baseline` is the evidence of the cell without features. Without one (a single run), rules that compare
    say that they could not be checked. `ways` is into how many parts the sequence is cut, where another feature of
    the cell cuts it too.
    """
    if not evidence:
        return "no evidence was recorded"
    count = len(evidence)
    if count < feature.gpus:
        return _too_few_ranks(count, feature.gpus)
    rule = feature.evidence
    if rule == "skipped_blocks":
        return "" if sum(e.blocks_skipped for e in evidence) > 0 else "no block was skipped"
    comparison, _, name = rule.partition(" ")
    if rule not in RULES and not (comparison in COMPARISONS and name):
        return f"no rule '{rule}' to check its evidence with"
    if rule == "setting":
        found = evidence[0].settings.get(feature.name, "no setting was read back")
        return "" if found == "on" else found
    if not baseline:
        return "no baseline to check its evidence against"
    if comparison in COMPARISONS:
        return not_counted(rule, evidence, baseline)
    if rule == "attention_backend":
        now, before = (ranks[0].settings.get("attention_backend") or "nothing" for ranks in (evidence, baseline))
        asked = str(feature.options.get("backend"))
        same = ", as in the baseline" if now == before else ""
        ran = now.lower() == asked.lower() and not same  # vLLM-Omni takes its names in either case
        return "" if ran else f"attention ran on {now}{same}; {asked} was asked for"
    if rule == "fewer_forwards_per_rank":
        mine, theirs = forwards_per_step(evidence), forwards_per_step(baseline)
        return "" if 0 < mine < theirs else f"{mine:g} DiT forwards a rank and step, the baseline has {theirs:g}"
    if rule == "sharded_sequence":
        seen, whole = max(e.block_sequence for e in evidence), max(e.block_sequence for e in baseline)
        cut = 0 < seen * (ways or feature.gpus) < UNEVEN * whole
        return "" if cut else f"blocks saw {seen} image tokens, the baseline's saw {whole}"
    held, whole = max(e.dit_parameters for e in evidence), max(e.dit_parameters for e in baseline)
    return "" if 0 < held < whole else f"a rank holds {held:,} DiT parameters, the baseline {whole:,}"


def broken_hand_over(evidence: Sequence[RankEvidence]) -> str:
    """Why the tokens that the DiT stage received are not those that the AR stage sent; "" when they are."""
    for one in evidence:
        wrong = one.counts.get("hand_overs_broken", 0)
        if wrong:
            sent, received = (one.settings.get(f"tokens_{way}", "") for way in ("sent", "received"))
            last = f" (sent {sent}, received {received})" if sent != received else ""
            return f"hand-over broken: the DiT stage got other tokens than the AR stage sent, {wrong} in a batch{last}"
    return ""


def _too_few_ranks(count: int, needed: int) -> str:
    return f"{count} rank{'s' if count > 1 else ''} ran, {needed} are needed"


def not_counted(
    rule: str, evidence: Sequence[RankEvidence], other: Sequence[RankEvidence], whose: str = "the baseline's"
) -> str:
    """Why a count of the busiest rank is not `more NAME`, or `fewer NAME`, than in another cell; "" when it is.

    What only one of the cells counted is 0 in the other, but for `fewer` the cell itself must have
    counted: silence is no sign that something is gone.
    """
    comparison, _, name = rule.partition(" ")
    mine, theirs = (_largest(name, ranks) for ranks in (evidence, other))
    if (mine is None and theirs is None) or (mine is None and comparison == "fewer"):
        return f"{name} was not counted"
    now, before = mine or 0, theirs or 0
    shown = now > before if comparison == "more" else now < before
    return "" if shown else f"{name} is {now:,}, {whose} is {before:,}"


def _largest(name: str, evidence: Sequence[RankEvidence]) -> int | None:
    """The largest count of this name over all ranks, or None where no rank counted it."""
    return max((e.counts[name] for e in evidence if name in e.counts), default=None)


def describe_evidence(evidence: Sequence[RankEvidence]) -> str:
    """One line for summary.csv: what ran where."""
    if not evidence:
        return ""
    parts = [f"{len(evidence)} rank{'s' if len(evidence) > 1 else ''}"]
    if any(e.dit_forwards for e in evidence):
        parts.append(f"{forwards_per_step(evidence):g} DiT forwards/rank/step")
        run, skipped = sum(e.blocks_run for e in evidence), sum(e.blocks_skipped for e in evidence)
        parts.append(f"{skipped} of {run + skipped} blocks skipped")
        parts.append(f"{max(e.block_sequence for e in evidence)} image tokens a block")
        held = max(e.dit_parameters for e in evidence)
        amount = f"{held / 1e6:.3g} M" if held < 1e9 else f"{held / 1e9:.3g} B"
        parts.append(f"{amount} DiT parameters a rank")
    for name in sorted({name for e in evidence for name, count in e.counts.items() if count}):
        parts.append(f"{name} {_largest(name, evidence):,}")
    return "; ".join(parts)


@dataclass(frozen=True)
class Pixels:
    """How far images differ, as absolute differences in [0, 1]: a cell's from its baseline's, or A/A's."""

    mean_diff: float = 0.0
    max_diff: float = 0.0


def judge(
    features: Sequence[Feature],
    starts: Sequence[Sequence[RankEvidence]],
    baseline_evidence: Sequence[RankEvidence],
    pixels: Pixels | None,
    called: str = "",
    floor: Pixels = Pixels(),
) -> Verdict:
    """Status of a finished cell.

    `starts` holds the evidence of each engine start that measured it: a feature must engage in every one.
    `pixels` is the difference from the baseline's images (None: no baseline), `floor` that between two runs of
    the baseline, which never counts as a feature's loss. `called` is what `paired` says of the speed-up.
    """
    warnings = []
    for evidence in starts:
        if broken := broken_hand_over(evidence):
            return Verdict(FAIL, broken)
    needed, ran = gpus_needed(features), min((len(evidence) for evidence in starts if evidence), default=0)
    if 0 < ran < needed:
        names = " and ".join(feature.name for feature in features if feature.gpus > 1)
        return Verdict(FAIL, f"{names} did not engage: {_too_few_ranks(ran, needed)}")
    ways = math.prod(feature.gpus for feature in features if feature.evidence == "sharded_sequence")
    for feature in features:
        reasons = [not_engaged(feature, evidence, baseline_evidence, ways) for evidence in starts]
        why = next(filter(None, reasons), "")
        if why.startswith("no baseline"):
            warnings.append(f"{feature.name}: {why}")
        elif why:
            return Verdict(FAIL, f"{feature.name} did not engage: {why}")
    if features and pixels is not None:
        judged = judge_pixels(features, pixels, floor)
        if judged.status == FAIL:
            return judged
        warnings += [judged.reason] if judged.reason else []
    if features and called == "slower":
        warnings.append("slower than the baseline")
    return Verdict(WARN, "; ".join(warnings)) if warnings else Verdict(PASS, _praise(features, pixels))


def _praise(features: Sequence[Feature], pixels: Pixels | None) -> str:
    """Why a PASS is one."""
    if not features:
        return ""
    if pixels is None:
        return "engaged"
    if pixels.mean_diff == 0:
        return "engaged, images identical"
    return f"engaged, images differ by {pixels.mean_diff:.2g} on average, within the gate"


def judge_pixels(features: Sequence[Feature], pixels: Pixels, floor: Pixels) -> Verdict:
    """The quality gate: lossless features may move what reduction order moves, lossy ones what their file says."""
    mean_diff, max_diff = pixels.mean_diff, pixels.max_diff
    lossy = [feature for feature in features if feature.lossy]
    if not lossy:
        lost = mean_diff > floor.mean_diff + LOSSLESS_MEAN_DIFF or max_diff > floor.max_diff + LOSSLESS_MAX_DIFF
        reason = f"lossless, but images differ by {mean_diff:.4f} on average, {max_diff:.3f} at most"
        return Verdict(FAIL, reason) if lost else Verdict(PASS)
    for status, gate in (
        (FAIL, max(feature.gate.fail_mean_diff for feature in lossy)),
        (WARN, max(feature.gate.warn_mean_diff for feature in lossy)),
    ):
        if mean_diff > floor.mean_diff + gate:
            return Verdict(status, f"images differ by {mean_diff:.4f} on average, more than {gate:g}")
    return Verdict(PASS)
