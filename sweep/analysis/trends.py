"""Slopes over a long load: whether memory leaks, or latency and throughput degrade. Pure.

A soak is measured in parts, each a cell. Latency and throughput are compared over means of consecutive requests, memory
over the peaks of parts of one engine start, because a new process begins anew.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.analysis.cell_data import CellData
from sweep.analysis.load_metrics import taken_s
from sweep.analysis.paired import student
from sweep.findings import WARN, Finding
from sweep.plan.cells import AA, Cell
from sweep.results.records import DONE, RunResult

CONFIDENCE = 0.99
"""Confidence of a slope's interval: a long load has three slopes, and is watched for rare changes."""

WORTH = 0.02
"""Change over the whole load, relative, below which a slope is not reported, however well it is known."""

LEAST_GB = 0.010
"""The same for memory: allocators grow by a few megabytes and stop."""

BLOCKS, PARTS = 8, 4
"""Fewest means of latency, and fewest parts of one engine start, for a slope."""

REQUESTS_IN_BLOCK = 10

LEAK, SLOWER, LESS = "memory_grows", "latency_grows", "throughput_falls"


@dataclass(frozen=True)
class Slope:
    """A straight line through values over some x: its rise per x, with an interval, and its mean."""

    rise: float
    low: float
    high: float
    mean: float


@dataclass(frozen=True)
class Trend:
    """How one cell changed under a long load."""

    name: str
    root: str  # key of its first part
    parts: int
    hours: float
    findings: tuple[Finding, ...]
    text: str


def slope(xs: Sequence[float], ys: Sequence[float]) -> Slope | None:
    """Least squares; None for fewer than 4 values or without a spread of x.

    The interval is Student's, for as many values as are independent by the residuals' lag-1 autocorrelation.
    """
    count = len(xs)
    if count < 4:
        return None
    mean_x, mean_y = math.fsum(xs) / count, math.fsum(ys) / count
    spread = math.fsum((x - mean_x) ** 2 for x in xs)
    if spread <= 0:
        return None
    rise = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = [y - mean_y - rise * (x - mean_x) for x, y in zip(xs, ys, strict=True)]
    squares = math.fsum(one**2 for one in rest)
    error = math.sqrt(squares / (count - 2) / spread)
    alike = math.fsum(a * b for a, b in itertools.pairwise(rest)) / squares if squares else 0.0
    alike = min(max(alike, 0.0), 0.9)
    error *= math.sqrt((1 + alike) / (1 - alike))
    half = error * student(count - 2.0, CONFIDENCE)
    return Slope(rise, rise - half, rise + half, mean_y)


def trends(cells: Sequence[Cell], results: Mapping[str, RunResult | None]) -> list[Trend]:
    """One for each long load that has at least two finished parts."""
    found = []
    for root in cells:
        if root.root or root.role == AA or not root.under_load or root.config["load"].get("search") != "soak":
            continue
        parts = [cell for cell in cells if root.key in (cell.key, cell.root) and cell.role == root.role]
        parts.sort(key=lambda cell: int(cell.config["load"]["part"]))
        done = [(cell, one) for cell in parts if (one := results.get(cell.key)) is not None and one.state == DONE]
        if len(done) > 1:
            found.append(_trend(root, done))
    return found


def _trend(root: Cell, parts: Sequence[tuple[Cell, RunResult]]) -> Trend:
    datas = [CellData(cell, (result,)) for cell, result in parts]
    begins = _begins([data.wall_s for data in datas])
    hours = (begins[-1] + datas[-1].wall_s) / 3600
    latency, throughput = _blocks(datas, begins)
    found = [
        *_changes(latency, hours, 1, SLOWER, "latency grows"),
        *_changes(throughput, hours, -1, LESS, "throughput falls"),
        *_leak([result for _, result in parts]),
    ]
    known = [_words("latency", latency, hours), _words("throughput", throughput, hours), _memory(parts)]
    said = "; ".join(one.text for one in found) or "no leak, no degradation"
    text = f"{said}, in {len(parts)} parts of {hours:.3g} h under load ({', '.join(filter(None, known))})"
    name = " ".join(root.label.replace(root.run_config.load.level, "").split())
    return Trend(name, root.key, len(parts), hours, tuple(found), text)


def _begins(lengths: Sequence[float]) -> list[float]:
    """When each part begins, if one followed the other at once: pauses are not load."""
    found, total = [], 0.0
    for length in lengths:
        found.append(total)
        total += length
    return found


def _blocks(datas: Sequence[CellData], begins: Sequence[float]) -> tuple[Slope | None, Slope | None]:
    """Slopes per hour of latency, and of throughput, over blocks of consecutive requests."""
    times, latencies = [], []
    for data, begin in zip(datas, begins, strict=True):
        rows = sorted(data.judged, key=lambda row: row.sent_s or 0.0)
        for at in range(0, len(rows) - REQUESTS_IN_BLOCK + 1, REQUESTS_IN_BLOCK):
            block = rows[at : at + REQUESTS_IN_BLOCK]
            took = math.fsum(map(taken_s, block)) / len(block)
            first, last = block[0].sent_s or 0.0, block[-1].sent_s or 0.0
            times.append((begin + (first + last) / 2 - (rows[0].sent_s or 0.0)) / 3600)
            latencies.append(took)
    if len(times) < BLOCKS:
        return None, None
    per_part = [(len(data.completed) / data.wall_s, begin / 3600) for data, begin in zip(datas, begins, strict=True)]
    return slope(times, latencies), slope([at for _, at in per_part], [rate for rate, _ in per_part])


def _changes(found: Slope | None, hours: float, sign: int, code: str, words: str) -> list[Finding]:
    """A slope that is surely in this direction, and large enough to matter over the load."""
    if found is None or not found.mean:
        return []
    nearest = found.low if sign > 0 else -found.high
    if nearest <= 0 or sign * found.rise * hours / found.mean < WORTH:
        return []
    share, low, high = (100 * sign * one / found.mean / 60 for one in (found.rise, found.low, found.high))
    low, high = sorted((low, high))
    return [Finding(code, f"{words} by {share:.2g} % a minute (99 % interval {low:.2g} to {high:.2g})", WARN)]


def _leak(results: Sequence[RunResult]) -> list[Finding]:
    """Memory that grows with the requests served, within the longest run of parts of one engine start."""
    served, peaks = _peaks(results)
    found = slope(served, peaks) if len(peaks) >= PARTS else None
    if found is None or found.low <= 0:
        return []
    grown_gb = found.rise * (served[-1] - served[0])
    if grown_gb < max(LEAST_GB, WORTH * found.mean):
        return []
    each, low, high = (1e3 * one for one in (found.rise, found.low, found.high))
    text = f"memory grows by {each:.2g} MB a request (99 % interval {low:.2g} to {high:.2g}): a leak"
    return [Finding(LEAK, text, WARN)]


def _peaks(results: Sequence[RunResult]) -> tuple[list[float], list[float]]:
    """Requests served by the end of each part, and GB at its peak, of the engine start with the most parts."""
    runs: dict[float | None, list[RunResult]] = {}
    for result in results:
        if result.telemetry.get("peak_memory_gb") is not None:
            runs.setdefault(result.load_s, []).append(result)  # an engine start took its own time to load
    longest = max(runs.values(), key=len, default=[])
    served, peaks, total = [], [], 0
    for result in longest:
        total += len(result.requests)
        served.append(float(total))
        peaks.append(float(result.telemetry["peak_memory_gb"] or 0.0))
    return served, peaks


def _words(name: str, found: Slope | None, hours: float) -> str:
    if found is None or not found.mean:
        return ""
    change, low, high = (100 * one * hours / found.mean for one in (found.rise, found.low, found.high))
    return f"{name} {change:+.1f} % over it, 99 % interval {low:+.1f} to {high:+.1f}"


def _memory(parts: Sequence[tuple[Cell, RunResult]]) -> str:
    _, peaks = _peaks([result for _, result in parts])
    return f"memory {peaks[0]:.3g} to {peaks[-1]:.3g} GB" if len(peaks) > 1 else ""
