"""Which cells are measured again in a fresh engine: a fixed number of times, or until their precision suffices.

Pure decisions over a plan and its results.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from sweep.analysis import engine_starts
from sweep.analysis.engine_starts import Floor, Measured, Results
from sweep.plan.cells import AA, FEATURE, Cell, again, model_and_engine
from sweep.plan.plans import Plan

LEAST_NOISE_DF = 3
"""Fewest degrees of freedom of the noise (A/A starts) with which a narrow interval counts as narrow enough.

With fewer it may be narrow by luck: stopping whenever it is makes 7 to 10 % of verdicts wrong instead of 5 %.
"""


def further_starts(plan: Plan, results: Results) -> list[Cell]:
    """Cells to add to the plan: further engine starts of cells that need one, and of the baselines that they need.

    A cell needs another start while it has fewer than `repeat`; with repeat=auto, while the interval of its speed-up
    is wider than `precision` or rests on too few A/A starts, up to `max_repeat`. Failed cells are not tried again.
    """
    planned = _starts_planned(plan.cells)
    measured = engine_starts.measured_cells(plan, results)
    baselines, floors = engine_starts.baselines(measured), engine_starts.floors(plan, measured)
    wanted = [
        cell
        for cell in plan.cells
        if cell.role == FEATURE
        and not cell.profile
        and cell.key in measured
        and planned[cell.key] < _limit(cell)
        and not (
            cell.config["repeat"] == "auto"
            and _precise(cell, measured[cell.key], baselines.get(cell.baseline_key, []), floors)
        )
    ]
    added = [again(cell, planned[cell.key]) for cell in wanted]
    for key in dict.fromkeys(_baseline_of(cell, plan) for cell in wanted):
        baseline = plan.by_key.get(key)
        if baseline is None or key not in measured:
            continue
        partner = next((c.interleaved for c in plan.cells if c.role == AA and c.origin == key), "")
        added.append(dataclasses.replace(again(baseline, planned[key]), interleaved=partner))
    return added


def _precise(
    cell: Cell, measured: Measured, baselines: Sequence[Measured], floors: Mapping[tuple[str, str], Floor]
) -> bool:
    """Whether the interval of the cell's speed-up meets the target precision, and not by luck (LEAST_NOISE_DF)."""
    floor = floors.get(model_and_engine(cell), Floor())
    noise = floor.interleaved if measured.pairs else floor.alone
    width = engine_starts.speedup(measured, baselines, floor).half_width
    return noise.df >= LEAST_NOISE_DF and width is not None and width <= cell.config["precision"]


def _limit(cell: Cell) -> int:
    asked = cell.config["repeat"]
    return int(cell.config["max_repeat"] if asked == "auto" else asked)


def _starts_planned(cells: Iterable[Cell]) -> dict[str, int]:
    """How many starts each first cell has in the plan, including its own."""
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.origin] = max(counts.get(cell.origin, 0), cell.repeat + 1)
    return counts


def _baseline_of(cell: Cell, plan: Plan) -> str:
    """The baseline whose noise needs a better estimate: with interleaving one for the model, else the cell's own."""
    if cell.interleaved:
        repeated = (c.origin for c in plan.cells if c.role == AA and model_and_engine(c) == model_and_engine(cell))
        return next(repeated, cell.baseline_key)
    return cell.baseline_key
