"""A prediction compared with others of the same search: speed-up, parallel efficiency, batching gain. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.predict.row import Row

Context = tuple[str, tuple[tuple[str, str], ...], int]


@dataclass(frozen=True)
class Relative:
    """None where the search lacks the configuration to compare with."""

    speedup: float | None = None  # latency of the baseline ÷ its own
    efficiency: float | None = None  # images/s of each GPU ÷ that of the baseline: 1 where no GPU is wasted
    batching_gain: float | None = None  # images/s ÷ those of the smallest batch with the same features


def relatives(rows: Sequence[Row]) -> list[Relative]:
    """One for each row, in their order."""
    baselines = {_context(row): row for row in rows if row.prediction and not row.features}
    smallest: dict[tuple[object, ...], Row] = {}
    for row in rows:
        if row.prediction:
            known = smallest.setdefault(_but_batch(row), row)
            if row.run.batch < known.run.batch:
                smallest[_but_batch(row)] = row
    return [_of(row, baselines.get(_context(row)), smallest.get(_but_batch(row))) for row in rows]


def _context(row: Row) -> Context:
    return row.device.name, tuple(one for one in row.varied if one[0] != "batch"), row.run.batch


def _but_batch(row: Row) -> tuple[object, ...]:
    device, varied, _ = _context(row)
    return device, varied, row.features


def _of(row: Row, baseline: Row | None, smallest: Row | None) -> Relative:
    found = row.prediction
    if found is None:
        return Relative()
    speedup = efficiency = gain = None
    if baseline is not None and baseline.prediction is not None:
        base = baseline.prediction
        speedup = base.latency_s / found.latency_s
        efficiency = speedup * base.point.gpus / found.point.gpus
    if smallest is not None and smallest.prediction is not None and smallest is not row:
        gain = found.images_per_s / smallest.prediction.images_per_s
    return Relative(speedup, efficiency, gain)
