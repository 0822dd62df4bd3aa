"""Status of a cell, and whether the measurement can be trusted. Pure functions over stored values.

ERROR: did not finish. SKIP: decided by the plan. FAIL: a feature left no evidence that it engaged, or the
images are outside the gate. WARN: between the gates, or slower than the baseline. PASS: the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.config import Feature
from sweep.engines.base import RankEvidence

PASS, WARN, FAIL, ERROR, SKIP = "PASS", "WARN", "FAIL", "ERROR", "SKIP"
LOSSLESS_MEAN_DIFF = 0.005  # reduction order moves ulysses, ring and tp by about 0.0023 in bf16
LOSSLESS_MAX_DIFF = 0.05


@dataclass(frozen=True)
class Verdict:
    """A status and why, in one line ("" for PASS)."""

    status: str
    reason: str = ""


def total_evidence(batches: Sequence[Sequence[RankEvidence]]) -> tuple[RankEvidence, ...]:
    """Sum of what each rank executed over all batches; sequence and parameters are maxima."""
    ranks: dict[int, RankEvidence] = {}
    for evidence in batches:
        for one in evidence:
            before = ranks.get(one.rank)
            if before is None:
                ranks[one.rank] = one
                continue
            ranks[one.rank] = RankEvidence(
                rank=one.rank,
                dit_forwards=before.dit_forwards + one.dit_forwards,
                denoise_steps=before.denoise_steps + one.denoise_steps,
                blocks_run=before.blocks_run + one.blocks_run,
                blocks_skipped=before.blocks_skipped + one.blocks_skipped,
                block_sequence=max(before.block_sequence, one.block_sequence),
                dit_parameters=max(before.dit_parameters, one.dit_parameters),
                settings=one.settings,
            )
    return tuple(ranks[rank] for rank in sorted(ranks))


def forwards_per_step(evidence: Sequence[RankEvidence]) -> float:
    """DiT forwards of the busiest rank for each denoising step; 0 when there was no step."""
    return max((e.dit_forwards / e.denoise_steps for e in evidence if e.denoise_steps), default=0.0)


def not_engaged(feature: Feature, evidence: Sequence[RankEvidence], baseline: Sequence[RankEvidence]) -> str:
    """Why the evidence does not show that `feature` engaged; "" when it does.

    `baseline` is the evidence of the cell without features. Without one (a single run), rules that compare
    say that they could not be checked.
    """
    if not evidence:
        return "no evidence was recorded"
    ranks = len(evidence)
    if feature.gpus > 1 and ranks < feature.gpus:
        return f"{ranks} rank{'s' if ranks > 1 else ''} ran, {feature.gpus} are needed"
    rule = feature.evidence
    if rule == "skipped_blocks":
        return "" if sum(e.blocks_skipped for e in evidence) > 0 else "no block was skipped"
    if rule not in ("fewer_forwards_per_rank", "sharded_sequence", "sharded_parameters", "setting"):
        return f"no rule '{rule}' to check its evidence with"
    if rule == "setting":
        found = evidence[0].settings.get(feature.name, "no setting was read back")
        return "" if found == "on" else found
    if not baseline:
        return "no baseline to check its evidence against"
    if rule == "fewer_forwards_per_rank":
        now, before = forwards_per_step(evidence), forwards_per_step(baseline)
        return "" if 0 < now < before else f"{now:g} DiT forwards a rank and step, the baseline has {before:g}"
    if rule == "sharded_sequence":
        seen, whole = max(e.block_sequence for e in evidence), max(e.block_sequence for e in baseline)
        return "" if 0 < seen < whole else f"blocks saw {seen} image tokens, the baseline's saw {whole}"
    held, whole = max(e.dit_parameters for e in evidence), max(e.dit_parameters for e in baseline)
    return "" if 0 < held < whole else f"a rank holds {held:,} DiT parameters, the baseline {whole:,}"


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
        parts.append(f"{max(e.dit_parameters for e in evidence) / 1e6:.3g} M DiT parameters a rank")
    return "; ".join(parts)


def judge(
    features: Sequence[Feature],
    evidence: Sequence[RankEvidence],
    baseline_evidence: Sequence[RankEvidence],
    quality: Mapping[str, float] | None,
    speedup_high: float | None,
    error: str = "",
    missing: str = "",
) -> Verdict:
    """Status of a finished cell.

    `quality` holds mean_diff and max_diff against the baseline's images (None: no baseline), `speedup_high`
    the upper end of the speed-up's interval, `error` why it did not finish, `missing` that it never ran.
    """
    if error:
        return Verdict(ERROR, error)
    if missing:
        return Verdict(ERROR, missing)
    warnings = []
    for feature in features:
        why = not_engaged(feature, evidence, baseline_evidence)
        if why.startswith("no baseline"):
            warnings.append(f"{feature.name}: {why}")
        elif why:
            return Verdict(FAIL, f"{feature.name} did not engage: {why}")
    if features and quality is not None:
        mean_diff, max_diff = quality["mean_diff"], quality["max_diff"]
        lossy = [feature for feature in features if feature.lossy]
        if not lossy and (mean_diff > LOSSLESS_MEAN_DIFF or max_diff > LOSSLESS_MAX_DIFF):
            return Verdict(FAIL, f"lossless, but images differ by {mean_diff:.4f} on average, {max_diff:.3f} at most")
        if lossy:
            fail = max(feature.gate.fail_mean_diff for feature in lossy)
            warn = max(feature.gate.warn_mean_diff for feature in lossy)
            if mean_diff > fail:
                return Verdict(FAIL, f"images differ by {mean_diff:.4f} on average, more than {fail:g}")
            if mean_diff > warn:
                warnings.append(f"images differ by {mean_diff:.4f} on average, more than {warn:g}")
    if features and speedup_high is not None and speedup_high < 1.0:
        warnings.append("slower than the baseline")
    return Verdict(WARN, "; ".join(warnings)) if warnings else Verdict(PASS)
