"""Loads that a search adds: more in flight until throughput stops growing, the highest rate within the SLO, or the same
load again, part by part, for hours.

Pure decisions over what was measured so far. An engine asks for more after its cells, without a restart.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweep.analysis import load_metrics
from sweep.analysis.cell_data import CellData
from sweep.analysis.engine_starts import Results
from sweep.config.load import Load
from sweep.plan.cells import BASELINE, FEATURE, Cell, at_level
from sweep.results.records import DONE

WORTH = 1.05
"""Throughput with twice as many in flight ÷ throughput before, below which more load is not worth it."""

MOST_RUNGS = 24
"""Most loads that one search measures: with a server that answers at random it would never end."""


@dataclass(frozen=True)
class Rung:
    """One load that was measured."""

    level: float  # requests in flight, or per second
    images_per_s: float
    attained: float | None  # share of requests that met the SLO; None without one
    failed: bool = False  # a request got no usable reply, or the cell did not finish


def searches(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that a search begins with."""
    return [
        cell
        for cell in cells
        if cell.under_load
        and cell.config["load"].get("search")
        and cell.role in (BASELINE, FEATURE)
        and not (cell.root or cell.skip)
    ]


def proposed(cells: Sequence[Cell], results: Results) -> list[Cell]:
    """Cells to add now: the next load of every search that has not ended."""
    added: list[Cell] = []
    for root in searches(cells):
        family = [cell for cell in cells if root.key in (cell.key, cell.root) and cell.role == root.role]
        rungs = [_rung(cell, results) for cell in family]
        level = following(_load(root), [rung for rung in rungs if rung is not None])
        limit = MOST_RUNGS if _load(root).search != "soak" else _load(root).parts
        if level is None or len(family) >= limit or len(rungs) > sum(rung is not None for rung in rungs):
            continue
        added.append(at_level(root, level))
    return added


def following(load: Load, rungs: Sequence[Rung]) -> float | None:
    """The next load to measure; None when the search has ended, or where it cannot begin."""
    known = sorted(rungs, key=lambda rung: rung.level)
    if not known:
        return None
    if load.search == "soak":
        return known[-1].level + 1 if known[-1].level + 1 < load.parts else None
    return _twice_as_many(load, known) if load.search == "concurrency" else _between(load, known)


def _twice_as_many(load: Load, rungs: Sequence[Rung]) -> float | None:
    last = rungs[-1]
    grew = len(rungs) < 2 or last.images_per_s >= WORTH * rungs[-2].images_per_s
    more = 2 * last.level
    return more if grew and not last.failed and more <= load.most else None


def _between(load: Load, rungs: Sequence[Rung]) -> float | None:
    """Between the highest rate that meets the SLO and the lowest that does not; beyond both while one is unknown.

    Steps have an equal ratio, because the precision is a ratio.
    """
    met = [rung.level for rung in rungs if _meets(load, rung)]
    missed = [rung.level for rung in rungs if not _meets(load, rung)]
    if not missed:
        more = 2 * max(met)
        return _rounded(more) if more <= load.most else None
    low = max((level for level in met if level < min(missed)), default=None)
    if low is None:
        return _rounded(min(missed) / 2)
    high = min(missed)
    middle = _rounded(math.sqrt(low * high))
    return None if high / low <= 1 + load.precision or middle in (low, high) else middle


def _meets(load: Load, rung: Rung) -> bool:
    return not rung.failed and rung.attained is not None and rung.attained >= load.attain


def _rounded(level: float) -> float:
    """To four digits, because labels contain levels."""
    return float(f"{level:.4g}")


def level_of(cell: Cell) -> float:
    """Requests in flight, or per second; for a soak, its part."""
    load = _load(cell)
    if load.search == "soak":
        return float(load.part)
    return float(load.max_concurrency or 0) if load.name == "closed" else float(load.request_rate or 0.0)


def _load(cell: Cell) -> Load:
    return cell.run_config.load


def _rung(cell: Cell, results: Results) -> Rung | None:
    """What was measured under this load; None when nothing was yet."""
    result = results.get(cell.key)
    if result is None:
        return None
    level = level_of(cell)
    if result.state != DONE:
        return Rung(level, 0.0, 0.0, failed=True)
    data = CellData(cell, (result,))
    rate = len(data.completed) / data.wall_s if data.wall_s else 0.0
    return Rung(level, rate, load_metrics.goodput(data), failed=bool(result.failed))
