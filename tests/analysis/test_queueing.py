"""Loads against the queueing model, from made-up servers whose truth is known."""

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from sweep.analysis import columns, queueing, service_sources
from sweep.analysis.cell_data import CellData
from sweep.analysis.engine_starts import Measured
from sweep.analysis.percentile_intervals import interval_s
from sweep.analysis.queueing import CLOSE, OFF, Queueing
from sweep.findings import WARN, Finding
from sweep.plan.cells import AA, Cell
from sweep.results.records import DONE, BatchRow, LoadFacts, RequestRow, RunResult
from tests.analysis.test_loads import cell_with, request

OUTSIDE_S, PAUSE_S = 0.02, 0.005
CLOSED = {"name": "closed", "max_concurrency": 1}
TWO_STAGES = LoadFacts(9, 1, 0, 0, ar_s=5.0, dit_s=5.0, both_s=0.0)


def usual(size: int, rng: random.Random, scatter: float = 0.1) -> float:
    """Seconds of a batch: 0.5 for the first request, 0.1 for each further one, ± 10 %."""
    return (0.4 + 0.1 * size) * rng.uniform(1 - scatter, 1 + scatter)


def took(
    due_s: Sequence[float], batch: int, seed: int, slower: float = 1.0, scatter: float = 0.1
) -> tuple[list[RequestRow], list[BatchRow]]:
    """Requests of one server that takes all that wait, up to `batch`."""
    rng, free, head = random.Random(f"services {seed}"), -math.inf, 0
    rows: list[RequestRow] = []
    batches: list[BatchRow] = []
    while head < len(due_s):
        start = max(free, due_s[head])
        size = max(1, sum(one < start for one in due_s[head : head + batch]))
        service = usual(size, rng, scatter) * slower
        for number in range(head, head + size):
            row = request(number, due_s[number], start + service + OUTSIDE_S - due_s[number], batch_index=len(batches))
            rows.append(msgspec.structs.replace(row, start_s=start, queue_s=start - due_s[number]))
        batches.append(BatchRow(len(batches), 0, service, {}, {}, ()))
        free, head = start + service + PAUSE_S, head + size
    return rows, batches


def poisson(rate: float, count: int = 300, seed: int = 0) -> list[float]:
    rng, found, now = random.Random(seed), [], 0.0
    for _ in range(count):
        now += rng.expovariate(rate)
        found.append(now)
    return found


class Made:
    """Cells of one configuration, with results."""

    def __init__(self, batch: int = 1, **config: Any) -> None:
        self.batch, self.config = batch, config
        self.cells: dict[str, Cell] = {}
        self.measured: dict[str, Measured] = {}
        self.rows: list[dict[str, Any]] = []

    def add(self, asked: dict[str, Any], made: tuple[list[RequestRow], list[BatchRow]], **more: Any) -> dict[str, Any]:
        """A cell; returns its row."""
        role, findings = more.pop("role", None), more.pop("findings", [])
        key = f"cell {len(self.cells)}"
        shape = cell_with({"max_concurrency": None, "request_rate": None} | asked)
        config = {**shape.config, "batch": self.batch, **self.config}
        cell = dataclasses.replace(shape, key=key, origin=key, label=f"baseline b{self.batch}", config=config)
        cell = dataclasses.replace(cell, role=role) if role else cell
        result = RunResult(key, "l", DONE, requests=tuple(made[0]), batches=tuple(made[1]), **more)
        self.cells[key], self.measured[key] = cell, Measured(cell, (result,))
        row = columns.computed(CellData(cell, (result,))) | {"cell_key": key, "findings": findings, "notes": []}
        self.rows.append(row)
        return row

    def alone(self, **more: Any) -> dict[str, Any]:
        """One request in flight, 40 times."""
        return self.add(CLOSED, took([1.0 * n for n in range(40)], 1, seed=9), **more)

    def offline(self, size: int, batches: int = 12) -> dict[str, Any]:
        rng, rows, made = random.Random(5), [], []
        for number in range(batches):
            service = usual(size, rng)
            rows += [request(number * size + n, 1.0 * number, service, batch_index=number) for n in range(size)]
            made.append(BatchRow(number, 0, service, {}, {}, ()))
        return self.add({"name": "offline"}, (rows, made))

    def opened(self, rate: float, slower: float = 1.0, seed: int = 2, **more: Any) -> dict[str, Any]:
        load = {"name": "open", "request_rate": rate, **more.pop("load", {})}
        return self.add(load, took(poisson(rate, seed=seed), self.batch, seed, slower), **more)

    def found(self) -> list[Queueing]:
        queues = queueing.of(self.rows, self.cells, self.measured)
        queueing.fill(queues)
        return queues


@pytest.fixture
def ladder() -> Made:
    made = Made()
    made.alone()
    for rate in (0.6, 1.2, 1.6):
        made.opened(rate)
    return made


def test_a_ladder_is_predicted_from_the_service_times_of_one_request_in_flight(ladder: Made) -> None:
    closed, opened = ladder.found()
    assert opened.rungs[0].station.saturates_at == pytest.approx(1 / (0.5 + PAUSE_S), rel=0.03)
    assert "40 batches of 1 (closed, 1 in flight)" in opened.text
    assert [one.level for one in opened.judged] == [0.6, 1.2, 1.6]
    for rung in opened.rungs:
        assert all(abs(error) < 0.12 for error in rung.errors.values()), rung.errors
        assert rung.row["predicted_p50_s"] == pytest.approx(rung.row["e2e_with_queue_p50_s"], rel=0.14)
        assert rung.row["predicted_p95_s"] == pytest.approx(rung.row["e2e_with_queue_p95_s"], rel=0.14)
        assert rung.row["predicted_requests_per_s"] == pytest.approx(rung.row["requests_per_s"], rel=0.05)
        assert rung.row["predicted_busy"] == pytest.approx(0.505 * rung.level, rel=0.15)
        assert rung.row["notes"] == []
    assert "p50 and p95 of 3 loads from 0.6/s to 1.6/s are within" in opened.text
    assert closed.judged == [], "its service times are its own"
    assert not closed.tells


def test_goodput_is_predicted_where_the_slo_limits_latency_alone() -> None:
    made = Made()
    made.alone()
    slo = {"ttft": None, "tpot": None, "e2el": 900.0}
    row = made.opened(1.2, load={"slo": slo})
    both = made.opened(1.2, load={"slo": slo | {"ttft": 100.0}}, seed=2)
    made.found()
    assert row["predicted_goodput_share"] == pytest.approx(row["goodput_share"], abs=0.05)
    assert both["predicted_goodput_share"] is None
    assert both["predicted_p95_s"] is not None


def test_a_server_that_is_slower_than_when_its_service_times_were_measured_is_noted_with_that_as_the_reason() -> None:
    made = Made()
    made.alone()
    row = made.opened(1.0, slower=1.5)
    (_, opened) = made.found()
    (note,) = row["notes"]
    assert note.code == OFF
    assert "above the prediction" in note.text
    assert "its batches took 1.48 times" in note.text
    assert "which explains it" in note.text
    assert note.text.split(" of the queueing model")[0] in opened.text
    assert abs(opened.rungs[0].errors["p95"]) > CLOSE


def test_waiting_that_no_service_time_explains_is_said_to_be_the_models(ladder: Made) -> None:
    rows, batches = took(poisson(0.8), 1, 3)
    late = [msgspec.structs.replace(one, done_s=one.done_s + 1.0, e2e_s=one.e2e_s + 1.0) for one in rows if one.done_s]
    row = ladder.add({"name": "open", "request_rate": 0.8}, (late, batches))
    ladder.found()
    (note,) = row["notes"]
    assert "which does not explain it" in note.text


def test_what_chance_does_to_a_short_load_is_said_to_be_chance() -> None:
    rungs = []
    for seed in range(20):
        made = Made()
        made.add(CLOSED, took([2.0 * n for n in range(60)], 1, 100 + seed, scatter=0.8))
        made.add({"name": "open", "request_rate": 1.2}, took(poisson(1.2, 60, seed), 1, seed, scatter=0.8))
        rungs += [rung for one in made.found() if one.is_open for rung in one.rungs]
    off = [rung for rung in rungs if rung.off]
    assert len(off) >= 3, "or the test says nothing"
    assert len([rung for rung in rungs if rung.by_chance]) >= 16, "95 % of loads by p50, and by p95"
    for rung in off:
        assert rung.by_chance == ("chance alone" in rung.row["notes"][0].text)


def test_what_is_close_need_not_be_within_what_chance_does() -> None:
    """Two in flight on a server of batches: p50 is that of one mode or the other, and p95 is close in both."""
    made = Made(batch=4)
    made.alone()
    row = made.opened(0.6)
    rung = dataclasses.replace(made.found()[-1].rungs[-1], row=row)
    p50_s, p95_s = rung.measured
    assert p50_s
    assert p95_s
    near = {"p95_s": p95_s * 0.95, "p95_range_s": (0.9 * p95_s, 0.96 * p95_s)}
    wide = dataclasses.replace(rung.predicted, p50_s=p50_s * 0.6, p50_range_s=(0.5 * p50_s, 1.1 * p50_s), **near)
    assert dataclasses.replace(rung, predicted=wide).by_chance
    narrow = dataclasses.replace(wide, p50_range_s=(0.5 * p50_s, 0.9 * p50_s))
    assert not dataclasses.replace(rung, predicted=narrow).by_chance


def test_over_saturated_loads_are_not_held_against_the_model() -> None:
    made = Made()
    made.alone()
    made.opened(1.2)
    made.opened(2.4, slower=1.3)
    _, opened = made.found()
    assert [one.saturated for one in opened.rungs] == [False, True]
    assert [one.level for one in opened.judged] == [1.2]
    assert opened.rungs[1].row["notes"] == []
    assert opened.rungs[1].row["predicted_p95_s"] > opened.rungs[0].row["predicted_p95_s"]


def test_a_server_that_falls_behind_below_its_saturation_is_noted() -> None:
    made = Made()
    made.alone()
    row = made.opened(1.6, slower=1.4, findings=[Finding("over_saturated", "why", WARN)])
    _, opened = made.found()
    assert not opened.rungs[0].saturated
    assert row["notes"][0].code == OFF
    assert "which explains it" in row["notes"][0].text


@pytest.mark.parametrize("batch", [1, 4])
def test_with_its_own_service_times_in_their_order_the_model_says_what_was_measured(batch: int) -> None:
    made = Made(batch)
    made.alone()
    made.offline(batch)
    for rate, slower in ((1.2, 3.0), (1.6, 1.0)):
        made.opened(rate * batch**0.7, slower=slower)
    for rung in made.found()[1].rungs:
        assert queueing.replayed(rung) == pytest.approx(rung.measured)


# -- where service times come from


def test_each_size_is_of_the_lightest_load_that_shows_it_often_enough() -> None:
    made = Made(batch=4)
    made.alone()
    made.offline(4)
    made.opened(1.5)
    made.opened(4.0)
    _, opened = made.found()
    keys = list(made.cells)
    sizes = opened.source.sizes
    assert sizes[1] == keys[0]
    assert sizes[4] == keys[1]
    shown = [service_sources._shown(CellData(one.cell, one.results)).sizes for one in made.measured.values()]
    assert sizes[2] == keys[2] if len(shown[2].get(2, ())) >= service_sources.FEWEST else sizes[2] == keys[3]
    service = opened.rungs[0].station.service
    assert [service.mean_s(size) for size in (1, 4)] == pytest.approx([0.5, 0.8], rel=0.05)
    assert service.pause_s == pytest.approx(PAUSE_S)
    assert list(service.outside_s) == pytest.approx([OUTSIDE_S] * len(service.outside_s))
    for rung in opened.judged:
        assert all(abs(error) < CLOSE for error in rung.errors.values()), rung.errors
    assert opened.rungs[0].station.saturates_at == pytest.approx(4 / 0.805, rel=0.05)


def test_without_another_load_service_times_are_its_own_and_it_judges_nothing() -> None:
    made = Made()
    row = made.opened(1.2)
    (found,) = made.found()
    assert found.rungs[0].own_source
    assert found.judged == []
    assert found.tells, "it says where saturation lies"
    assert row["predicted_p95_s"] == pytest.approx(row["e2e_with_queue_p95_s"], rel=0.15)


def test_closed_loads_are_predicted_too() -> None:
    made = Made()
    made.alone()
    closed = [0.5 * 3 + OUTSIDE_S + 3 * PAUSE_S] * 60
    rows = [request(n, 0.5 * n, closed[n], batch_index=n) for n in range(60)]
    rows = [msgspec.structs.replace(one, queue_s=1.0, start_s=one.start_s + 1.0) for one in rows]
    batches = [BatchRow(n, 0, 0.5, {}, {}, ()) for n in range(60)]
    row = made.add({"name": "closed", "max_concurrency": 3}, (rows, batches))
    (found,) = made.found()
    assert [one.level for one in found.rungs] == [1.0, 3.0]
    assert row["predicted_p50_s"] == pytest.approx(1.53, rel=0.03)
    assert row["predicted_requests_per_s"] == pytest.approx(2.0, rel=0.05)
    assert "3 in flight are within" in found.text


def test_batches_of_another_size_than_the_models_are_named_as_the_reason() -> None:
    made = Made(batch=4)
    made.alone()
    made.offline(4)
    rows = [request(n, 0.7 * (n // 2), 0.62, batch_index=n // 2) for n in range(60)]
    batches = [BatchRow(n, 0, 0.6, {}, {}, ()) for n in range(30)]
    row = made.add({"name": "closed", "max_concurrency": 2}, (rows, batches))
    made.found()
    (note,) = row["notes"]
    assert note.text.endswith(
        "its batches held 2.00 requests on average, those of the model 1.00: which requests share a batch depends on "
        "milliseconds"
    )


@pytest.mark.parametrize(
    ("config", "load", "more", "why"),
    [
        ({"engine": {"name": "endpoint"}}, {}, {}, "a server of yours"),
        ({"engine": {"name": "vllm_omni"}, "batch": 4}, {}, {}, "forms batches"),
        ({"engine": {"name": "vllm_omni", "plugin": False}}, {}, {}, "nothing observes"),
        ({"engine": {"name": "vllm_omni"}}, {}, {"load": TWO_STAGES}, "AR stage works on one request"),
        ({"batch": 4}, {"mix": {"edits": 0.3, "sizes": "fixed"}}, {}, "several kinds"),
        ({}, {}, {"load": msgspec.structs.replace(TWO_STAGES, both_s=3.0)}, "AR stage works on one request"),
        ({"batch": 4}, {}, {}, "need two sizes"),
    ],
)
def test_what_one_queue_does_not_describe_has_no_prediction_and_says_why(
    config: dict[str, Any], load: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    made = Made(**config)
    row = made.add({"name": "open", "request_rate": 0.6, **load}, took(poisson(0.6), 1, 1), **more)
    (found,) = made.found()
    assert found.rungs == ()
    assert why in found.why
    assert row.get("predicted_p50_s") is None
    assert not found.tells


def test_a_server_of_vllm_omni_without_batches_and_stages_has_a_prediction() -> None:
    made = Made(engine={"name": "vllm_omni", "plugin": True})
    made.alone()
    made.opened(1.2)
    _, opened = made.found()
    assert opened.judged
    assert not opened.judged[0].off


def test_servers_that_do_not_say_how_long_requests_wait_have_no_prediction() -> None:
    made = Made()
    rows, batches = took(poisson(0.6), 1, 1)
    made.add(
        {"name": "open", "request_rate": 0.6}, ([msgspec.structs.replace(one, queue_s=None) for one in rows], batches)
    )
    (found,) = made.found()
    assert "does not say how long requests wait" in found.why


def test_results_whose_batches_begin_at_one_moment_are_read() -> None:
    """As an engine with several queues may report: there is no pause between these."""
    made = Made()
    rows, batches = took([1.0 * n for n in range(40)], 1, 1)
    twice = [msgspec.structs.replace(one, start_s=rows[n // 2 * 2].start_s) for n, one in enumerate(rows)]
    made.add(CLOSED, (twice, batches))
    (found,) = made.found()
    assert found.rungs[0].station.service.pause_s == 0.0


def test_other_mixes_and_aa_runs_are_no_source() -> None:
    made = Made()
    made.alone(role=AA)
    edits = {"mix": {"edits": 0.3, "sizes": "fixed"}}
    made.opened(1.2, load=edits)
    made.offline(1)
    made.opened(1.0)
    found = made.found()
    assert [one.source.sizes for one in found] == [{1: "cell 1"}, {1: "cell 2"}]


def test_parts_of_a_long_load_are_one_configuration_and_its_first_part_is_the_source() -> None:
    made = Made()
    for part in range(3):
        made.opened(1.2, slower=1.0 + 0.3 * (part == 2), seed=part, load={"search": "soak", "part": part})
    (found,) = made.found()
    assert [one.own_source for one in found.rungs] == [True, False, False]
    assert [bool(one.row["notes"]) for one in found.rungs] == [False, False, True]
    assert "at part 3" in found.text


def test_a_text_is_written_alone() -> None:
    made = Made(batch=4)
    made.config["workload"] = {**cell_with({}).config["workload"], "task": "text", "input_len": 8}
    made.add(CLOSED, took([1.0 * n for n in range(40)], 1, seed=9))
    made.add({"name": "open", "request_rate": 1.0}, took(poisson(1.0), 1, 1))
    _, opened = made.found()
    assert opened.rungs[0].station.batch == 1
    assert opened.judged


def test_intervals_of_percentiles_hold_the_truth_about_as_often_as_they_say() -> None:
    """For independent latencies; those of a queue are correlated, which blocks allow for."""
    held = 0
    for seed in range(60):
        rng = random.Random(seed)
        made = [request(n, 1.0 * n, rng.expovariate(1.0)) for n in range(200)]
        found = interval_s(
            CellData(cell_with({"name": "closed"}), (RunResult("k", "l", DONE, requests=tuple(made)),)), 50
        )
        assert found is not None
        held += found[0] <= math.log(2) <= found[1]
    assert held >= 50
    few = [request(n, 1.0 * n, 1.0) for n in range(10)]
    assert (
        interval_s(CellData(cell_with({"name": "closed"}), (RunResult("k", "l", DONE, requests=tuple(few)),)), 50)
        is None
    )
