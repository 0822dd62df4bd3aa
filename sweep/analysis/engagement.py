"""Where a feature engaged: on which ranks, in which batches, in which engine starts. Pure functions over stored values.

`evidence` judges one rank in one batch; this module judges a cell. A feature that engaged on one rank
of two, or in the warm-up alone, did not engage; one that engaged in some batches of several engaged partly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profiling.evidence import RankEvidence
from sweep.analysis.evidence import NO_EVIDENCE, UNVERIFIABLE, total_evidence
from sweep.cached import cached_property
from sweep.findings import FAIL, WARN, Finding
from sweep.results.records import RunResult

NOT_ENGAGED, PARTLY_ENGAGED = "not_engaged", "partly_engaged"
"""Codes: nowhere, or never on some rank; and on all ranks, but not in every batch."""

NAMED = 6
"""How many batches a message names at most."""

Ranks = Sequence[RankEvidence]
Check = Callable[[Ranks, Ranks], dict[int, Finding | None]]
"""Evidence of one batch, and of the same batch in another cell -> by rank, why a feature did not engage there."""


@dataclass(frozen=True)
class Executed:
    """What the ranks of one engine start executed: by measured batch, in order, and by warm-up batch."""

    batches: tuple[tuple[RankEvidence, ...], ...] = ()
    warm_up: tuple[tuple[RankEvidence, ...], ...] = ()
    repeats: tuple[int, ...] = ()  # of each measured batch: how often the same requests were sent before

    @cached_property
    def total(self) -> tuple[RankEvidence, ...]:
        """Over all measured batches, as `total_evidence` adds them."""
        return total_evidence(self.batches)

    def like(self, count: int) -> Sequence[Ranks]:
        """Evidence to compare each of `count` batches with: that of the same batch where there is one, else all."""
        return [same or self.total for same in self.batches] if len(self.batches) == count else [self.total] * count

    def named(self, numbers: Sequence[int]) -> str:
        """`batch 4`, `batches 1 and 3`; `batch 4 of every repeat` where the same requests were sent several times."""
        if len(set(self.repeats)) < 2:
            return _numbered("batch", "batches", [number + 1 for number in numbers])
        places = [self.repeats[:number].count(self.repeats[number]) + 1 for number in range(len(self.repeats))]
        found = {place: [n for n in numbers if places[n] == place] for place in sorted({places[n] for n in numbers})}
        if all(len(numbered) == places.count(place) for place, numbered in found.items()):
            return _numbered("batch", "batches", list(found)) + " of every repeat"
        return _listed([f"batch {places[n]} of repeat {self.repeats[n] + 1}" for n in numbers])


def executed(result: RunResult) -> Executed:
    """What one stored engine start executed."""
    batches, repeats = [batch.evidence for batch in result.batches], [batch.repeat for batch in result.batches]
    return Executed(tuple(batches), result.warm_up, tuple(repeats))


def judge(name: str, starts: Sequence[Executed], other: Executed, check: Check) -> Finding | None:
    """Where the feature `name` did not engage, as FAIL or WARN; None where it engaged on every rank in every batch.

    `other` is what it is compared with: the baseline, in most cases.
    """
    found = [_judge_start(name, start, other, check) for start in starts]
    if not starts:
        return Finding(NOT_ENGAGED, f"{name} did not engage: {NO_EVIDENCE.text}", FAIL)
    grave = [number for number, one in enumerate(found) if one and one.status == FAIL]
    number = next((n for n in (*grave, *range(len(found))) if found[n]), None)
    worst = found[number] if number is not None else None
    if number is None or worst is None or all(one == worst for one in found):
        return worst
    return Finding(worst.code, f"engine start {number + 1} of {len(found)}: {worst.text}", worst.status)


def _judge_start(name: str, start: Executed, other: Executed, check: Check) -> Finding | None:
    count = len(start.batches)
    checked = [check(batch, same) for batch, same in zip(start.batches, other.like(count), strict=True)]
    ranks = sorted(set[int]().union(*checked))
    table = [
        found if len(found) == len(ranks) else found | {rank: NO_EVIDENCE for rank in ranks if rank not in found}
        for found in checked
    ]
    if not ranks:
        return Finding(NOT_ENGAGED, f"{name} did not engage: {NO_EVIDENCE.text}", FAIL)
    never = [rank for rank in ranks if all(found[rank] for found in table)]
    if never:
        why = next((one for found in table if (one := found[never[0]]) and one != NO_EVIDENCE), NO_EVIDENCE)
        if why.code == UNVERIFIABLE:
            return Finding(UNVERIFIABLE, f"{name}: {why.text}", WARN)
        return Finding(NOT_ENGAGED, f"{name} {_where_not(start, other, check, ranks, never)}: {why.text}", FAIL)
    partly = [number for number, found in enumerate(table) if any(found.values())]
    if not partly:
        return None
    whole = [number for number in range(count) if number not in partly]
    lacking = sorted({rank for number in partly for rank, why in table[number].items() if why})
    on = "" if lacking == ranks else f" on {_numbered('rank', 'ranks', lacking)}"
    few = 0 < len(whole) < len(partly)
    where = f"in {start.named(whole)}); elsewhere" if few else f"not in {start.named(partly)}{on}); there"
    why = next(one for one in table[partly[0]].values() if one)
    short = (
        f"{name} engaged in {len(whole)} of {count} batches" if whole else f"{name} never engaged on all ranks at once"
    )
    return Finding(PARTLY_ENGAGED, f"{short} ({where}, {why.text}", WARN, short)


def _where_not(start: Executed, other: Executed, check: Check, ranks: Sequence[int], never: Sequence[int]) -> str:
    """Says that it did not engage on the ranks `never`, and where it did."""
    if len(never) < len(ranks):
        did = [rank for rank in ranks if rank not in never]
        return f"engaged on {_numbered('rank', 'ranks', did)} but not on {_numbered('rank', 'ranks', never)}"
    warm = [check(batch, other.total) for batch in start.warm_up]
    if any(found and not all(found.values()) for found in warm):
        return "engaged in the warm-up alone"
    return "did not engage"


def _numbered(one: str, several: str, numbers: Sequence[int]) -> str:
    """`batch 4`, `ranks 0 and 2`."""
    return f"{one if len(numbers) == 1 else several} {_listed([str(number) for number in numbers])}"


def _listed(words: Sequence[str]) -> str:
    shown = [*words[:NAMED], f"{len(words) - NAMED} more"] if len(words) > NAMED + 1 else list(words)
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
