"""What the loads of a sweep should show by the queueing model, and what they showed. Pure, over rows and results.

A row is predicted for its own schedule: the requests that it sent, when they were due, and those of them that count.
So the luck of arrivals has no effect, and any error is the model's. `long_loads` is what the law alone predicts.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sweep.analysis import service_sources
from sweep.analysis.cell_data import CellData
from sweep.analysis.engine_starts import Measured
from sweep.analysis.ladders import family_of, name_of
from sweep.analysis.service_sources import Source
from sweep.findings import USABLE, Finding, status_of
from sweep.plan.cells import AA, Cell
from sweep.predict import queueing
from sweep.predict.queueing import Figures, Law, Station

if TYPE_CHECKING:
    import numpy

CLOSE = 0.15
"""How far measured p50 and p95 may be from predicted ones, relative, below saturation."""

OTHER_BATCHES = 0.1
"""How far the mean size of batches may be from the predicted one, relative, before it explains what is off."""

OFF = "off_prediction"
"""Code of the note that they are further off."""


@dataclass(frozen=True)
class Rung:
    """One load: what was measured, and what the model says of it."""

    row: dict[str, Any]  # of summary.csv
    data: CellData
    station: Station
    predicted: Figures
    saturated: bool  # by the model, servers cannot do more, so latency depends on how long the load lasts
    own_source: bool  # all service times are its own, so only its waiting is predicted
    came_per_s: float | None = None  # requests that arrived per second, in an open load

    @property
    def measured(self) -> tuple[float | None, float | None]:
        """p50 and p95 in seconds: from when a request was due, in a closed load from when it was sent."""
        names = ("e2e_with_queue_p50_s", "e2e_with_queue_p95_s") if self.is_open else ("latency_p50_s", "latency_p95_s")
        return self.row[names[0]], self.row[names[1]]

    @property
    def is_open(self) -> bool:
        return bool(self.data.cell.config["load"]["name"] == "open")

    @property
    def level(self) -> float:
        """Requests sent a second or kept in flight."""
        load = self.data.cell.config["load"]
        return float(load["request_rate"] or self.came_per_s or 0.0) if self.is_open else float(load["max_concurrency"])

    @property
    def errors(self) -> dict[str, float]:
        """Measured ÷ predicted − 1 of p50 and p95, where both are known."""
        both = zip(("p50", "p95"), self.measured, (self.predicted.p50_s, self.predicted.p95_s), strict=True)
        return {name: found / said - 1 for name, found, said in both if found and said}

    @property
    def by_chance(self) -> bool:
        """Whether p50 and p95, if not close, lie within what 95 % of such loads show, given how well service times are
        known."""
        ranges = {"p50": self.predicted.p50_range_s, "p95": self.predicted.p95_range_s}
        measured = dict(zip(("p50", "p95"), self.measured, strict=True))
        return bool(self.errors) and all(_within(measured[name], ranges[name]) for name in self.far)

    @property
    def far(self) -> list[str]:
        """Which of p50 and p95 are not close to the prediction."""
        return [name for name, error in self.errors.items() if abs(error) > CLOSE]

    @property
    def off(self) -> bool:
        """Whether it is further from the prediction than allowed."""
        return not self.saturated and bool(self.far)


@dataclass(frozen=True)
class Queueing:
    """One configuration under loads that differ in how heavy they are, lightest first; without rungs, `why` not."""

    name: str
    source: Source
    rungs: tuple[Rung, ...] = ()
    why: str = ""

    @property
    def is_open(self) -> bool:
        return self.rungs[0].is_open

    @property
    def judged(self) -> list[Rung]:
        """The loads that test the model: below saturation, with service times of another load."""
        return [one for one in self.rungs if not one.saturated and one.errors and not one.own_source]

    @property
    def tells(self) -> bool:
        """Whether it says more than was measured: a closed load predicted from its own service times does not."""
        return bool(self.judged) or bool(self.rungs and self.is_open)

    @property
    def law(self) -> Law | None:
        """How requests arrive; None for closed loads and recorded times."""
        load = self.rungs[0].data.cell.config["load"]
        if load["name"] != "open" or load.get("trace"):
            return None
        return Law(load["arrivals"], load.get("burstiness", 1.0), load.get("burst", 8))

    @property
    def limit_s(self) -> float | None:
        """The SLO's limit on latency, where it has no other."""
        return _limit_s(self.rungs[0].data.cell)

    @property
    def text(self) -> str:
        """For people: what the prediction rests on, and how far off it is."""
        head = f"predicted from measured service times ({self.source.text})"
        if self.is_open:
            head += f": saturates at {self.rungs[0].station.saturates_at:.3g} requests/s"
        judged = self.judged
        if not judged:
            return head
        errors = [(abs(error), name, one) for one in judged for name, error in one.errors.items()]
        most, name, worst = max(errors, key=lambda one: one[0])
        what = "p50 and p95" if any("p95" in one.errors for one in judged) else "p50"
        if most <= CLOSE:
            return f"{head}; {what} of {_loads(judged)} are within {most:.0%} of the prediction"
        near = [one for one in judged if not one.off]
        which = f"{what} of {_loads(near)} are within {CLOSE:.0%} of the prediction, but " if near else ""
        return f"{head}; {which}{off_by(worst, name)}: {explained(worst)}"


def _within(value: float | None, ends: tuple[float, float] | None) -> bool:
    return value is not None and ends is not None and ends[0] <= value <= ends[1]


def _loads(rungs: Sequence[Rung]) -> str:
    """`0.5/s`, `3 loads from 0.5/s to 1.5/s`."""
    names = [one.data.cell.run_config.load.level or str(one.row["load"]) for one in rungs]
    return names[0] if len(names) == 1 else f"{len(names)} loads from {names[0]} to {names[-1]}"


def off_by(rung: Rung, name: str) -> str:
    """`at 0.8/s p95 is 41 % above the prediction (3.3 s, not 2.3 s)`."""
    number = ("p50", "p95").index(name)
    predicted = (rung.predicted.p50_s, rung.predicted.p95_s)[number]
    error, level = rung.errors[name], rung.data.cell.run_config.load.level
    where = f"at {level} " if level else ""
    side = "above" if error > 0 else "below"
    figures = f"{rung.measured[number]:.3g} s, not {predicted:.3g} s"
    return f"{where}{name} is {abs(error):.0%} {side} the prediction ({figures})"


def explained(rung: Rung) -> str:
    """What could explain that a load is far from its prediction: chance, or batches that took different times."""
    if rung.by_chance:
        return "chance alone does as much to a load of so few requests"
    longer = service_sources.longer(rung.station.service, rung.data)
    took = f"its batches took {longer:.2f} times as long as those that the prediction rests on"
    if not rung.is_open:
        held, predicted = rung.row["batch_mean"], rung.predicted.batch_mean
        if held and predicted and abs(held / predicted - 1) > OTHER_BATCHES:
            sizes = f"its batches held {held:.2f} requests on average, those of the model {predicted:.2f}"
            return f"{sizes}: which requests share a batch depends on milliseconds"
        return f"{took}; the machine changed, or requests that overlap slow each other down"
    p50_s, p95_s = again = replayed(rung)
    known = [(value, said) for value, said in zip(rung.measured, again, strict=True) if value and said]
    said = f"with the times of its own batches in their order the model says p50 {p50_s:.3g} s and p95 {p95_s:.3g} s"
    if all(abs(value / said - 1) <= CLOSE for value, said in known):
        why = "the machine changed, or requests that overlap slow each other down"
        return f"{took}, which explains it ({why}): {said}"
    return f"{took}, which does not explain it: {said}, so the server waits for something that the model lacks"


def replayed(rung: Rung) -> tuple[float, float]:
    """p50 and p95, in seconds, of an open load whose batches take their measured times, in their order.

    The pauses between them are measured as well. So the prediction depends only on how requests wait, and
    distinguishes a wrong model from wrong service times.
    """
    import numpy

    result, (times, chosen) = rung.data.results[0], _schedule(rung.data)
    starts = {one.batch_index: one.start_s for one in result.requests}
    ordered = sorted(
        (one for one in result.batches if one.batch_index in starts), key=lambda one: starts[one.batch_index]
    )
    service = service_sources.with_own_pause(rung.station.service, rung.data)
    found = queueing.replayed(replace(rung.station, service=service), times[None], [one.latency_s for one in ordered])
    latency_s = (found.latency_s[0] + numpy.median(service.outside_s))[chosen]
    p50_s, p95_s = numpy.percentile(latency_s[~numpy.isnan(latency_s)], (50, 95)).tolist()
    return float(p50_s), float(p95_s)


def of(rows: Sequence[dict[str, Any]], cells: Mapping[str, Cell], measured: Mapping[str, Measured]) -> list[Queueing]:
    """Every configuration under load, in the order of its cells; A/A runs and profiled cells are left out."""
    datas = {
        key: CellData(one.cell, one.results)
        for key, one in measured.items()
        if one.cell.role != AA and not one.cell.profile
    }
    servers: dict[str, list[CellData]] = {}
    for data in datas.values():
        servers.setdefault(service_sources.same_server(data.cell), []).append(data)
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        cell = cells[row["cell_key"]]
        if cell.under_load and cell.key in datas and status_of(row["findings"]) in USABLE:
            families.setdefault(_family(cell), []).append(row)
    return [_queueing(family, datas, servers) for family in families.values()]


def _family(cell: Cell) -> str:
    """What cells share that differ only in how heavy their load is, or in which part of a long load they are."""
    load = {name: value for name, value in cell.config["load"].items() if name != "part"}
    return family_of(replace(cell, config={**cell.config, "load": load}))


def _queueing(
    family: Sequence[dict[str, Any]], datas: Mapping[str, CellData], servers: Mapping[str, Sequence[CellData]]
) -> Queueing:
    ordered = sorted(family, key=lambda row: service_sources.weight(datas[row["cell_key"]].cell))
    first = datas[ordered[0]["cell_key"]]
    name, batch = name_of(first.cell), service_sources.limit(first.cell)
    if why := next(filter(None, (service_sources.unfit(datas[row["cell_key"]]) for row in ordered)), ""):
        return Queueing(name, Source(None), why=why)
    source = service_sources.source(servers[service_sources.same_server(first.cell)], batch)
    if source.service is None:
        return Queueing(name, source, why=source.why)
    load = first.cell.config["load"]
    station = Station(source.service, 1, batch, load.get("batch_wait_ms", 0.0) / 1e3, load.get("queue"))
    found = [_rung(row, datas[row["cell_key"]], source, station) for row in ordered]
    rungs = tuple(one for one in found if one is not None)
    return Queueing(name, source, rungs, "" if rungs else "its requests have no times")


def _rung(row: dict[str, Any], data: CellData, source: Source, station: Station) -> Rung | None:
    """One load on a station; None for one without times."""
    load = data.cell.config["load"]
    rate = None
    if load["name"] == "open":
        found = _scheduled(data, station)
        if found is None:
            return None
        predicted, rate = found
        saturated = rate >= queueing.KEPT_UP * station.saturates_at
    else:
        count = len(data.results[0].requests) + len(data.results[0].failed)
        predicted, saturated = closed(station, load["max_concurrency"], count), False
    return Rung(row, data, station, predicted, saturated, service_sources.rests_on_itself(data, source), rate)


def _schedule(data: CellData) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """When the first start's requests were due (requests,), ascending, and which of them count, failed ones too."""
    import numpy

    result = data.results[0]
    every = [(one.intended_s, one) for one in (*result.requests, *result.failed) if one.intended_s is not None]
    every.sort(key=lambda one: one[0])
    judged = {(one.request_id, one.repeat) for window in data.windows[:1] for one in window.sent}
    chosen = [one.exit_code != 0 or (one.request_id, one.repeat) in judged for _, one in every]
    return numpy.array([time_s for time_s, _ in every]), numpy.array(chosen, dtype=bool)


def _scheduled(data: CellData, station: Station) -> tuple[Figures, float] | None:
    """What the first start's requests should take, and how many arrived per second; None without times."""
    import numpy

    times, chosen = _schedule(data)
    if len(times) < 2 or times[-1] <= times[0] or not chosen.any():
        return None
    lanes = numpy.tile(times, (queueing.LANES, 1))
    said, ranged = (
        queueing.figures(queueing.served(station, lanes, resample=again), station.servers, chosen, _limit_s(data.cell))
        for again in (False, True)
    )
    return said.with_ranges_of(ranged), (len(times) - 1) / float(times[-1] - times[0])


def closed(station: Station, in_flight: int, count: int) -> Figures:
    """What a closed load of so many requests should show."""
    both = [queueing.served_closed(station, in_flight, count, resample=again) for again in (False, True)]
    said, ranged = (queueing.figures(one, station.servers, queueing.settled_closed(one, in_flight)) for one in both)
    return said.with_ranges_of(ranged)


CURVE, HIGHEST, NEAR = 12, 0.96, 1.5
"""Rates on the curve of an open ladder; share of the servers' highest rate up to which it goes, if that is nearer than
NEAR times its heaviest load."""


def long_loads(one: Queueing) -> tuple[list[float], list[Figures]]:
    """What long loads of an open ladder would show, at rates from below its lightest to its heaviest or saturation."""
    station = one.rungs[0].station
    came = [rung.came_per_s for rung in one.rungs if rung.came_per_s]
    low = min(0.6 * min(came), 0.5 * station.saturates_at)
    near = station.saturates_at < NEAR * max(came)
    high = HIGHEST * station.saturates_at if near else 1.1 * max(came)
    places = [1 - (1 - number / (CURVE - 1)) ** 1.5 for number in range(CURVE)]  # closer where curves bend
    rates = [low + (max(high, low) - low) * place for place in places]
    return rates, queueing.steady(station, one.law or Law(), rates, one.limit_s)


def _limit_s(cell: Cell) -> float | None:
    asked = cell.config["load"].get("slo") or {}  # loads of earlier versions may have none
    limits = {name: value for name, value in asked.items() if value is not None}
    return limits["e2el"] / 1e3 if set(limits) == {"e2el"} else None


def fill(found: Sequence[Queueing]) -> None:
    """Write the predictions into the rows of their cells, and a note where a load is far from its own."""
    for one in itertools.chain.from_iterable(one.rungs for one in found):
        said = one.predicted
        one.row["predicted_p50_s"] = said.p50_s
        one.row["predicted_p95_s"] = said.p95_s
        one.row["predicted_requests_per_s"] = said.per_s
        one.row["predicted_goodput_share"] = said.attained
        one.row["predicted_busy"] = said.busy
        if one.off:
            worst = max(one.errors, key=lambda name: abs(one.errors[name]))
            text = f"{off_by(one, worst)} of the queueing model: {explained(one)}"
            one.row["notes"].append(Finding(OFF, text))
