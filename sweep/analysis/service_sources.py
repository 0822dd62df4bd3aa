"""Where the service times of a prediction come from: cells of the same configuration, the lightest load first. Pure.

One rule for every quantity: it is taken from the lightest load that shows it at least FEWEST times. Loads count as
lighter in this order: one request in flight, offline, open loads by rate, closed loads by requests in flight. Light
loads show how long a batch takes; only heavier ones form larger batches.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from sweep.analysis import load_metrics
from sweep.analysis.cell_data import CellData
from sweep.config.load import FIXED
from sweep.config.model import TEXT
from sweep.engines import registry
from sweep.plan.cells import Cell
from sweep.predict.service_times import ServiceTimes
from sweep.results.records import RequestRow, RunResult

FEWEST = 8
"""Fewest batches of one size, pauses or requests with which a cell is a source of them."""

OVERLAP = 0.05
"""Share of the DiT's time in which the AR stage works on another request, from which one queue is not a model."""


@dataclass(frozen=True)
class Source:
    """Service times with their origin. Without `service`, `why` says what is missing."""

    service: ServiceTimes | None
    why: str = ""
    text: str = ""  # for people: which cell each quantity is from
    sizes: dict[int, str] = field(default_factory=dict)  # requests in a batch -> key of the cell


@dataclass(frozen=True)
class _Shown:
    """What one cell shows of its server, in seconds."""

    sizes: dict[int, list[float]]
    pauses_s: list[float]
    outside_s: list[float]


def same_server(cell: Cell) -> str:
    """What cells share that are served alike: the whole configuration except when and how many requests arrive."""
    config = {name: value for name, value in cell.config.items() if name not in ("load", "group")}
    return json.dumps([config, cell.config["load"]["mix"] if _mixes(cell) else None], sort_keys=True, default=str)


def _mixes(cell: Cell) -> bool:
    """Whether its requests are of several kinds."""
    mix = cell.config.get("load", {}).get("mix") or {}
    return bool(mix.get("edits")) or mix.get("sizes", FIXED) != FIXED


def limit(cell: Cell) -> int:
    """Most requests that the cell's server takes at once: a text is written alone."""
    if cell.config["workload"].get("task") == TEXT:
        return 1
    most = cell.config["load"].get("max_concurrency") if cell.config["load"]["name"] == "open" else None
    return min(int(cell.config["batch"]), most or int(cell.config["batch"]))


def unfit(data: CellData) -> str:
    """Why one queue of equal requests does not describe the cell's server; "" where it does."""
    cell = data.cell
    kind = registry.find(cell.config["engine"]["name"])
    if kind is None or kind.attaches:
        return "a server of yours does not say how long it works on a request"
    if kind.server and not cell.config["engine"].get("plugin", True):
        return "nothing observes its batches (engine.plugin=false)"
    if kind.server and limit(cell) > 1:
        return f"how {cell.config['engine']['name']} forms batches is not modelled"
    if limit(cell) > 1 and _mixes(cell):
        return "requests of several kinds share no batch, which is not modelled"
    for result in data.results:
        own = result.load
        if own is None or own.both_s is None or own.dit_s is None:
            continue
        if kind.server or own.both_s > OVERLAP * own.dit_s:  # a server may overlap them at any time
            return "its AR stage works on one request while its DiT works on another, which one queue does not describe"
    if any(one.queue_s is None for one in data.requests):
        return "the server does not say how long requests wait"
    return ""


def weight(cell: Cell) -> tuple[int, float]:
    """How heavy its load is: sorts cells as the rule says."""
    if not cell.under_load:
        return 1, 0.0
    load = cell.config["load"]
    if load["name"] == "open":
        return 2, load["request_rate"] or math.inf
    return (0, 0.0) if load["max_concurrency"] == 1 else (3, float(load["max_concurrency"]))


def source(members: Sequence[CellData], batch: int) -> Source:
    """Service times for batches of up to `batch`, from cells that `same_server` joins."""
    ordered = sorted(members, key=lambda one: weight(one.cell))
    shown = [(data.cell, _shown(data)) for data in ordered]
    by_size: dict[int, list[float]] = {}
    origin: dict[int, Cell] = {}
    for cell, one in shown:
        for size, values in one.sizes.items():
            if size <= batch and len(values) >= FEWEST and size not in by_size:
                by_size[size], origin[size] = values, cell
    pauses = next(((cell, one.pauses_s) for cell, one in shown if len(one.pauses_s) >= FEWEST), None)
    outside = next(((cell, one.outside_s) for cell, one in shown if len(one.outside_s) >= FEWEST), None)
    if outside is None or not by_size:
        return Source(None, f"no load has {FEWEST} batches of one size")
    service = ServiceTimes(
        {size: tuple(values) for size, values in sorted(by_size.items())},
        statistics.median(pauses[1]) if pauses else 0.0,
        tuple(outside[1]),
    )
    if not service.knows(batch):
        known = " and ".join(map(str, sorted(by_size)))
        why = f"only batches of {known} were measured {FEWEST} times, and those of up to {batch} need two sizes"
        return Source(None, why)
    return Source(service, "", _words(by_size, origin), {size: cell.key for size, cell in origin.items()})


def rests_on_itself(data: CellData, found: Source) -> bool:
    """Whether the service times of all its batches are its own: then only its waiting is predicted."""
    return all(found.sizes.get(size) == data.cell.key for size in _shown(data).sizes)


def with_own_pause(service: ServiceTimes, data: CellData) -> ServiceTimes:
    """The same with the pause between batches of one load, where it shows any."""
    pauses_s = _shown(data).pauses_s
    return replace(service, pause_s=statistics.median(pauses_s)) if pauses_s else service


def longer(service: ServiceTimes, data: CellData) -> float:
    """Time that the batches of a cell took ÷ time that batches of their sizes take by these service times."""
    own = _shown(data).sizes
    expected = math.fsum(len(values) * service.mean_s(size) for size, values in own.items())
    return math.fsum(math.fsum(values) for values in own.values()) / expected if expected else math.inf


def _words(by_size: dict[int, list[float]], origin: dict[int, Cell]) -> str:
    """`24 batches of 1 (closed, 1 in flight), 12 of 4 (offline)`."""
    loads = {size: load_metrics.described(cell) or "offline" for size, cell in origin.items()}
    parts = [f"{len(values)} of {size} ({loads[size]})" for size, values in sorted(by_size.items())]
    return ", ".join([parts[0].replace(" of ", " batches of ", 1), *parts[1:]])


def _shown(data: CellData) -> _Shown:
    """What all starts show. Offline there are no pauses and no time outside."""
    sizes: dict[int, list[float]] = {}
    pauses: list[float] = []
    outside: list[float] = []
    for result in data.results:
        together: dict[int, list[RequestRow]] = {}
        for request in result.requests:
            if request.exit_code == 0:
                together.setdefault(request.batch_index, []).append(request)
        for batch in result.batches:
            own = together.get(batch.batch_index, [])
            if not own:
                continue
            sizes.setdefault(len(own), []).append(batch.latency_s)
            if data.cell.under_load:
                outside += [max(0.0, one.e2e_s - (one.queue_s or 0.0) - batch.latency_s) for one in own]
        if data.cell.under_load:
            pauses += _pauses(result, together, limit(data.cell), data.cell.config["load"].get("batch_wait_ms", 0.0))
    return _Shown(sizes, pauses, outside)


def _pauses(result: RunResult, together: dict[int, list[RequestRow]], batch: int, wait_ms: float) -> list[float]:
    """Pauses between two batches, where the second was there before the first was done and did not wait for company."""
    took_s = {batch.batch_index: batch.latency_s for batch in result.batches}
    known = sorted((own[0].start_s, index) for index, own in together.items() if index in took_s)
    found = []
    for (start_s, index), (next_s, following) in pairwise(known):
        own, end_s = together[following], start_s + took_s[index]
        came_s = min(one.start_s - (one.queue_s or 0.0) for one in own)
        if came_s < end_s <= next_s and (not wait_ms or len(own) == batch):
            found.append(next_s - end_s)
    return found
