"""What is known about a cell's speed as soon as it is finished, while the sweep still runs. Pure.

Cheap on purpose: it is computed while other cells are measured. An early estimate has no interval and no verdict,
because both need the A/A runs, which come last; the sweep finally reports `engine_starts.speedup`.
"""

from dataclasses import dataclass

from sweep.analysis import metrics
from sweep.analysis.cell_data import CellData
from sweep.plan.cells import Cell
from sweep.results.records import DONE, RunResult


@dataclass(frozen=True)
class Early:
    """Mean latencies in seconds: of the cell, and of its baseline where it has one that is finished."""

    latency_s: float
    baseline_s: float | None = None

    @property
    def speedup(self) -> float | None:
        """Baseline ÷ cell."""
        return None if self.baseline_s is None else self.baseline_s / self.latency_s


def estimate(cell: Cell, result: RunResult | None, baseline: RunResult | None) -> Early | None:
    """The speed of a cell against its interleaved baseline, else against `baseline`, the baseline's own result.

    None where nothing was measured. A profiled cell is compared with nothing, because profiling takes time.
    """
    own = _latency_s(cell, result)
    if own is None or result is None:
        return None
    if cell.profile or cell.baseline_key == cell.key:
        return Early(own)
    beside = [batch for batch in result.batches if batch.baseline_s is not None]
    if beside:  # both of the same batches
        own = metrics.mean([batch.latency_s for batch in beside]) or own
        return Early(own, metrics.mean([batch.baseline_s for batch in beside if batch.baseline_s is not None]))
    return Early(own, _latency_s(cell, baseline))


def _latency_s(cell: Cell, result: RunResult | None) -> float | None:
    """A cell and its baseline run under the same load, so `cell` shows how to read the result of either."""
    if result is None or result.state != DONE:
        return None
    if cell.under_load:
        return metrics.mean(CellData(cell, (result,)).latencies_s)
    return metrics.mean([batch.latency_s for batch in result.batches])
