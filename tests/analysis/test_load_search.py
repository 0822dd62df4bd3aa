"""Searches find what a simulated server can do, whose truth is known: fixed service time, and M/D/1."""

import dataclasses
import math
import random

import pytest

from sweep.analysis.load_search import Rung, following, proposed
from sweep.config.load import Load, Slo
from sweep.plan.cells import at_level
from sweep.results.records import DONE, BatchRow, RunResult
from tests.analysis.test_loads import cell_with, closed, opened

SLO = Load("open", request_rate=1.0, search="slo", slo=Slo(e2el=2000.0), precision=0.05)
LADDER = Load("closed", max_concurrency=1, search="concurrency")


def search(load: Load, measured: dict[float, Rung], measure) -> dict[float, Rung]:
    """Ask and measure until the search wants nothing more."""
    first = float(load.max_concurrency or load.request_rate or 0)
    level: float | None = first
    while level is not None:
        assert level not in measured, "nothing is measured twice"
        measured[level] = measure(level)
        assert len(measured) < 24
        level = following(load, list(measured.values()))
    return measured


def capacity(measured: dict[float, Rung], load: Load) -> float:
    """The middle between the highest rate that meets the SLO and the lowest that does not."""
    missed = min(level for level, rung in measured.items() if rung.attained < load.attain)
    met = max(level for level, rung in measured.items() if rung.attained >= load.attain and level < missed)
    assert missed / met <= 1 + load.precision + 1e-3
    return math.sqrt(met * missed)


@pytest.mark.parametrize("seed", range(20))
def test_the_capacity_of_a_fixed_service_time_is_found_within_5_percent(seed: int) -> None:
    """Requests at constant gaps, 0.4 s each: above 2.5 a second, queues grow without end."""
    service_s, rng = 0.4, random.Random(seed)
    start = rng.uniform(0.2, 20.0)

    def measure(rate: float) -> Rung:
        late_s = [max(0.0, number * (service_s - 1 / rate)) for number in range(1000)]
        return Rung(rate, min(rate, 1 / service_s), sum(one + service_s <= 2.0 for one in late_s) / 1000)

    load = dataclasses.replace(SLO, request_rate=float(f"{start:.4g}"))
    assert capacity(search(load, {}, measure), load) == pytest.approx(2.5, rel=0.05)


def rate_of_md1(service_s: float, limit_s: float, share: float) -> float:
    """The rate at which so large a share of requests waits at most limit − service in an M/D/1 queue.

    Erlang's distribution of waiting (1909): P(W ≤ t) = (1 − ρ) Σ ((ρk − λt) ^ k ÷ k!) · exp(λt − ρk), k = 0…⌊t/s⌋.
    """

    def within(rate: float) -> float:
        load, wait_s = rate * service_s, limit_s - service_s
        terms = (
            (load * k - rate * wait_s) ** k / math.factorial(k) * math.exp(rate * wait_s - load * k)
            for k in range(int(wait_s / service_s) + 1)
        )
        return (1 - load) * math.fsum(terms)

    low, high = 0.01 / service_s, 0.999 / service_s
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) >= share else (low, middle)
    return low


@pytest.mark.parametrize("seed", range(20))
def test_the_capacity_of_md1_is_found_within_10_percent(seed: int) -> None:
    service_s = 0.4

    def measure(rate: float) -> Rung:
        made = opened(4000, rate, service_s, round(1000 * rate) + 7919 * seed)[200:]
        return Rung(rate, rate, sum(one.e2e_s <= 2.0 for one in made) / len(made))

    truth = rate_of_md1(service_s, 2.0, SLO.attain)
    assert capacity(search(SLO, {}, measure), SLO) == pytest.approx(truth, rel=0.10)


@pytest.mark.parametrize("full", [1, 2, 4, 8])
def test_a_ladder_ends_one_rung_after_throughput_stops_growing(full: int) -> None:
    found = search(LADDER, {}, lambda level: Rung(level, min(level, full), None))
    assert max(found) == 2 * full
    assert sorted(found) == [2**power for power in range(len(found))]


def test_a_ladder_ends_where_it_may_go_no_higher_or_requests_fail() -> None:
    grows = search(dataclasses.replace(LADDER, most=16), {}, lambda level: Rung(level, level, None))
    assert max(grows) == 16
    fails = search(LADDER, {}, lambda level: Rung(level, level, None, failed=level >= 4))
    assert max(fails) == 4


def test_a_rate_search_ends_where_it_may_go_no_higher_and_never_where_nothing_meets() -> None:
    all_meet = search(SLO, {}, lambda level: Rung(level, level, 1.0))
    assert max(all_meet) == 64
    rungs = [Rung(2.0**-power, 1.0, 0.0) for power in range(24)]
    assert following(SLO, rungs) == pytest.approx(2.0**-24, rel=1e-3), "its cells are what is limited"


def test_cells_of_a_search_are_the_same_whenever_it_is_asked() -> None:
    """The same command resumes from what it finds in its folder."""
    root = dataclasses.replace(
        cell_with(dataclasses.asdict(LADDER)), key="root", baseline_key="root", suffix="1 in flight", role="baseline"
    )
    root = dataclasses.replace(root, label=f"baseline b1 {root.suffix}", skip=None)

    def result(cell) -> RunResult:
        made = closed(60, cell.config["load"]["max_concurrency"], 0.1)
        batches = tuple(BatchRow(number, 0, one.e2e_s, {}, {}, ()) for number, one in enumerate(made))
        return RunResult(cell.key, cell.label, DONE, requests=tuple(made), batches=batches)

    assert proposed([root], {}) == [], "nothing is known yet"
    (second,) = proposed([root], {"root": result(root)})
    assert second == at_level(root, 2)
    assert second.label == "baseline b1 2 in flight"
    assert second.root == "root"
    assert second.engine_key == root.engine_key
    assert proposed([root, second], {"root": result(root)}) == [], "the second is not measured yet"
    known = {"root": result(root), second.key: result(second)}
    assert proposed([root, second], known) == [], "one server: two in flight bring nothing"
