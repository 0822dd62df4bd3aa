"""Judges a combination by what its features do alone.

In a combination, the gate of a lossy feature could hide the loss of a lossless one, a count that one feature raises
could pass as evidence of another, and a cache that works alone may skip little. Pure functions over summary rows; only
cells with the same settings count as members.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from profiling.evidence import RankEvidence
from sweep.analysis import engagement, metrics, pixel_gates
from sweep.analysis.engagement import Executed
from sweep.analysis.evidence import COMPARISONS, counted
from sweep.analysis.pixel_gates import Pixels
from sweep.config.feature import Feature
from sweep.findings import FAIL, Finding
from sweep.plan.cells import Cell, model_and_engine

Row = dict[str, Any]
Starts = Callable[[str], Sequence[Executed]]
"""What each engine start of the cell with this key executed, its own first."""

LESS = 0.75
"""A cache that skips less than this share of what it skips alone gets a note."""


def judge(
    rows: Sequence[Row], cells: Mapping[str, Cell], starts: Starts, floors: Mapping[tuple[str, str], Pixels]
) -> None:
    """Fill `interaction_gain`, notes and the failures of members into the rows of combinations.

    `floors` are the pixel differences between two runs of a baseline, by model and engine.
    """
    if all(len(cells[row["cell_key"]].features) < 2 for row in rows):
        return
    alone = {
        _setting(cell, cell.features[0]): row for row in rows if len((cell := cells[row["cell_key"]]).features) == 1
    }
    for row in rows:
        cell = cells[row["cell_key"]]
        if len(cell.features) < 2 or (row.get("speedup") is None and not cell.profile):
            continue
        members = [alone.get(_setting(cell, feature.name)) for feature in cell.chosen]
        row["interaction_gain"] = metrics.interaction_gain(
            row.get("speedup"), [member.get("speedup") if member else None for member in members]
        )
        speedup, theirs = _interval(row), [interval for one in members if (interval := _interval(one))]
        if speedup and len(theirs) == len(members) and (ends := metrics.gain_interval(speedup, theirs)):
            row["interaction_low"], row["interaction_high"] = ends
        together, floor = starts(cell.key), floors.get(model_and_engine(cell), Pixels())
        for feature, member in zip(cell.chosen, members, strict=True):
            if member is None:
                continue
            found = next(iter(starts(member["cell_key"])), Executed())
            for other in cell.chosen:
                if other is not feature and other.evidence == feature.evidence:
                    row["findings"] += _not_seen_beside(feature, other, together, found)
            row["findings"] += _lost(feature, member, floor)
            own = next(iter(together), Executed())
            row["notes"] += _skips_less(feature, own.total, found.total)


def _interval(row: Row | None) -> metrics.Ratio | None:
    """A row's speed-up with the ends of its interval; None where one of them is unknown."""
    ratio, low, high = (row.get(name) if row else None for name in ("speedup", "speedup_low", "speedup_high"))
    return None if ratio is None or low is None or high is None else (ratio, low, high)


def _setting(cell: Cell, name: str) -> tuple[str, str]:
    """What this cell shares with the cell of the feature alone: the baseline and the feature's options."""
    return cell.baseline_key, json.dumps(cell.config["feature"][name], sort_keys=True)


def _not_seen_beside(feature: Feature, other: Feature, together: Sequence[Executed], alone: Executed) -> list[Finding]:
    """Where a count that `feature` also changes `alone` does not show that `other` engaged together with it."""
    if feature.evidence.split(" ")[0] not in COMPARISONS:
        return []
    where = f"with {feature.name} alone"
    found = engagement.judge(
        other.name, together, alone, lambda mine, theirs: counted(feature.evidence, mine, theirs, where)
    )
    return [found] if found else []


def _lost(feature: Feature, member: Row, floor: Pixels) -> list[Finding]:
    """The finding by which a lossless feature fails alone."""
    if feature.lossy or member.get("mean_diff") is None:
        return []
    lost = pixel_gates.judge([feature], Pixels.of(member), floor)
    if lost is None or lost.status != FAIL:
        return []
    return [Finding("member_fails", f"{feature.name} fails alone: {lost.text}", FAIL)]


def _skips_less(feature: Feature, together: Sequence[RankEvidence], alone: Sequence[RankEvidence]) -> list[Finding]:
    if feature.evidence != "skipped_blocks":
        return []
    now, before = (_skipped_share(evidence) for evidence in (together, alone))
    if now >= LESS * before:
        return []
    return [Finding("skips_less", f"{feature.name} skips {now:.0%} of the blocks here, but {before:.0%} alone")]


def _skipped_share(evidence: Sequence[RankEvidence]) -> float:
    skipped = sum(one.blocks_skipped for one in evidence)
    due = skipped + sum(one.blocks_run for one in evidence)
    return skipped / due if due else 0.0
