"""What ranks executed, and whether it shows that a feature engaged. Pure functions over stored values.

Engines answer some unsupported features with a log line and run the baseline. So a feature counts as engaged only when
something that was counted or read back shows it. Knows no statuses.
"""

from collections.abc import Sequence

from profiling.evidence import RankEvidence
from sweep.config.feature import Feature
from sweep.findings import Finding

COMPARISONS = ("more", "fewer")

UNEVEN = 1.5  # a padded part of a sequence may be this much longer than its share

UNVERIFIABLE = "unverifiable"
"""Code: the rule compares with a baseline, and none was measured."""

OTHER_TOKENS = "the DiT stage received different tokens from those the AR stage sent"
"""What a broken hand-over is, for people."""

OTHER_CACHE = "the DiT stage received a different KV cache from the one the AR stage sent"
"""Likewise, where KV caches are handed over."""

NO_EVIDENCE = Finding("no_evidence", "no evidence was recorded")


def total_evidence(batches: Sequence[Sequence[RankEvidence]]) -> tuple[RankEvidence, ...]:
    """Sum of what each rank executed over all batches; sequence, parameters and counts are maxima."""
    ranks: dict[int, list[RankEvidence]] = {}
    for evidence in batches:
        for one in evidence:
            ranks.setdefault(one.rank, []).append(one)
    return tuple(_total(rank, ranks[rank]) for rank in sorted(ranks))


def _total(rank: int, batches: Sequence[RankEvidence]) -> RankEvidence:
    counted = [one.counts for one in batches if one.counts]
    return RankEvidence(
        rank=rank,
        dit_forwards=sum([one.dit_forwards for one in batches]),
        denoise_steps=sum([one.denoise_steps for one in batches]),
        blocks_run=sum([one.blocks_run for one in batches]),
        blocks_skipped=sum([one.blocks_skipped for one in batches]),
        block_sequence=max([one.block_sequence for one in batches]),
        dit_parameters=max([one.dit_parameters for one in batches]),
        settings=batches[-1].settings,
        counts={name: max(one.get(name, 0) for one in counted) for name in sorted(set().union(*counted))},
    )


def forwards_per_step(evidence: Sequence[RankEvidence]) -> float:
    """DiT forwards of the busiest rank per denoising step; 0 when there was no step."""
    return max((_per_step(e, evidence) for e in evidence), default=0.0)


def _per_step(one: RankEvidence, evidence: Sequence[RankEvidence]) -> float:
    """DiT forwards per step of one rank; where it counted no steps of its own, per step of the others."""
    steps = one.denoise_steps or max(e.denoise_steps for e in evidence)
    return one.dit_forwards / steps if steps else 0.0


def not_engaged(
    feature: Feature, evidence: Sequence[RankEvidence], baseline: Sequence[RankEvidence], ways: int = 0
) -> Finding | None:
    """Why the evidence of one batch does not show that `feature` engaged on every rank; None when it does."""
    if not evidence:
        return NO_EVIDENCE
    return next(filter(None, reasons(feature, evidence, baseline, ways).values()), None)


def reasons(
    feature: Feature, evidence: Sequence[RankEvidence], baseline: Sequence[RankEvidence], ways: int = 0
) -> dict[int, Finding | None]:
    """By rank, why the evidence of one batch does not show that `feature` engaged on it; None where it does.

    `baseline` is the evidence of the cell without features. Without one (a single run), rules that compare are
    UNVERIFIABLE. `ways` is the number of parts of the sequence when another feature of the cell splits it too.
    """
    if len(evidence) < feature.gpus:
        return _on_all(evidence, too_few_ranks(len(evidence), feature.gpus))
    rule = feature.evidence
    if of_one := RULES_OF_ONE.get(rule):
        return {e.rank: of_one(feature, e) for e in evidence}
    comparison, _, name = rule.partition(" ")
    if rule not in RULES and not (comparison in COMPARISONS and name):
        return _on_all(evidence, Finding("unknown_rule", f"its file names the unknown evidence rule '{rule}'"))
    if not baseline:
        return _on_all(evidence, Finding(UNVERIFIABLE, "there is no baseline to check its evidence against"))
    if comparison in COMPARISONS:
        return counted(rule, evidence, baseline)
    return {e.rank: _RULES_OF_EXECUTION[rule](feature, e, evidence, baseline, ways) for e in evidence}


def _on_all(evidence: Sequence[RankEvidence], why: Finding) -> dict[int, Finding | None]:
    return {e.rank: why for e in evidence}


def _skipped(feature: Feature, one: RankEvidence) -> Finding | None:
    return None if one.blocks_skipped > 0 else Finding("no_block_skipped", "no block was skipped")


def _setting(feature: Feature, one: RankEvidence) -> Finding | None:
    found = one.settings.get(feature.name, "no setting was read back")
    return None if found == "on" else Finding("setting_off", found)


RULES_OF_ONE = {"skipped_blocks": _skipped, "setting": _setting}
"""Rules that need no baseline."""


def _attention(
    feature: Feature, one: RankEvidence, evidence: Sequence[RankEvidence], baseline: Sequence[RankEvidence], ways: int
) -> Finding | None:
    now, before = (e.settings.get("attention_backend") or "nothing" for e in (one, baseline[0]))
    asked = str(feature.options.get("backend"))
    same = ", as in the baseline" if now == before else ""
    if now.lower() == asked.lower() and not same:  # vLLM-Omni accepts its names in upper or lower case
        return None
    return Finding("other_attention", f"attention ran on {now}{same}, but {asked} was requested")


def _fewer_forwards(
    feature: Feature, one: RankEvidence, evidence: Sequence[RankEvidence], baseline: Sequence[RankEvidence], ways: int
) -> Finding | None:
    mine, theirs = _per_step(one, evidence), forwards_per_step(baseline)
    if 0 < mine < theirs:
        return None
    return Finding("no_fewer_forwards", f"{mine:g} DiT forwards per rank and step, {theirs:g} in the baseline")


def _shorter_sequence(
    feature: Feature, one: RankEvidence, evidence: Sequence[RankEvidence], baseline: Sequence[RankEvidence], ways: int
) -> Finding | None:
    seen, whole = one.block_sequence, max(e.block_sequence for e in baseline)
    if 0 < seen * (ways or feature.gpus) < UNEVEN * whole:
        return None
    return Finding("sequence_not_cut", f"blocks saw {seen} image tokens, {whole} in the baseline")


def _fewer_parameters(
    feature: Feature, one: RankEvidence, evidence: Sequence[RankEvidence], baseline: Sequence[RankEvidence], ways: int
) -> Finding | None:
    held, whole = one.dit_parameters, max(e.dit_parameters for e in baseline)
    if 0 < held < whole:
        return None
    return Finding("parameters_not_cut", f"a rank holds {held:,} DiT parameters, {whole:,} in the baseline")


_RULES_OF_EXECUTION = {
    "fewer_forwards_per_rank": _fewer_forwards,
    "sharded_sequence": _shorter_sequence,
    "sharded_parameters": _fewer_parameters,
    "attention_backend": _attention,
}

RULES = (*RULES_OF_ONE, *_RULES_OF_EXECUTION)
"""What a feature's file can name as `evidence`, apart from `more NAME` and `fewer NAME`, which compare the engine's
count of that name with the baseline's. All except `setting` count what was executed."""


def broken_hand_over(evidence: Sequence[RankEvidence]) -> Finding | None:
    """Why the DiT stage received different tokens or KV cache from those the AR stage sent; None when it did not."""
    for one in evidence:
        wrong = one.counts.get("hand_overs_broken", 0)
        if wrong:
            what, other = ("kv", OTHER_CACHE) if "kv_sent" in one.settings else ("tokens", OTHER_TOKENS)
            sent, received = (one.settings.get(f"{what}_{way}", "") for way in ("sent", "received"))
            last = f" (sent {sent}, received {received})" if sent != received else ""
            why = f"hand-over broken: {other}"
            return Finding("hand_over_broken", f"{why}, for {wrong} request{'s' * (wrong > 1)} of a batch{last}")
    return None


def too_few_ranks(count: int, needed: int) -> Finding:
    """Fewer ranks ran than the features need."""
    return Finding("too_few_ranks", f"{count} rank{'s' if count > 1 else ''} ran, {needed} are needed")


def counted(
    rule: str, evidence: Sequence[RankEvidence], other: Sequence[RankEvidence], where: str = "in the baseline"
) -> dict[int, Finding | None]:
    """By rank, why its count fails `more NAME` or `fewer NAME` compared with another cell; None where it does not.

    The other cell's count is that of its busiest rank, and 0 where it did not count. For `fewer` each rank must have
    counted: a missing count does not show that something is gone. `more` ignores ranks that have no part in what is
    counted, such as those that decode no image, as long as one rank has.
    """
    comparison, _, name = rule.partition(" ")
    theirs = _largest(name, other)
    before = theirs or 0
    found: dict[int, Finding | None] = {}
    idle = []
    for one in evidence:
        mine = one.counts.get(name)
        if (mine is None and theirs is None) or (mine is None and comparison == "fewer"):
            found[one.rank] = Finding("not_counted", f"{name} was not counted")
            continue
        now = mine or 0
        shown = now > before if comparison == "more" else now < before
        found[one.rank] = None if shown else Finding("count_unchanged", f"{name} is {now:,}, and {before:,} {where}")
        if comparison == "more" and (mine is None or (now == 0 and before > 0)):
            idle.append(one.rank)
    return found | (dict.fromkeys(idle) if None in found.values() else {})


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
        run, skipped = sum([e.blocks_run for e in evidence]), sum([e.blocks_skipped for e in evidence])
        parts.append(f"{skipped} of {run + skipped} blocks skipped")
        parts.append(f"{max([e.block_sequence for e in evidence])} image tokens a block")
        held = max([e.dit_parameters for e in evidence])
        amount = f"{held / 1e6:.3g} M" if held < 1e9 else f"{held / 1e9:.3g} B"
        parts.append(f"{amount} DiT parameters a rank")
    for name in sorted({name for e in evidence for name, count in e.counts.items() if count}):
        parts.append(f"{name} {_largest(name, evidence):,}")
    return "; ".join(parts)
