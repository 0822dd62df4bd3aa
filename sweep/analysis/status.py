"""Status of a finished cell: findings of evidence, images and speed. Pure functions over stored values.

ERROR: did not finish. NOT RUN: the sweep ended before it. SKIP: decided by the plan. FAIL: a feature left no evidence
that it engaged, images are outside a gate (`pixel_gates`), or are not pictures. WARN: outside a warning gate,
engaged in some batches only, or slower than the baseline beyond the A/A noise. PASS: the rest. Pixel differences
between two baseline runs are not charged to any feature. The status is that of the gravest finding
(`findings.status_of`).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

from sweep.analysis import engagement, pixel_gates
from sweep.analysis.engagement import NOT_ENGAGED, Executed
from sweep.analysis.evidence import UNVERIFIABLE, broken_hand_over, reasons, too_few_ranks
from sweep.analysis.pixel_gates import IDENTICAL, Pixels
from sweep.config.feature import Feature
from sweep.findings import FAIL, PASS, WARN, Finding, status_of
from sweep.plan.features import gpus_needed

SLOWER = "slower"
"""Code of the finding about speed. It holds for one cell, with 5 % false alarms per cell."""

NOT_JUDGED = "speed_not_judged"
"""Code of the finding that there is a speed-up, but nothing to judge it by."""


def judge(
    features: Sequence[Feature],
    starts: Sequence[Executed],
    baseline: Executed,
    pixels: Pixels | None,
    called: str = "",
    floor: Pixels = IDENTICAL,
    images: Sequence[Finding] = (),
    unjudged: Finding | None = None,
    kept: bool = False,
    attached: bool = False,
) -> list[Finding]:
    """Findings of a finished cell; among those of one status, the deciding one comes first.

    `starts` is what each engine start that measured it executed: a feature must engage in every one. `pixels` is the
    difference from the baseline's images (None: no baseline), `floor` the difference between two runs of the baseline,
    which is never charged to a feature. `called` is the verdict of `paired` on the speed-up, `unjudged` why there is
    none although there is a speed-up. `images` is what is wrong with the images themselves (`image_faults`) or with
    what they show (`prompt_checks`), `kept` whether the latter was checked. `attached` is whether the cell ran on a
    server that was already running, so that what it runs is unknown.
    """
    evidence = [ranks for start in starts for ranks in start.batches]
    found = [dataclasses.replace(broken, status=FAIL) for one in evidence if (broken := broken_hand_over(one))][:1]
    found += [*images, *(_unverifiable(features) if attached else _engagement(features, starts, baseline))]
    if features and pixels is not None and (outside := pixel_gates.judge(features, pixels, floor)):
        found.append(outside)
    if features and called == "slower":
        found.append(Finding(SLOWER, "slower than the baseline", WARN))
    if features and status_of(found) == PASS:
        found.append(Finding("engaged", _praise(pixels, kept), PASS))
    if features and unjudged and not called:
        found.append(Finding(NOT_JUDGED, f"speed not judged ({unjudged.text})", PASS))
    return found


def _engagement(features: Sequence[Feature], starts: Sequence[Executed], baseline: Executed) -> list[Finding]:
    """Features that did not engage everywhere, or for which this cannot be checked."""
    found = []
    counts = [len(evidence) for start in starts for evidence in start.batches if evidence]
    needed, ran = gpus_needed(features), min(counts, default=0)
    if 0 < ran < needed:
        names = " and ".join(feature.name for feature in features if feature.gpus > 1)
        found.append(Finding(NOT_ENGAGED, f"{names} did not engage: {too_few_ranks(ran, needed).text}", FAIL))
    ways = math.prod(feature.gpus for feature in features if feature.evidence == "sharded_sequence")
    for feature in features:
        check = functools.partial(reasons, feature, ways=ways)
        if where := engagement.judge(feature.name, starts, baseline, check):
            found.append(where)
    return found


def _unverifiable(features: Sequence[Feature]) -> list[Finding]:
    names = " and ".join(feature.name for feature in features)
    why = f"{names}: whether it engages is unverifiable, because a server that runs already does not say what it runs"
    return [Finding(UNVERIFIABLE, why, WARN)] if features else []


def _praise(pixels: Pixels | None, kept: bool) -> str:
    """The reason of a PASS."""
    if pixels is None:
        return "engaged"
    if pixels.mean_diff == 0:
        return "engaged, images identical"
    shown = " and show what the baseline's show" if kept else ""
    return f"engaged, images differ by {pixels.mean_diff:.2g} on average, within the gate{shown}"
