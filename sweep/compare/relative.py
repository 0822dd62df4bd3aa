"""Latencies relative to each sweep's own baseline, so that a change of the whole machine cancels.

Pure functions over loaded cells. Knows nothing about verdicts.
"""

import math
from collections.abc import Sequence

from sweep.analysis.paired import Noise, Sample, Start, relative
from sweep.compare.load import Cell, Report


def relative_starts(report: Report, cell: Cell) -> tuple[tuple[Start, ...], Noise]:
    """Latencies of a cell ÷ those of its baseline, sample by sample, and the noise of one such start.

    If there is an interleaved baseline, it is used, with the noise of A/A runs against their interleaved baselines.
    Otherwise it is the sweep's baseline cell, averaged over its starts. Then both cell and baseline add the noise of a
    start. The variance is sd² · (1/n + 1/m) for n starts of the cell and m of the baseline, so one start has
    sd² · (1 + n/m), or √2 · sd for one start each.
    """
    floor = report.floor(cell)
    interleaved = [(samples, other) for samples, other in zip(cell.starts, cell.interleaved, strict=True) if other]
    if interleaved:
        starts = [relative(samples, other) for samples, other in interleaved]
        noise = floor.interleaved if floor.interleaved.df else _scaled(floor.alone, 2.0)
    else:
        baseline = _baseline_starts(report, cell)
        mean = geometric_mean_start(baseline)
        starts = [relative(samples, mean) for samples in cell.starts]
        noise = _scaled(floor.alone, 1 + len(starts) / len(baseline)) if baseline else floor.alone
    return tuple(start for start in starts if start), noise


def machine_scale(before: Report, after: Report, cell: Cell, other: Cell) -> float:
    """Baseline latency in `before` ÷ in `after`: converts phases of `after` to the speed of `before`."""
    means = []
    for report, one in ((before, cell), (after, other)):
        interleaved = [samples for samples in one.interleaved if samples]
        means.append(geometric_mean_start(interleaved or _baseline_starts(report, one)))
    shared = [key for key in means[0] if key in means[1]]
    if not shared:
        return 1.0
    return math.exp(math.fsum(math.log(means[0][key] / means[1][key]) for key in shared) / len(shared))


def _baseline_starts(report: Report, cell: Cell) -> tuple[Start, ...]:
    baseline = report.cells.get(cell.baseline_key)
    return report.starts(baseline) if baseline else ()


def _scaled(noise: Noise, parts: float) -> Noise:
    if noise.sd is None:
        return noise
    return Noise(noise.sd * math.sqrt(parts), noise.df, noise.prompt_sd * math.sqrt(parts))


def geometric_mean_start(starts: Sequence[Start]) -> dict[Sample, float]:
    """The geometric mean over starts of each sample that all of them have; empty if there is no start."""
    if not starts:
        return {}
    shared = set.intersection(*(set(start) for start in starts))
    return {key: math.exp(math.fsum(math.log(start[key]) for start in starts) / len(starts)) for key in shared}
