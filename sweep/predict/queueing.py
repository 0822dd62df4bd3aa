"""Latency and throughput of requests that wait for servers, by simulation of every batch: G/G/c with batching.

First come, first served. A free server takes the first request that waits and the next ones, up to `batch`; the first
one waits up to `wait_s` for company. So does the embedded server (`sweep.engines.serving.batching.BatchQueue`). Many
loads are simulated side by side as the lanes of arrays, so that the effect of chance on one load is known too.

Assumed: service times do not depend on the load (`ServiceTimes`), servers are alike, requests are of one kind, no
client gives up. A prediction's grade is thus `measured service times, assumed law` where arrivals follow a law, and
`measured service times` where they are those of a schedule.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sweep.predict.service_times import ServiceTimes
from sweep.workload import arrivals

if TYPE_CHECKING:
    import numpy

MEASURED, ASSUMED_LAW = "measured service times", "measured service times, assumed law"
"""Grades of a prediction."""

LANES = 64
"""Loads that are simulated side by side."""

LONG, SETTLING = 2000, 400
"""Requests of a lane for the steady state of a law, and how many of them pass until it settles."""

KEPT_UP = 0.95
"""Share of the servers' highest rate from which a rate no longer counts as below saturation."""


@dataclass(frozen=True)
class Station:
    """What requests wait for."""

    service: ServiceTimes
    servers: int = 1
    batch: int = 1  # most requests that a server takes at once
    wait_s: float = 0.0  # how long the first request of a batch waits for company
    queue: int | None = None  # requests that may wait; more are refused. None: any number

    def __post_init__(self) -> None:
        """Raises ValueError."""
        counts = (self.servers, self.batch, 1 if self.queue is None else self.queue)
        if min(counts) < 1:
            raise ValueError("servers, batch and queue are at least 1")
        if not 0 <= self.wait_s < math.inf:
            raise ValueError("a wait is 0 or more, and finite")
        if not self.service.knows(self.batch):
            known = sorted(self.service.by_size)
            raise ValueError(f"batches of up to {self.batch} need two sizes that were measured; known: {known}")

    @property
    def saturates_at(self) -> float:
        """Most requests per second that it serves: full batches, one after the other. inf where they take no time."""
        each_s = self.service.mean_s(self.batch) + self.service.pause_s
        return self.servers * self.batch / each_s if each_s else math.inf


@dataclass(frozen=True)
class Law:
    """How requests of an open load arrive: `sweep.workload.arrivals`."""

    name: str = "poisson"
    burstiness: float = 1.0
    burst: int = 8


@dataclass(frozen=True)
class Served:
    """What became of requests: (lanes, requests) each, in seconds; NaN for those that were refused or not sent."""

    sent_s: "numpy.ndarray"  # when they were due
    done_s: "numpy.ndarray"  # when they were answered
    busy_s: "numpy.ndarray"  # (lanes,): of all servers together
    batches: "numpy.ndarray | None" = None  # (lanes,): of a closed load, how many there were

    @property
    def latency_s(self) -> "numpy.ndarray":
        """From when they were due until they were answered."""
        return self.done_s - self.sent_s


@dataclass(frozen=True)
class Figures:
    """What a load shows, over all lanes, and the range of 95 % of the lanes' p50 and p95. None without requests."""

    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    p50_range_s: tuple[float, float] | None  # of loads that differ by chance alone
    p95_range_s: tuple[float, float] | None
    per_s: float  # requests done a second
    busy: float  # share of the time in which servers work, 1 is all of them
    attained: float | None = None  # share of requests that meet the limit on latency, refused ones included
    batch_mean: float | None = None  # requests in a batch, of a closed load

    def with_ranges_of(self, other: "Figures") -> "Figures":
        """The same with the ranges of lanes whose service times were drawn anew."""
        return replace(self, p50_range_s=other.p50_range_s, p95_range_s=other.p95_range_s)


def served(station: Station, due_s: "numpy.ndarray", seed: int = 0, resample: bool = False) -> Served:
    """Requests that are due at given times (lanes, requests), ascending in each lane.

    numpy's default_rng(seed) first draws quantiles (lanes, requests): the n-th batch of a lane takes that quantile of
    its size's samples. Then it draws the samples (lanes, requests) of what each request takes outside. With `resample`,
    each lane draws from resampled measurements (the bootstrap), so that lanes also differ by how well service times are
    known.
    """
    import numpy

    rng = numpy.random.default_rng(seed)
    draws = rng.random(due_s.shape)
    outside_s = rng.choice(numpy.array(station.service.outside_s), due_s.shape)
    times = _Times(station, rng, len(due_s) if resample else 0)
    quick = station.batch == station.servers == 1 and (station.queue is None or station.queue >= due_s.shape[1])
    found = _one_by_one(station, due_s, draws, times) if quick else _Open(station, due_s, draws, times).run()
    return replace(found, done_s=found.done_s + outside_s)


def replayed(station: Station, due_s: "numpy.ndarray", took_s: Sequence[float]) -> Served:
    """Requests (1, requests) whose n-th batch takes the n-th of these times, and nothing outside.

    This keeps the order in which a server was slow and fast. Further batches take the last time.
    """
    import numpy

    times = _InOrder(numpy.array(took_s))
    return _Open(station, due_s, numpy.arange(due_s.shape[1], dtype=float)[None], times).run()


class _InOrder:
    """Times of batches by their number."""

    def __init__(self, took_s: "numpy.ndarray") -> None:
        self._took_s = took_s

    def of(self, lane: "numpy.ndarray", size: "numpy.ndarray", number: "numpy.ndarray") -> "numpy.ndarray":
        """Seconds of the batches of these numbers."""
        found: numpy.ndarray = self._took_s[number.astype(int).clip(max=len(self._took_s) - 1)]
        return found


class _Times:
    """Times of batches by size; with `lanes`, each lane has its own sample of them."""

    def __init__(self, station: Station, rng: "numpy.random.Generator", lanes: int = 0) -> None:
        import numpy

        table, self._counts = station.service.table(station.batch)
        self._table = table[None]
        self._lanes = bool(lanes)
        if lanes:
            chosen = (rng.random((lanes, *table.shape)) * self._counts[None, :, None]).astype(int)
            self._table = table[numpy.arange(len(table))[None, :, None], chosen]

    def of(self, lane: "numpy.ndarray", size: "numpy.ndarray", quantile: "numpy.ndarray") -> "numpy.ndarray":
        """Seconds of batches of `size` at these quantiles, in [0, 1), of these lanes."""
        found: numpy.ndarray = self._table[lane * self._lanes, size, (quantile * self._counts[size]).astype(int)]
        return found


def _one_by_one(station: Station, due_s: "numpy.ndarray", draws: "numpy.ndarray", times: _Times) -> Served:
    """One server without batches, all at once: after n requests it is free at max over k of (due of k + the services
    from k to n), which is Lindley's recursion (1952) written out."""
    import numpy

    took_s = times.of(numpy.arange(len(due_s))[:, None], numpy.array(1), draws)
    ends = numpy.cumsum(took_s + station.service.pause_s, axis=1)
    begins = ends - took_s - station.service.pause_s
    free = ends + numpy.maximum.accumulate(due_s - begins, axis=1)
    return Served(due_s, free - station.service.pause_s, ends[:, -1])


class _Open:
    """Lanes of requests with due times, one batch of every lane per step."""

    def __init__(
        self, station: Station, due_s: "numpy.ndarray", draws: "numpy.ndarray", times: _Times | _InOrder
    ) -> None:
        import numpy

        self._station, self._due_s, self._draws, self._times = station, due_s, draws, times
        lanes, count = due_s.shape
        # What still comes in each lane: refused requests are taken out. Beyond the last one, nothing ever comes.
        self._coming = numpy.concatenate([due_s, numpy.full((lanes, station.batch), math.inf)], axis=1)
        self._names = numpy.tile(numpy.arange(count), (lanes, 1))
        self._left = numpy.full(lanes, count)
        self._done = numpy.full((lanes, count), math.nan)
        self._busy = numpy.zeros(lanes)

    def run(self) -> Served:
        """Serve all of them."""
        import numpy

        station, lanes = self._station, len(self._left)
        free = numpy.full((lanes, station.servers), -math.inf)
        head = numpy.zeros(lanes, dtype=int)
        going = numpy.arange(lanes)
        for step in itertools.count():
            going = going[head[going] < self._left[going]]
            if not going.size:
                return Served(self._due_s, self._done, self._busy)
            server = free[going].argmin(axis=1)
            company = self._coming[going[:, None], head[going][:, None] + numpy.arange(station.batch)]
            start = _start(station, free[going, server], company)
            if station.queue is not None and self._refused(going, head, start, station.queue):
                company = self._coming[going[:, None], head[going][:, None] + numpy.arange(station.batch)]
            size = _taken(station, start, company)
            took_s = self._times.of(going, size, self._draws[going, step])
            for place in range(station.batch):
                some = size > place
                lane = going[some]
                self._done[lane, self._names[lane, head[lane] + place]] = (start + took_s)[some]
            free[going, server] = start + took_s + station.service.pause_s
            self._busy[going] += took_s + station.service.pause_s
            head[going] += size
        raise AssertionError  # itertools.count() does not end

    def _refused(self, going: "numpy.ndarray", head: "numpy.ndarray", start: "numpy.ndarray", most: int) -> bool:
        """Take out requests that arrive while the queue is full, before the next batch starts; whether any do."""
        import numpy

        last = head[going] + most
        there = last < self._left[going]
        over = going[there][self._coming[going[there], last[there]] < start[there]]
        begins = dict(zip(going.tolist(), start.tolist(), strict=True))
        for lane in over.tolist():
            low = int(head[lane]) + most
            high = int(numpy.searchsorted(self._coming[lane], begins[lane], side="left"))
            gone = high - low
            self._coming[lane, low:-gone] = self._coming[lane, high:].copy()
            self._names[lane, low:-gone] = self._names[lane, high:].copy()
            self._coming[lane, -gone:] = math.inf
            self._left[lane] -= gone
        return bool(over.size)


def _start(station: Station, free: "numpy.ndarray", company: "numpy.ndarray") -> "numpy.ndarray":
    """When the next batch of each lane starts: a server is free, and its first request has waited enough.

    `company` (lanes, batch) holds when the next requests come, inf for none.
    """
    import numpy

    first, full = company[:, 0], company[:, -1]
    if station.queue is not None and station.queue < station.batch:
        full = numpy.full_like(full, math.inf)  # they never wait together
    return numpy.maximum(numpy.maximum(free, first), numpy.minimum(first + station.wait_s, full))


def _taken(station: Station, start: "numpy.ndarray", company: "numpy.ndarray") -> "numpy.ndarray":
    """How many requests the next batch of each lane holds: those that are there when it starts.

    Requests due at the same moment arrive one after the other: a server that is free and waits for no company takes
    the first alone.
    """
    import numpy

    there: numpy.ndarray = (company <= start[:, None]).sum(axis=1)
    return there if station.wait_s else numpy.where(start > company[:, 0], there, 1)


def served_closed(
    station: Station, in_flight: int, count: int, lanes: int = LANES, seed: int = 0, resample: bool = False
) -> Served:
    """`count` requests of clients that send the next one when one is answered, `in_flight` at once; (lanes, count)."""
    import numpy

    rng = numpy.random.default_rng(seed)
    draws = rng.random((lanes, count))
    outside_s = rng.choice(numpy.array(station.service.outside_s), (lanes, count))
    times = _Times(station, rng, lanes if resample else 0)
    sent_s, done_s = (numpy.full((lanes, count), math.nan) for _ in range(2))
    waiting = numpy.full((lanes, max(in_flight, station.batch)), math.inf)  # when each client's request comes
    waiting[:, : min(in_flight, count)] = 0.0
    sent, served_ = numpy.full(lanes, min(in_flight, count)), numpy.zeros(lanes, dtype=int)
    free, busy, batches = numpy.zeros((lanes, station.servers)), numpy.zeros(lanes), numpy.zeros(lanes, dtype=int)
    going = numpy.arange(lanes)
    for step in range(count):
        going = going[served_[going] < count]
        if not going.size:
            break
        line = numpy.sort(waiting[going], axis=1)
        server = free[going].argmin(axis=1)
        start = _start(station, free[going, server], line[:, : station.batch])
        size = _taken(station, start, line[:, : station.batch])
        took_s = times.of(going, size, draws[going, step])
        free[going, server] = start + took_s + station.service.pause_s
        busy[going] += took_s + station.service.pause_s
        batches[going] += 1
        for place in range(station.batch):
            some = size > place
            lane = going[some]
            answered = (start + took_s)[some] + outside_s[lane, served_[lane]]
            sent_s[lane, served_[lane]], done_s[lane, served_[lane]] = line[some, place], answered
            served_[lane] += 1
            line[some, place] = numpy.where(sent[lane] < count, answered, math.inf)
            sent[lane] = numpy.minimum(sent[lane] + 1, count)
        waiting[going] = line
    return Served(sent_s, done_s, busy, batches)


def settled_closed(found: Served, in_flight: int) -> "numpy.ndarray":
    """Which requests (lanes, requests) of a closed load are in its steady state: sent once as many are done as may be
    in flight, as `sweep.analysis.steady_state` defines it."""
    import numpy

    begin = numpy.sort(found.done_s, axis=1)[:, min(in_flight, found.done_s.shape[1]) - 1]
    chosen: numpy.ndarray = found.sent_s >= begin[:, None]
    return chosen if bool(chosen.any(axis=1).all()) else numpy.ones_like(chosen)


def figures(found: Served, servers: int, chosen: "numpy.ndarray", limit_s: float | None = None) -> Figures:
    """Figures of the chosen requests, (requests,) or (lanes, requests) of booleans. `limit_s`: an SLO's, on latency."""
    import numpy

    latency_s = found.latency_s
    chosen = numpy.broadcast_to(chosen, latency_s.shape)
    counted = chosen & ~numpy.isnan(latency_s)
    every = latency_s[counted]
    span_s = numpy.nanmax(found.done_s, axis=1) - numpy.nanmin(found.sent_s, axis=1)
    rates = {"per_s": float(_rates(found, chosen).mean()), "busy": float((found.busy_s / span_s).mean() / servers)}
    attained = None if limit_s is None else float((every <= limit_s).sum() / chosen.sum())
    held = None if found.batches is None else float((~numpy.isnan(found.done_s)).sum() / found.batches.sum())
    if not every.size:
        return Figures(None, None, None, None, None, None, **rates, attained=attained)
    p50_s, p95_s, p99_s = (float(one) for one in numpy.percentile(every, (50, 95, 99)))
    known = [row[own] for row, own in zip(latency_s, counted, strict=True) if own.any()]
    lanes = numpy.array([numpy.percentile(row, (50, 95)) for row in known])
    low, high = numpy.percentile(lanes, (2.5, 97.5), axis=0).tolist()
    return Figures(
        mean_s=float(every.mean()),
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        p50_range_s=(low[0], high[0]),
        p95_range_s=(low[1], high[1]),
        **rates,
        attained=attained,
        batch_mean=held,
    )


def _rates(found: Served, chosen: "numpy.ndarray") -> "numpy.ndarray":
    """Requests done a second, from the first to the last chosen one that was sent."""
    import numpy

    sent_s = numpy.where(chosen, found.sent_s, math.nan)
    begin, end = numpy.nanmin(sent_s, axis=1), numpy.nanmax(sent_s, axis=1)
    done = ((found.done_s > begin[:, None]) & (found.done_s <= end[:, None])).sum(axis=1)
    span = end - begin
    return numpy.divide(done, span, out=numpy.zeros_like(span), where=span > 0)


@functools.lru_cache(maxsize=4)
def schedule(law: Law, lanes: int = LANES, count: int = LONG, seed: int = 0) -> "numpy.ndarray":
    """Due times of requests (lanes, count), one a second on average; ÷ rate for another rate. Read only: cached."""
    import numpy

    found = [
        list(itertools.islice(arrivals.times(law.name, 1.0, seed * lanes + lane, law.burstiness, law.burst), count))
        for lane in range(lanes)
    ]
    made = numpy.array(found)
    made.setflags(write=False)
    return made


def steady(
    station: Station, law: Law, rates: Sequence[float], limit_s: float | None = None, seed: int = 0
) -> list[Figures]:
    """What a long load shows, at each rate in requests per second. Grade: ASSUMED_LAW.

    The same arrivals are stretched for each rate, so that nothing else differs. At or beyond saturation latency grows
    for as long as the load lasts: it has no figures there, and the rate of requests done is the servers' highest.
    """
    import numpy

    below = [rate for rate in rates if rate < station.saturates_at]
    beyond = Figures(None, None, None, None, None, None, station.saturates_at, 1.0, None if limit_s is None else 0.0)
    if not below:
        return [beyond] * len(rates)
    unit = schedule(law, seed=seed)
    lanes, count = unit.shape
    chosen = numpy.arange(count) >= SETTLING
    whole = served(station, numpy.concatenate([unit / rate for rate in below]), seed)
    found = {}
    for number, rate in enumerate(below):
        part = slice(number * lanes, (number + 1) * lanes)
        one = Served(whole.sent_s[part], whole.done_s[part], whole.busy_s[part])
        found[rate] = figures(one, station.servers, chosen, limit_s)
    return [found.get(rate, beyond) for rate in rates]
