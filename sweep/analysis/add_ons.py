"""What a feature adds to others: how much faster `base=A add=B` is than A alone.

Where both cells have interleaved baselines, each is taken relative to its own, so that drift between the two cancels.
Otherwise they are compared directly: they share one baseline, which would cancel and only add its noise. Pure functions
over summary rows and measurements.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.analysis import paired
from sweep.analysis.engine_starts import Floor, Measured
from sweep.analysis.paired import Ratio
from sweep.plan.cells import Cell, model_and_engine


def fill(
    rows: Sequence[dict[str, Any]],
    cells: Mapping[str, Cell],
    measured: Mapping[str, Measured],
    floors: Mapping[tuple[str, str], Floor],
) -> None:
    """Fill `base`, `gain_over_base` and its interval into the rows of cells that add features to a base."""
    for row in rows:
        cell = cells[row["cell_key"]]
        if cell.base_key not in cells:
            continue
        row["base"] = cells[cell.base_key].label
        base, mine = measured.get(cell.base_key), measured.get(cell.key)
        if base and mine:
            found = gain(base, mine, floors.get(model_and_engine(cell), Floor()))
            row |= {"gain_over_base": found.ratio, "gain_over_base_low": found.low, "gain_over_base_high": found.high}


def gain(base: Measured, cell: Measured, floor: Floor) -> Ratio:
    """Latency of the base ÷ latency of the cell, with the start-to-start noise of both; empty for profiled cells."""
    if base.cell.profile or cell.cell.profile:
        return Ratio()
    if base.pairs and cell.pairs:
        before, after = ([paired.relative(own, reference) for reference, own in one.pairs] for one in (base, cell))
        return paired.compare(before, after, floor.interleaved)
    return paired.compare(base.starts, cell.starts, floor.alone)
