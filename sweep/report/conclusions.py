"""What a sweep found, in sentences: what is fastest, what did nothing, what is unknown, what to do next.

Rows of summary.csv in, sentences out: in the terminal, at the top of report.html and in report.json. Knows no files,
and measures nothing: every number is one of the rows'.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from textwrap import shorten

from sweep.analysis import family
from sweep.analysis.engagement import NOT_ENGAGED
from sweep.analysis.ladders import Ladder
from sweep.analysis.paired import FASTER, NO_DIFFERENCE, SLOWER
from sweep.analysis.status import NOT_JUDGED
from sweep.findings import FAIL, IMPRECISE, LOST, MORE_STARTS, PASS, USABLE, WARN, has
from sweep.plan.cells import BASELINE, FEATURE
from sweep.report import limit_words
from sweep.report.add_on_conclusions import add_ons
from sweep.report.conclusion import NAMED, Conclusion, counts
from sweep.report.context import Context, context_of
from sweep.report.limit_cells import LimitCell
from sweep.report.load_conclusions import best_under_load
from sweep.report.load_view import Line
from sweep.report.words import (
    Row,
    digits,
    interval_text,
    listed,
    number,
    quality_text,
    said,
    speedup_text,
    text,
    vague,
)

FASTEST, TIED, FASTER_ALONE, NONE_FASTER = "fastest", "tied", "faster_alone", "none_faster"
FASTER_WITH_A_WARNING, BY_QUALITY = "faster_with_a_warning", "by_quality"
DID_NOTHING, DO_NOT_USE, WITHIN_NOISE, SAME_SPEED = "did_nothing", "do_not_use", "within_noise", "no_difference"
NO_VERDICT, SLOWER_CELLS, BOTTLENECK, LIMIT, LOAD, NEXT = (
    *("not_judged", "slower", "bottleneck", "limit", "load", "next"),
)

QUALITY_STEPS_DB = (30.0, 35.0, 40.0, math.inf)
"""PSNR that readers look for."""

BASELINE_FAILED = "baseline_failed"

UNFINISHED = ("interrupted", "cut_off")
"""Codes of cells that were cut short when their sweep ended: nothing is wrong with them."""

INCOMPLETE = "not_finished"

REASON = 120
"""The most characters of a reason in a sentence."""


Described = Callable[[Row], str]
"""Describes a recommended cell."""


def conclude(
    rows: Sequence[Row],
    ladders: Sequence[Ladder] = (),
    loads: Sequence[Line] = (),
    limits: Sequence[LimitCell] = (),
    random_weights: bool = False,
) -> tuple[Conclusion, ...]:
    """All conclusions, the answer first and what to do next last; () when nothing was measured.

    `rows` of summary.csv with their findings, `loads` what is said about all loads together, `limits` the cells with
    a known limit. With random weights, speed and quality of what changes images are not those of real ones.
    """
    rows = [row for row in rows if row["role"] in (BASELINE, FEATURE)]
    contexts: dict[Context, list[Row]] = {}
    for row in rows:
        contexts.setdefault(context_of(row), []).append(row)
    found = [one for group in contexts.values() for one in _fastest(group, random_weights)]
    found += add_ons(rows)
    found += best_under_load(ladders)
    found += [Conclusion(LOAD, f"{name}: {about}.") for name, about in loads]
    found += [*_did_nothing(rows), *_do_not_use(rows), *_slower(rows), *_unsure(rows), *_bottleneck(contexts.values())]
    found += _limit(winners(found), limits)
    return (*found, *_next(rows, found))


def winners(found: Iterable[Conclusion]) -> list[str]:
    """Keys of the cells to take, one of each context that has one."""
    return [one.cells[0] for one in found if one.code in (FASTEST, TIED)]


# -- which combination is fastest


def _fastest(rows: Sequence[Row], random_weights: bool) -> list[Conclusion]:
    """The fastest that passes among cells of one context, and what is faster or keeps more."""
    judged = [row for row in rows if row["role"] == FEATURE and counts(row)]
    if not judged:
        return []
    described = functools.partial(_described, random_weights=random_weights)
    faster = [row for row in judged if row["status"] == PASS and text(row, "called") == FASTER]
    passing = [row for row in faster if family.certain(row)]
    if not passing:
        return [_perhaps(faster) if faster else _none_faster(judged), *_warned(judged, None, described)]
    best = max(passing, key=_ratio)
    close = [row for row in passing if row is best or _high(row) >= (number(best, "speedup_low") or math.inf)]
    chosen = min(close, key=lambda row: (_devices(row), -_quality(row), -_ratio(row)))
    found = [_crowned(chosen, described)] if len(close) == 1 else [_tied(chosen, close, described)]
    return [*found, *_by_quality(chosen, passing), *_warned(judged, best, described)]


def _crowned(row: Row, described: Described) -> Conclusion:
    return Conclusion(FASTEST, f"Fastest that passes: {described(row)}.", (text(row, "cell_key"),))


def _tied(chosen: Row, close: Sequence[Row], described: Described) -> Conclusion:
    """Intervals overlap, so no cell is the fastest: devices and quality decide which to take."""
    others = sorted((row for row in close if row is not chosen), key=_ratio, reverse=True)
    names = listed([f"{text(row, 'cell')} {speedup_text(row)}" for row in others], NAMED)
    keys = tuple(text(row, "cell_key") for row in (chosen, *others))
    because = _advantage(chosen, others)
    return Conclusion(TIED, f"Fastest that pass: {described(chosen)}; too close to call: {names}. {because}", keys)


def _advantage(chosen: Row, others: Sequence[Row]) -> str:
    name = text(chosen, "cell")
    if all(_devices(row) > _devices(chosen) for row in others):
        return f"Take {name}: it needs fewer devices."
    if all(_devices(row) == _devices(chosen) and _quality(row) < _quality(chosen) for row in others):
        return f"Take {name}: its images are closest to the baseline's."
    return f"Take {name}: it needs the fewest devices and, of those that do, keeps images closest to the baseline's."


def _by_quality(chosen: Row, passing: Sequence[Row]) -> list[Conclusion]:
    """The fastest at each quality better than the chosen cell's, where more quality clearly costs speed."""
    found: list[tuple[str, Row]] = []
    slower_than = number(chosen, "speedup_low") or 0.0
    for least_db in sorted(QUALITY_STEPS_DB):
        good = [row for row in passing if _quality(row) >= least_db > _quality(chosen)]
        best = max(good, key=_ratio, default=None)
        if best is not None and _high(best) < slower_than:
            slower_than = number(best, "speedup_low") or 0.0
            found.append((_at_least(least_db), best))
    if not found:
        return []
    names = "; ".join(f"{quality} {text(row, 'cell')}, {speedup_text(row)}" for quality, row in found)
    return [Conclusion(BY_QUALITY, f"With better images: {names}.", tuple(text(row, "cell_key") for _, row in found))]


def _at_least(psnr_db: float) -> str:
    return "identical" if psnr_db == math.inf else f"at least {psnr_db:g} dB"


def _none_faster(judged: Sequence[Row]) -> Conclusion:
    where = _where(judged)
    slower = all(text(row, "called") == SLOWER for row in judged)
    what = "every combination that works is slower than the baseline" if slower else "nothing is faster beyond noise"
    return Conclusion(NONE_FASTER, f"{where}: {what}.", tuple(text(row, "cell_key") for row in judged))


def _perhaps(faster: Sequence[Row]) -> Conclusion:
    """Cells with the verdict "faster", each of which may be the one in twenty that looks so by chance."""
    names = listed([f"{text(row, 'cell')} {speedup_text(row)}" for row in faster], NAMED)
    sentence = f"{names} looks faster, but among all cells that were judged chance alone would make one look so."
    return Conclusion(FASTER_ALONE, sentence, tuple(text(row, "cell_key") for row in faster))


def _warned(judged: Sequence[Row], best: Row | None, described: Described) -> list[Conclusion]:
    """Cells that are faster still, but at a price that the quality gates warn of."""
    least = _high(best) if best else 0.0
    faster = [row for row in judged if row["status"] == WARN and text(row, "called") == FASTER]
    faster = [row for row in faster if (number(row, "speedup_low") or 0.0) > least]
    if not faster:
        return []
    row = max(faster, key=_ratio)
    sentence = f"Faster {'still, ' if best else ''}but with a warning: {described(row)} ({text(row, 'reason')})."
    return [Conclusion(FASTER_WITH_A_WARNING, sentence, (text(row, "cell_key"),))]


def _described(row: Row, random_weights: bool) -> str:
    """`teacache b1, 1.40x (1.12-1.75), 2.21 → 1.58 s, PSNR 33.1 dB, 97% of pictures show what was asked`."""
    doubt = " (random weights: not representative)" if random_weights and _quality(row) < math.inf else ""
    before, after = digits(number(row, "baseline_latency_s")), digits(number(row, "latency_mean_s"), "s")
    quality, exact = quality_text(row), number(row, "exact_rate")
    parts = [
        f"{text(row, 'cell')}, {speedup_text(row)}",
        f"{before} → {after}" if before and after else "",
        "images identical" if quality == "identical" else f"PSNR {quality}" if quality.endswith("dB") else quality,
        "" if exact is None else f"{exact:.0%} of pictures show what was asked",
    ]
    return ", ".join(filter(None, parts)) + doubt


def _ratio(row: Row) -> float:
    return number(row, "speedup") or 0.0


def _high(row: Row) -> float:
    return number(row, "speedup_high") or _ratio(row)


def _devices(row: Row) -> float:
    return number(row, "gpus") or 1


def _quality(row: Row) -> float:
    """PSNR in dB, inf for identical images, -inf where it is unknown."""
    if number(row, "mean_diff") == 0:
        return math.inf
    found = number(row, "psnr_db")
    return -math.inf if found is None else found


# -- what not to use, and what is unknown


def _did_nothing(rows: Sequence[Row]) -> list[Conclusion]:
    silent = [row for row in rows if row["status"] == FAIL and has(said(row, "findings"), NOT_ENGAGED)]
    did = "ran like the baseline although switched on"
    return _about(DID_NOTHING, silent, lambda names: f"Silently did nothing: {names} {did}.")


def _do_not_use(rows: Sequence[Row]) -> list[Conclusion]:
    lost = [row for row in rows if row["status"] in LOST and not has(said(row, "findings"), NOT_ENGAGED)]
    unfinished = [row for row in lost if any(has(said(row, "findings"), code) for code in UNFINISHED)]
    lost = [row for row in lost if row not in unfinished]
    alone = [row for row in lost if row["role"] == BASELINE]
    features = [row for row in lost if row["role"] == FEATURE]
    return [
        *_about(INCOMPLETE, unfinished, lambda names: f"Not finished: {names}; the same command resumes it."),
        *_about(BASELINE_FAILED, alone, lambda names: f"The baseline itself failed: {names}.", _first_reason(alone)),
        *_about(DO_NOT_USE, features, lambda names: f"Do not use: {names}.", _first_reason(features)),
    ]


def _first_reason(rows: Sequence[Row]) -> Callable[[Row], str]:
    """`(a pixel differs by 0.153, more than the gate of 0.05)` after the first of these cells, "" after others."""
    reason = shorten(text(rows[0], "reason"), REASON, placeholder="…") if rows else ""
    return lambda row: f"({reason})" if row is rows[0] and reason else ""


def _slower(rows: Sequence[Row]) -> list[Conclusion]:
    slower = [row for row in rows if counts(row) and text(row, "called") == SLOWER]
    return _about(SLOWER_CELLS, slower, lambda names: f"Slower than the baseline: {names}.", speedup_text)


def _unsure(rows: Sequence[Row]) -> list[Conclusion]:
    """Speed-ups that noise may hide, those that are no difference, and those that nothing judges."""
    same = [row for row in rows if counts(row) and text(row, "called") == NO_DIFFERENCE]
    wide, narrow = [row for row in same if vague(row)], [row for row in same if not vague(row)]
    unjudged = [row for row in rows if row["status"] in USABLE and has(said(row, "findings"), NOT_JUDGED)]
    return [
        *_about(WITHIN_NOISE, wide, lambda names: f"Within noise, so unknown: {names}.", interval_text),
        *_about(SAME_SPEED, narrow, lambda names: f"No difference from the baseline: {names}.", interval_text),
        *_about(NO_VERDICT, unjudged, lambda names: f"Speed not judged: {names}.", speedup_text),
    ]


def _about(
    code: str, rows: Sequence[Row], sentence: Callable[[str], str], detail: Callable[[Row], str] = lambda row: ""
) -> list[Conclusion]:
    """One sentence on all of these cells; none when there are no cells."""
    if not rows:
        return []
    names = [f"{text(row, 'cell')} {detail(row)}".strip() for row in rows]
    return [Conclusion(code, sentence(listed(names, NAMED)), tuple(text(row, "cell_key") for row in rows))]


# -- where time goes, and what to do next


def _bottleneck(contexts: Iterable[Sequence[Row]]) -> list[Conclusion]:
    """The longest phase of each baseline, and of the fastest cell where it is another one."""
    by_phase: dict[str, list[Row]] = {}
    moved = []
    for rows in contexts:
        baseline = next((row for row in rows if row["role"] == BASELINE and text(row, "bottleneck")), None)
        alone = rows[0] if len(rows) == 1 and text(rows[0], "bottleneck") else None
        if (first := baseline or alone) is None:
            continue
        by_phase.setdefault(text(first, "bottleneck"), []).append(first)
        passing = [row for row in rows if row["status"] == PASS and family.certain(row)]
        best = max(passing, key=_ratio, default=None)
        if best and text(best, "bottleneck") not in ("", text(first, "bottleneck")):
            moved.append(best)
    found = []
    for phase, rows in by_phase.items():
        shares = [f"{text(row, 'cell')} {share:.0%}" for row in rows if (share := number(row, f"{phase}_share"))]
        sentence = f"Bottleneck: {phase} ({listed(shares, NAMED)})."
        found.append(Conclusion(BOTTLENECK, sentence, tuple(text(row, "cell_key") for row in rows)))
    if moved:
        longest = [(row, *_longest(row)) for row in moved]
        shares = [f"{phase} ({text(row, 'cell')}{share})" for row, phase, share in longest]
        sentence = f"With the fastest it moves to {listed(shares, NAMED)}."
        found.append(Conclusion(BOTTLENECK, sentence, tuple(text(row, "cell_key") for row in moved)))
    return found


def _longest(row: Row) -> tuple[str, str]:
    """The bottleneck of a cell, and ` 52%` of its time; "" where its share is unknown."""
    phase = text(row, "bottleneck")
    share = number(row, f"{phase}_share")
    return phase, "" if share is None else f" {share:.0%}"


def _limit(keys: Sequence[str], limits: Sequence[LimitCell]) -> list[Conclusion]:
    """How far the cells to take are from the limit of their devices, where those are known."""
    by_key = {one.key: one for one in limits}
    chosen = [by_key[key] for key in keys if key in by_key]
    return [Conclusion(LIMIT, limit_words.winners(chosen), tuple(one.key for one in chosen))] if chosen else []


def _next(rows: Sequence[Row], found: Sequence[Conclusion]) -> list[Conclusion]:
    """The one step that would answer most."""
    codes = {one.code for one in found}
    missed = [row for row in rows if counts(row) and _imprecise(row)]
    more = any(has(said(row, "notes"), MORE_STARTS) for row in missed)
    if NO_VERDICT in codes and any(has(said(row, "notes"), "noise_unknown") for row in rows):
        advice = "add aa=2, so that start-to-start noise is known and speed-ups get verdicts"
    elif missed:
        count = f"{len(missed)} speed-up{'' if len(missed) == 1 else 's'} missed the target precision"
        advice = f"{count}; " + ("aa=3 repeat=auto would tell" if more else "more prompts, or a higher aa, would tell")
    elif FASTEST in codes or TIED in codes:
        winner = next(one for one in found if one.code in (FASTEST, TIED))
        row = next(row for row in rows if text(row, "cell_key") == winner.cells[0])
        if not text(row, "bottleneck"):
            return []
        advice = f"profile=nsys tells what limits {text(row, 'bottleneck')} in {text(row, 'cell')}"
    else:
        return []
    return [Conclusion(NEXT, f"Next: {advice}.")]


def _imprecise(row: Row) -> bool:
    notes = said(row, "notes")
    return has(notes, IMPRECISE) or has(notes, MORE_STARTS)


def _where(rows: Sequence[Row]) -> str:
    """`batch 2`, or `tiny_glm_image, batch 2 under closed load`: what the sentence is about."""
    row = rows[0]
    load = f", {text(row, 'load')}" if text(row, "load") else ""
    return f"{text(row, 'model')}, batch {text(row, 'batch')}{load}"
