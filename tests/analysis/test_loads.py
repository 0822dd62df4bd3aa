"""Steady states, Little's law, ladders and what is wrong with loads, from made-up requests whose truth is known."""

import dataclasses
import random
import re
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from sweep.analysis import ladders, load_checks, load_metrics, steady_state, validity
from sweep.analysis.cell_data import CellData
from sweep.findings import Finding
from sweep.plan.cells import Cell
from sweep.results.records import DONE, BatchRow, LoadFacts, RequestRow, RunResult
from tests import stored


def request(number: int, sent_s: float, took_s: float, due_s: float | None = None, **more: Any) -> RequestRow:
    return RequestRow(
        request_id=f"r{number}",
        prompt_index=number,
        seed=0,
        width=64,
        height=64,
        steps=4,
        start_s=sent_s,
        queue_s=0.0,
        ttft_s=more.pop("ttft_s", None),
        e2e_s=took_s,
        output_tokens=0,
        exit_code=0,
        error="",
        intended_s=sent_s if due_s is None else due_s,
        sent_s=sent_s,
        done_s=sent_s + took_s,
        **more,
    )


def closed(count: int, concurrency: int, service_s: float) -> list[RequestRow]:
    """One server with a fixed service time, and this many clients."""
    free, ready, made = 0.0, [0.0] * concurrency, []
    for number in range(count):
        sent = ready.pop(0)
        free = max(free, sent) + service_s
        made.append(request(number, sent, free - sent))
        ready.append(free)
    return made


def opened(count: int, rate: float, service_s: float, seed: int) -> list[RequestRow]:
    """One server with a fixed service time, and requests that arrive at random."""
    rng, free, due, made = random.Random(seed), 0.0, 0.0, []
    for number in range(count):
        due += rng.expovariate(rate)
        free = max(free, due) + service_s
        made.append(request(number, due, free - due))
    return made


def cell_with(load: dict[str, Any]) -> Cell:
    cell = stored.template()
    config = {**cell.config, "load": {**cell.config["load"], **load}}
    return dataclasses.replace(cell, config=config)


def data(asked: dict[str, Any], made: list[RequestRow], **more: Any) -> CellData:
    batches = tuple(BatchRow(number, 0, one.e2e_s, {}, {}, ()) for number, one in enumerate(made))
    result = RunResult("k", "l", DONE, requests=tuple(made), batches=batches, **more)
    return CellData(cell_with(asked), (result,))


CLOSED = {"name": "closed", "max_concurrency": 4}
OPEN = {"name": "open", "request_rate": 5.0, "max_concurrency": None}


def test_a_closed_load_is_steady_from_when_the_first_ones_are_done_until_the_last_is_sent() -> None:
    made = closed(40, 4, 0.5)
    window = steady_state.window(made, 4)
    assert window is not None
    assert (window.from_s, window.to_s) == (2.0, 18.0)
    assert not window.whole
    assert all(one.e2e_s == pytest.approx(2.0) for one in window.sent)
    assert len(window.done) / window.seconds == pytest.approx(2.0), "the server's own rate"
    assert steady_state.in_flight(window) == pytest.approx(4.0)


def test_figures_are_those_of_the_steady_state() -> None:
    measured = data(CLOSED, closed(40, 4, 0.5))
    assert measured.latencies_s == pytest.approx([2.0] * len(measured.latencies_s))
    assert len(measured.completed) / measured.wall_s == pytest.approx(2.0)
    assert load_metrics.in_flight(measured) == pytest.approx(4.0)


def test_a_steady_state_shorter_than_a_latency_has_all_requests_in_flight_and_is_said_to_be_short() -> None:
    sixteen = CLOSED | {"max_concurrency": 16}
    brief, long = (data(sixteen, closed(count, 16, 0.5)) for count in (40, 72))
    assert brief.windows[0].seconds < brief.judged[0].e2e_s
    assert not brief.windows[0].whole
    assert load_metrics.in_flight(brief) == pytest.approx(16.0)
    assert [one.code for one in load_checks.notes(brief)] == ["load_short"]
    assert [one.code for one in load_checks.notes(long)] == []


def test_a_short_load_is_taken_whole_and_said_to_be_short() -> None:
    measured = data(CLOSED, closed(9, 4, 0.5))
    assert [one.whole for one in measured.windows] == [True]
    assert len(measured.judged) == 9
    assert [one.code for one in load_checks.notes(measured)] == ["load_short"]


@pytest.mark.parametrize(
    ("took_ms", "codes"),
    [
        ([500.0] * 12, []),
        ([500.0, 900.0] * 6, []),  # scatter is in every third
        ([500.0] * 4 + [550.0] * 4 + [700.0] * 4, ["load_unsteady"]),
        ([900.0] * 4 + [500.0] * 8, ["load_unsteady"]),
        ([500.0] * 4 + [900.0] * 7, []),  # too few to say
    ],
)
def test_equal_batches_that_take_longer_at_another_time_are_said(took_ms: list[float], codes: list[str]) -> None:
    made = [msgspec.structs.replace(one, batch_index=number) for number, one in enumerate(closed(len(took_ms), 4, 0.5))]
    batches = tuple(BatchRow(number, 0, 1.0, {"denoise_step": ms}, {}, ()) for number, ms in enumerate(took_ms))
    measured = CellData(cell_with(CLOSED), (RunResult("k", "l", DONE, requests=tuple(made), batches=batches),))
    found = [one for one in load_checks.notes(measured) if one.code == "load_unsteady"]
    assert [one.code for one in found] == codes
    if codes:
        assert "took 0.5 s in one third of the load" in found[0].text
    offline = CellData(cell_with({"name": "offline"}), measured.results)
    assert load_checks.notes(offline) == [], "offline cells are interleaved with their baseline"


def test_a_slow_beginning_is_left_out() -> None:
    """The rule drops a beginning that is much slower, and keeps a steady series nearly whole."""
    rng = random.Random(0)
    steady = [1 + 0.05 * rng.random() for _ in range(200)]
    assert steady_state.truncated([9.0] * 20 + steady) in range(20, 60)
    assert steady_state.truncated([1.0] * 50) == 0
    assert steady_state.truncated([]) == 0


@pytest.mark.parametrize("rate", [1.0, 1.6])
def test_a_server_that_keeps_up_is_not_said_to_fall_behind(rate: float) -> None:
    for seed in range(20):
        measured = data(OPEN | {"request_rate": rate}, opened(300, rate, 0.5, seed))
        assert load_checks.judge(measured) == []


def test_a_server_that_falls_behind_is_said_to() -> None:
    for seed in range(20):
        measured = data(OPEN, opened(300, 5.0, 0.5, seed))  # it can do 2 a second
        (found,) = load_checks.judge(measured)
        assert (found.code, found.status) == ("over_saturated", "WARN")
        assert re.search(r" (2|2\.0\d|1\.9\d)/s were done", found.text)


def test_requests_that_waited_for_the_client_count_from_when_they_were_due() -> None:
    late = [request(number, number + 3.0, 0.5, due_s=float(number)) for number in range(60)]
    measured = data(OPEN, late)
    assert set(load_metrics.with_queue_s(measured)) == {3.5}
    assert set(measured.latencies_s) == {0.5}
    slo = OPEN | {"slo": {"ttft": None, "tpot": None, "e2el": 1000.0}}
    assert load_metrics.goodput(data(slo, late)) == 0


def test_goodput_counts_failed_requests_and_what_was_not_measured() -> None:
    slo = CLOSED | {"slo": {"ttft": 100.0, "tpot": None, "e2el": None}}
    made = closed(40, 4, 0.5)
    assert load_metrics.goodput(data(slo, made)) == 0, "no first token, no goodput"
    quick = [msgspec.structs.replace(one, ttft_s=0.05 if number % 2 else 0.2) for number, one in enumerate(made)]
    measured = data(slo, quick)
    good = load_metrics.goodput(measured)
    assert good == pytest.approx(0.5, abs=0.02)
    lost = data(slo, quick, failed=tuple(made[:10]))
    assert load_metrics.goodput(lost) == pytest.approx(good * len(measured.judged) / (len(measured.judged) + 10))
    low, high = load_metrics.goodput_low(measured), load_metrics.goodput_high(measured)
    assert low is not None
    assert high is not None
    assert low < good < high


def test_without_limits_there_is_no_goodput() -> None:
    measured = data(CLOSED, closed(40, 4, 0.5))
    assert load_metrics.goodput(measured) is load_metrics.goodput_per_s(measured) is None


def test_littles_law_holds_where_times_are_right_and_not_where_they_are_not() -> None:
    measured = data(CLOSED, closed(80, 4, 0.5))
    rate = len(measured.completed) / measured.wall_s
    assert load_checks.law(measured, load_metrics.in_flight(measured), rate) is None
    wrong = data(CLOSED, [with_another_latency(one) for one in closed(80, 4, 0.5)])
    found = load_checks.law(wrong, load_metrics.in_flight(wrong), rate)
    assert found is not None
    assert found.code == "littles_law"


def with_another_latency(one: RequestRow) -> RequestRow:
    """The request with a wrong latency."""
    return msgspec.structs.replace(one, e2e_s=one.e2e_s / 2)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (LoadFacts(10.0, 1.0, 0.001, 0.0), ""),
        (LoadFacts(10.0, 9.5, 0.001, 0.0), "95% of a core"),
        (LoadFacts(10.0, 1.0, 0.5, 0.0), "event loop was 500 ms late"),
        (LoadFacts(10.0, 1.0, 0.001, 0.5), "sent 500 ms late"),
    ],
)
def test_a_load_generator_that_was_too_slow_is_a_doubt(facts: LoadFacts, said: str) -> None:
    measured = data(CLOSED, closed(40, 4, 0.5), load=facts)
    found = load_checks.doubts(measured.results)
    assert [one.code for one in found] == (["client_bottleneck"] if said else [])
    assert all(said in one.text for one in found)


def row(level: float, images_per_s: float, latency_s: float, load: str = "closed") -> dict[str, Any]:
    name = "concurrency" if load == "closed" else "request_rate"
    asked = {"max_concurrency": level} if load == "closed" else {"request_rate": level, "max_concurrency": None}
    cell = cell_with({"name": load, **asked})
    return {
        "cell": dataclasses.replace(cell, key=f"{load}{level}", suffix=f"{level}"),
        "row": {
            "cell_key": f"{load}{level}",
            "load": f"{load}, {level}",
            "role": "baseline",
            "status": "PASS",
            "batch": 1,
            "concurrency": level if load == "closed" else None,
            "request_rate": level if load == "open" else None,
            "images_per_s": images_per_s,
            "latency_mean_s": latency_s,
            "e2e_with_queue_mean_s": latency_s,
            "requests_judged": level * 100,
            "window_s": 100.0,
            name: level,
        },
    }


def ladder(*rungs: dict[str, Any]) -> ladders.Ladder:
    (found,) = ladders.ladders([one["row"] for one in rungs], {one["cell"].key: one["cell"] for one in rungs})
    return found


def test_the_knee_is_where_throughput_stops_growing() -> None:
    grows = ladder(row(1, 1.0, 1.0), row(2, 2.0, 1.0), row(4, 2.6, 1.5), row(8, 2.7, 3.0))
    assert (grows.code, grows.knee) == ("knee", 4)
    assert "latency grows 2×" in grows.text
    flat = ladder(row(1, 2.0, 0.5), row(2, 2.0, 1.0), row(4, 2.0, 2.0))
    assert (flat.code, flat.knee) == ("knee", 1), "a server that does one at a time is full at once"
    more = ladder(row(1, 1.0, 1.0), row(2, 2.0, 1.0), row(4, 4.0, 1.0))
    assert (more.code, more.knee) == ("still_grows", None)


def test_a_rung_that_is_below_the_highest_by_noise_alone_is_the_knee() -> None:
    rungs = [row(4, 1.1, 3.2), row(8, 1.7, 4.5), row(16, 1.9, 8.5)]
    for one, half in zip(rungs, (0.05, 0.12, 0.12), strict=True):
        rate = one["row"]["images_per_s"]
        one["row"] |= {"requests_per_s_low": rate - half, "requests_per_s_high": rate + half}
    found = ladder(*rungs)
    assert (found.code, found.knee) == ("knee", 8)
    assert "89% of the most (1.9 at 16), which is within noise (±9%)" in found.text


@pytest.mark.parametrize(
    ("batch", "said"), [(1, "serving costs +10.0% of latency"), (4, "it reaches 95% of its offline")]
)
def test_what_serving_costs_is_of_a_request_or_of_full_batches(batch: int, said: str) -> None:
    rungs = [row(1, 0.9, 1.1), row(8, 1.9, 4.5)]
    cell = dataclasses.replace(cell_with({"name": "offline", "max_concurrency": None}), key="offline")
    alone = {"cell_key": "offline", "role": "baseline", "status": "PASS", "load": None, "concurrency": None}
    offline = alone | {"batch": batch, "latency_mean_s": 1.0, "images_per_s": 2.0}
    for one in rungs:
        one["row"]["batch"] = batch
    cells = {one["cell"].key: one["cell"] for one in rungs} | {"offline": cell}
    (found,) = ladders.serving([offline, *(one["row"] for one in rungs)], cells)
    assert said in found.text


def test_the_interval_of_a_rate_covers_the_truth_and_gets_narrower() -> None:
    covered, widths = 0, []
    for seed in range(100):
        rng = random.Random(seed)
        for count in (80, 320):
            clock, made = 0.0, []
            for number in range(count):
                took = rng.uniform(0.3, 0.7)
                made.append(request(number, clock, took))
                clock += took
            found = load_metrics.rate_interval(data(CLOSED | {"max_concurrency": 1}, made))
            assert found is not None
            covered += found[0] <= 2.0 <= found[1]
            widths.append(found[1] - found[0])
    assert covered >= 180, "of 200, at 95 %"
    assert sum(widths[1::2]) < 0.7 * sum(widths[::2])
    assert load_metrics.rate_interval(data(CLOSED, closed(12, 2, 0.5))) is None


def test_the_knee_of_rates_is_the_highest_that_is_kept_up_with() -> None:
    found = ladder(row(1, 1.0, 0.5, "open"), row(2, 1.98, 0.9, "open"), row(4, 2.1, 30.0, "open"))
    assert (found.code, found.knee) == ("knee", 2)
    assert "at most" in found.text
    assert ladder(row(4, 2.1, 30.0, "open"), row(8, 2.1, 60.0, "open")).code == "saturated"
    assert ladder(row(1, 1.0, 0.5, "open"), row(2, 2.0, 0.5, "open")).code == "still_grows"


@pytest.mark.parametrize("seed", range(20))
def test_the_knee_of_one_server_is_one_in_flight_and_its_capacity_is_found(seed: int) -> None:
    """From requests, not from rows: fixed service time, closed, and M/D/1, open."""
    service_s = 0.5
    rungs = []
    for rate in (0.5, 1.0, 1.5, 1.9, 3.0):
        measured = data(OPEN | {"request_rate": rate}, opened(400, rate, service_s, seed))
        made = row(rate, len(measured.completed) / measured.wall_s, 1.0, "open")
        made["row"] |= {"requests_judged": len(measured.judged), "window_s": measured.wall_s}
        rungs.append(made)
    found = ladder(*rungs)
    assert found.code == "knee"
    assert found.knee in (1.5, 1.9)


def test_a_cell_of_a_plan_from_before_loads_mixes_nothing() -> None:
    cell = stored.template()
    config = {name: value for name, value in cell.config.items() if name != "load"}
    assert load_metrics.mixed(dataclasses.replace(cell, config=config)) == ""
    assert load_metrics.mixed(cell_with({"name": "closed", "mix": {"edits": 0.3, "sizes": "pareto"}})) == (
        " (30% edits, pareto sizes)"
    )


def test_a_speedup_over_a_baseline_that_lost_requests_is_not_valid() -> None:
    cells = {key: SimpleNamespace(baseline_key="baseline") for key in ("baseline", "feature")}
    lost = Finding(load_checks.REQUESTS_FAILED, "1 of 96 requests failed", "FAIL")
    rows = [
        {"cell_key": "baseline", "speedup": 1.0, "doubts": [], "findings": [lost]},
        {"cell_key": "feature", "speedup": 1.2, "doubts": [], "findings": []},
    ]
    validity.doubt_baselines(rows, cast(Any, cells), set())
    assert [[one.code for one in row["doubts"]] for row in rows] == [[], ["baseline_doubted"]]
    assert lost.text in rows[1]["doubts"][0].text
