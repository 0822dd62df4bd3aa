"""The measurements of a cell over all its engine starts, and start-to-start noise.

Joins stored results by cell: a cell's own result and those of its repeats. Turns them into the samples that
`paired` compares. Reads no files; knows result records, but no statuses.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.analysis import paired
from sweep.analysis.cell_data import CellData
from sweep.analysis.load_metrics import taken_s
from sweep.analysis.paired import Noise, Ratio, Start
from sweep.cached import cached_property
from sweep.plan.cells import AA, BASELINE, FEATURE, REPEAT, Cell, model_and_engine
from sweep.plan.plans import Plan
from sweep.results.records import DONE, BatchRow, RunResult

Results = Mapping[str, RunResult | None]
"""Results by cell key; None where there is none."""


@dataclass(frozen=True)
class Measured:
    """One cell with the results of every start that finished, its own first."""

    cell: Cell
    results: tuple[RunResult, ...]

    @cached_property
    def starts(self) -> list[Start]:
        """Latencies by sample, one mapping per start."""
        return [load_samples(self.cell, one) if self.cell.under_load else samples(one) for one in self.results]

    @cached_property
    def pairs(self) -> list[tuple[Start, Start]]:
        """(baseline, cell) of the starts with an interleaved baseline."""
        known = [_first_requests(result) for result in self.results]
        both = [(_baseline_latencies(batches), _latencies(batches)) for batches in known]
        return [(reference, own) for reference, own in both if reference]


@dataclass(frozen=True)
class Floor:
    """Noise of one model and engine: between separate starts, and between starts with an interleaved baseline."""

    alone: Noise = Noise()
    interleaved: Noise = Noise()
    starts: int = 0  # of the baseline, all batches


def samples(result: RunResult) -> Start:
    """Seconds per batch, by what identifies it in another cell: its first request and repeat."""
    return _latencies(_first_requests(result))


def load_samples(cell: Cell, result: RunResult) -> Start:
    """The same under load: seconds from due to last byte, as means of consecutive requests of the steady state.

    Requests that overlap wait for one another, so single ones are not independent samples; means of many nearly are
    (the method of batch means, e.g. Law, "Simulation Modeling and Analysis").
    """
    judged = CellData(cell, (result,)).judged
    count = min(BLOCKS, len(judged) // FEWEST_IN_BLOCK)
    if not count:
        return {}
    edges = [number * len(judged) // count for number in range(count + 1)]
    blocks = [judged[low:high] for low, high in itertools.pairwise(edges)]
    return {(number, 0, 0): math.fsum(map(taken_s, block)) / len(block) for number, block in enumerate(blocks)}


def baseline_samples(result: RunResult) -> Start:
    """The same for the interleaved baseline; empty when there was none."""
    return _baseline_latencies(_first_requests(result))


BLOCKS, FEWEST_IN_BLOCK = 10, 3
"""Most means of a load, and fewest requests in a mean."""

Batches = Sequence[tuple[paired.Sample, BatchRow]]
"""Measured batches, each with the sample of its first request."""


def _latencies(batches: Batches) -> Start:
    return {key: batch.latency_s for key, batch in batches}


def _baseline_latencies(batches: Batches) -> Start:
    return {key: batch.baseline_s for key, batch in batches if batch.baseline_s is not None}


def _first_requests(result: RunResult) -> Batches:
    firsts: dict[int, paired.Sample] = {}
    for request in result.requests:
        if request.exit_code == 0:
            firsts.setdefault(request.batch_index, (request.prompt_index, request.seed, request.repeat))
    return [(firsts[batch.batch_index], batch) for batch in result.batches if batch.batch_index in firsts]


def measured_cells(plan: Plan, results: Results) -> dict[str, Measured]:
    """Cells with at least one finished start, by key. Repeats belong to their origin; A/A cells are separate."""
    found: dict[str, list[RunResult]] = {}
    for cell in plan.cells:  # in the plan's order a first start comes before its repeats
        result = results.get(cell.key)
        if result is not None and result.state == DONE and result.batches:
            found.setdefault(cell.origin if cell.role == REPEAT else cell.key, []).append(result)
    return {key: Measured(plan.by_key[key], tuple(both)) for key, both in found.items() if key in plan.by_key}


def baselines(measured: Mapping[str, Measured]) -> dict[str, list[Measured]]:
    """Each baseline with its A/A starts, by the baseline's key."""
    found: dict[str, list[Measured]] = {}
    for one in measured.values():
        if one.cell.role != FEATURE:
            found.setdefault(one.cell.origin, []).append(one)
    return found


def floors(plan: Plan, measured: Mapping[str, Measured]) -> dict[tuple[str, str], Floor]:
    """Noise by model and engine, from the A/A cells and the baselines that they repeat."""
    families: dict[tuple[str, str], dict[str, list[Measured]]] = {}
    for cell in plan.cells:
        if cell.role in (BASELINE, AA) and not cell.profile and cell.key in measured:
            family = families.setdefault(model_and_engine(cell), {})
            family.setdefault(cell.origin, []).append(measured[cell.key])
    found = {}
    for name, family in families.items():
        alone = paired.noise_between_starts([one for m in same for one in m.starts] for same in family.values())
        repeats = [m for same in family.values() for m in same if m.cell.role == AA]
        interleaved = paired.interleaved_noise(pair for m in repeats for pair in m.pairs)
        found[name] = Floor(alone, interleaved, sum(len(m.results) for same in family.values() for m in same))
    return found


def speedup(cell: Measured, baselines: Sequence[Measured], floor: Floor) -> Ratio:
    """Speed-up of a cell over its interleaved baseline where there was one, else over all starts of its baseline.

    Empty for a profiled cell, because profiling takes time; exactly 1 for a baseline. An A/A cell is compared only with
    the first start of its baseline, and does not judge itself.
    """
    if cell.cell.profile:
        return Ratio()
    if cell.cell.baseline_key == cell.cell.key:
        return Ratio(1.0, 1.0, 1.0)
    again = cell.cell.role == AA
    known = Floor() if again else floor
    if again:
        baselines = [one for one in baselines if one.cell.key == cell.cell.baseline_key]
    if cell.pairs:
        return paired.compare_interleaved(cell.pairs, known.interleaved)
    return paired.compare([one for m in baselines for one in m.starts], cell.starts, known.alone)
