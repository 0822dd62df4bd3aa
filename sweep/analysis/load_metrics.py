"""Figures that only a load has: waiting, goodput, what was in flight. Pure functions of a cell's results.

None offline. `steady_state` decides which requests count.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

from sweep.analysis import steady_state
from sweep.analysis.cell_data import CellData
from sweep.analysis.paired import CONFIDENCE, student
from sweep.checkpoints.world.shares import wilson
from sweep.config.load import FIXED
from sweep.plan.cells import Cell
from sweep.results.records import RequestRow

RATE_PARTS, FEWEST_IN_PART = 10, 4
"""Most parts of a load for the interval of its rate; fewest requests in a part, and fewest parts."""


def mixed(cell: Cell) -> str:
    """` (30% edits, pareto sizes)`: what its requests mix; "" for one kind."""
    mix = cell.config.get("load", {}).get("mix") or {}  # plans of earlier versions have neither
    parts = [f"{mix['edits']:.0%} edits"] if mix.get("edits") else []
    parts += [f"{mix['sizes']} sizes"] if mix.get("sizes", FIXED) != FIXED else []
    return f" ({', '.join(parts)})" if parts else ""


def described(cell: Cell) -> str | None:
    """`closed, 4 in flight`, `open, 2/s poisson`; None offline."""
    if not cell.under_load:
        return None
    load = cell.config["load"]
    if load["name"] == "closed":
        return f"closed, {load['max_concurrency']} in flight{mixed(cell)}"
    if load["trace"]:
        return f"open, {load['trace']}"
    return f"open, {load['request_rate']:g}/s {load['arrivals']}{mixed(cell)}"


def part(cell: Cell) -> int | None:
    """Which part of a long load it is, counted from 1; None for other cells."""
    return asked(cell, "part") + 1 if asked(cell, "search") == "soak" else None


def asked(cell: Cell, name: str) -> Any:
    """A setting of the load; None offline."""
    return cell.config["load"][name] if cell.under_load else None


def queued_s(measured: CellData) -> list[float]:
    """How long each request waited in the server, where the server reports it."""
    return [one.queue_s for one in measured.judged if one.queue_s is not None] if measured.cell.under_load else []


def with_queue_s(measured: CellData) -> list[float]:
    """From when each request was due until its last byte; [] where requests have no due times."""
    if not measured.cell.under_load or measured.cell.config["load"]["name"] != "open":
        return []
    return [taken_s(one) for one in measured.judged]


def taken_s(request: RequestRow) -> float:
    """Seconds from when a request was due until its last byte."""
    if request.intended_s is None or request.done_s is None:
        return request.e2e_s
    return request.done_s - request.intended_s


def meets(request: RequestRow, slo: dict[str, float | None]) -> bool:
    """Whether a request meets every limit of load.slo, in ms. A figure that was not measured meets no limit."""
    took_s = {"ttft": request.ttft_s, "tpot": request.tpot_s, "e2el": taken_s(request)}
    for name, limit in slo.items():
        took = took_s[name]
        if limit is not None and (took is None or 1e3 * took > limit):
            return False
    return True


def _slo(measured: CellData) -> dict[str, float | None]:
    """The limits; {} where there are none."""
    found = measured.cell.config["load"]["slo"] if measured.cell.under_load else {}
    return dict(found) if any(limit is not None for limit in found.values()) else {}


def goodput_per_s(measured: CellData) -> float | None:
    """Requests per second that are done within the steady state and meet the SLO."""
    slo = _slo(measured)
    if not slo or not measured.wall_s:
        return None
    return sum(meets(one, slo) for one in measured.completed) / measured.wall_s


def _counts(measured: CellData) -> tuple[int, int] | None:
    """Requests that meet the SLO, and all that were sent in the steady state or failed."""
    slo = _slo(measured)
    if not slo:
        return None
    lost = failed(measured) or 0
    return sum(meets(one, slo) for one in measured.judged), len(measured.judged) + lost


def goodput(measured: CellData) -> float | None:
    """Share of requests that meet the SLO."""
    counts = _counts(measured)
    return counts[0] / counts[1] if counts and counts[1] else None


def goodput_low(measured: CellData) -> float | None:
    """Lower end of the 95 % interval of that share."""
    counts = _counts(measured)
    return wilson(*counts)[0] if counts and counts[1] else None


def goodput_high(measured: CellData) -> float | None:
    """Upper end of it."""
    counts = _counts(measured)
    return wilson(*counts)[1] if counts and counts[1] else None


def rate_interval(measured: CellData) -> tuple[float, float] | None:
    """95 % interval of the requests done per second, from the seconds that equally large parts take (batch means).

    None for fewer than 4 parts of 4 requests. It leaves out how much engine starts vary.
    """
    each: list[float] = []
    for window in measured.windows:
        ends = sorted(one.done_s for one in window.done if one.done_s is not None)
        parts = min(RATE_PARTS, len(ends) // FEWEST_IN_PART)
        if window.whole or parts < FEWEST_IN_PART:
            continue
        edges = [window.from_s, *(ends[(number + 1) * len(ends) // parts - 1] for number in range(parts))]
        counts = [(number + 1) * len(ends) // parts - number * len(ends) // parts for number in range(parts)]
        each += [(end - begin) / count for (begin, end), count in zip(itertools.pairwise(edges), counts, strict=True)]
    if not each:
        return None
    mean_s = math.fsum(each) / len(each)
    error = math.sqrt(math.fsum((one - mean_s) ** 2 for one in each) / (len(each) - 1) / len(each))
    half = error * student(len(each) - 1.0, CONFIDENCE)
    return (1 / (mean_s + half), 1 / (mean_s - half)) if half < mean_s else None


def rate_low(measured: CellData) -> float | None:
    """Lower end of that interval."""
    found = rate_interval(measured)
    return found[0] if found else None


def rate_high(measured: CellData) -> float | None:
    """Upper end of it."""
    found = rate_interval(measured)
    return found[1] if found else None


def in_flight(measured: CellData) -> float | None:
    """Requests under way, on average over time."""
    seconds = sum(window.seconds for window in measured.windows)
    return (
        sum(steady_state.in_flight(window) * window.seconds for window in measured.windows) / seconds
        if seconds
        else None
    )


def batch_mean(measured: CellData) -> float | None:
    """Requests in a batch of the server."""
    if not measured.cell.under_load or not measured.batches:
        return None
    return len(measured.requests) / len(measured.batches)


def ar_busy(measured: CellData) -> float | None:
    """Share of the load in which the AR stage computed."""
    return _share(measured, "ar_s", "wall_s")


def dit_busy(measured: CellData) -> float | None:
    """Share of the load in which the DiT stage computed."""
    return _share(measured, "dit_s", "wall_s")


def stage_overlap(measured: CellData) -> float | None:
    """Share of the DiT stage's time in which the AR stage computed as well."""
    return _share(measured, "both_s", "dit_s")


def _share(measured: CellData, part: str, whole: str) -> float | None:
    """Ratio of two facts, over the loads whose two stages were recorded separately."""
    known = [result.load for result in measured.results if result.load and result.load.both_s is not None]
    total = math.fsum(getattr(one, whole) for one in known)
    return math.fsum(getattr(one, part) for one in known) / total if total else None


def latency_of(task: str) -> Callable[[CellData], list[float]]:
    """Latencies of the judged requests of one kind; [] where a load does not mix kinds."""

    def latencies_s(measured: CellData) -> list[float]:
        kinds = {one.task for one in measured.judged} if measured.cell.under_load else set()
        return [one.e2e_s for one in measured.judged if one.task == task] if len(kinds) > 1 else []

    return latencies_s


def sent(measured: CellData) -> int | None:
    """Requests under load."""
    lost = failed(measured)
    return None if lost is None else len(measured.requests) + lost


def failed(measured: CellData) -> int | None:
    """Requests that got no usable reply."""
    return sum(len(result.failed) for result in measured.results) if measured.cell.under_load else None


def judged(measured: CellData) -> int | None:
    """Requests whose latencies count."""
    return len(measured.judged) if measured.cell.under_load else None


def window_s(measured: CellData) -> float | None:
    """Seconds of the steady state, over all starts."""
    return measured.wall_s if measured.cell.under_load else None
