"""The queueing model against formulas whose answers are known, and against a plain simulation of every event."""

import heapq
import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest

from sweep.predict import queueing
from sweep.predict.queueing import Figures, Law, Station, served, served_closed, steady
from sweep.predict.service_times import ServiceTimes

FIXED = ServiceTimes({1: (1.0,)})
EXPONENTIAL = ServiceTimes({1: tuple(-math.log(1 - (n + 0.5) / 4000) for n in range(4000))})
"""Mean 1; quantiles in the middle of 4,000 equally likely parts."""

SCATTERED = ServiceTimes({1: (0.4, 0.6, 0.8, 1.0, 1.2, 2.0)})
"""Mean 1, squared coefficient of variation 0.2667."""


def long(service: ServiceTimes, rate: float, law: str = "poisson", **more: int) -> Figures:
    (found,) = steady(Station(service, **more), Law(law), [rate])
    return found


def erlang_c(servers: int, load: float) -> float:
    """Share of requests that wait in M/M/c, `load` = arrival rate × mean service time (Erlang 1917)."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


def waits_at_most(time_s: float, load: float) -> float:
    """Share of requests that wait no longer in M/D/1 with services of 1 s (Erlang 1909, Crommelin 1932)."""
    terms = [
        (-load * (time_s - k)) ** k / math.factorial(k) * math.exp(load * (time_s - k))
        for k in range(math.floor(time_s) + 1)
    ]
    return (1 - load) * math.fsum(terms)


def quantile_md1(q: float, load: float) -> float:
    """Of the time from arrival to departure in M/D/1."""
    low, high = 0.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if waits_at_most(middle, load) < q else (low, middle)
    return 1 + (low + high) / 2


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.8])
def test_m_m_1_has_its_known_mean_and_percentiles(rate: float) -> None:
    found = long(EXPONENTIAL, rate)
    assert found.mean_s == pytest.approx(1 / (1 - rate), rel=0.04)
    assert found.p50_s == pytest.approx(math.log(2) / (1 - rate), rel=0.04)
    assert found.p95_s == pytest.approx(math.log(20) / (1 - rate), rel=0.05)
    assert found.busy == pytest.approx(rate, rel=0.02)
    assert found.per_s == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.8])
def test_m_d_1_has_its_known_percentiles(rate: float) -> None:
    found = long(FIXED, rate)
    assert found.p50_s == pytest.approx(quantile_md1(0.5, rate), rel=0.03)
    assert found.p95_s == pytest.approx(quantile_md1(0.95, rate), rel=0.04)


@pytest.mark.parametrize("service", [FIXED, SCATTERED, EXPONENTIAL])
@pytest.mark.parametrize("rate", [0.4, 0.7])
def test_m_g_1_has_the_mean_of_pollaczek_and_khinchine(service: ServiceTimes, rate: float) -> None:
    second = np.mean(np.square(service.by_size[1]))
    found = long(service, rate)
    assert found.mean_s == pytest.approx(1 + rate * second / 2 / (1 - rate), rel=0.04)


@pytest.mark.parametrize(("servers", "rate"), [(2, 1.4), (4, 3.2)])
def test_m_m_c_has_the_mean_wait_of_erlang(servers: int, rate: float) -> None:
    found = long(EXPONENTIAL, rate, servers=servers)
    wait_s = erlang_c(servers, rate) / (servers - rate)
    assert found.mean_s == pytest.approx(1 + wait_s, rel=0.03)
    assert found.busy == pytest.approx(rate / servers, rel=0.02)


@pytest.mark.parametrize("service", [FIXED, SCATTERED])
def test_m_g_c_is_near_the_approximation_of_lee_and_longton(service: ServiceTimes) -> None:
    """Mean wait of M/M/c × (1 + squared coefficient of variation) ÷ 2 (1959): Allen and Cunneen's for Poisson."""
    squared = float(np.var(service.by_size[1]))
    wait_s = erlang_c(3, 2.25) / (3 - 2.25) * (1 + squared) / 2
    found = long(service, 2.25, servers=3)
    assert found.mean_s is not None
    assert found.mean_s - 1 == pytest.approx(wait_s, rel=0.1)


def test_requests_at_constant_gaps_never_wait_for_a_fixed_service_that_is_shorter() -> None:
    found = long(FIXED, 0.9, "constant")
    assert (found.p50_s, found.p99_s) == (pytest.approx(1.0), pytest.approx(1.0))
    bursts = long(FIXED, 0.5, "burst")
    assert bursts.p95_s is not None
    assert bursts.p95_s > 2 * quantile_md1(0.95, 0.5), "eight come at once"


def test_a_queue_with_little_room_refuses_what_m_m_1_k_refuses() -> None:
    room, rate = 3, 0.9  # one in service and three that wait
    station = Station(EXPONENTIAL, queue=room)
    found = served(station, queueing.schedule(Law()) / rate)
    lost = np.isnan(found.done_s[:, queueing.SETTLING :]).mean()
    states = room + 1
    assert lost == pytest.approx((1 - rate) * rate**states / (1 - rate ** (states + 1)), rel=0.05)
    chosen = np.arange(found.done_s.shape[1]) >= queueing.SETTLING
    attained = queueing.figures(found, 1, chosen, limit_s=1e9).attained
    assert attained == pytest.approx(1 - lost), "refused requests meet no limit"


def test_beyond_saturation_there_is_no_latency_and_servers_do_what_they_can() -> None:
    station = Station(ServiceTimes({1: (1.0,), 4: (2.0,)}), batch=4, servers=2)
    assert station.saturates_at == 4.0
    below, beyond = steady(station, Law(), [3.5, 4.5], limit_s=10.0)
    assert below.p95_s is not None
    assert below.per_s == pytest.approx(3.5, rel=0.03)
    assert (beyond.p50_s, beyond.p95_s, beyond.per_s, beyond.attained) == (None, None, 4.0, 0.0)


@pytest.mark.parametrize("limit_s", [1.5, 3.0])
def test_goodput_is_the_share_of_requests_within_the_limit(limit_s: float) -> None:
    (found,) = steady(Station(EXPONENTIAL), Law(), [0.5], limit_s)
    assert found.attained == pytest.approx(1 - math.exp(-0.5 * limit_s), rel=0.03)


def test_a_lane_whose_requests_are_all_refused_has_no_percentiles() -> None:
    due_s = np.array([[0.0, 0.1, 0.2, 0.3], [0.0, 0.1, 0.2, 1.5]])
    found = served(Station(FIXED, queue=1), due_s)
    assert np.isnan(found.done_s).tolist() == [[False, False, True, True], [False, False, True, False]]
    said = queueing.figures(found, 1, np.array([False, False, True, True]), limit_s=9.0)
    assert (said.p50_s, said.attained) == (pytest.approx(1.5), 0.25)
    none = queueing.figures(found, 1, np.array([False, False, True, False]), limit_s=9.0)
    assert (none.p50_s, none.attained) == (None, 0.0)


# -- every event, one after another


def plainly(station: Station, due_s: Sequence[float], draws: Sequence[float]) -> tuple[list[float], float]:
    """One lane, event by event: when each request is answered (NaN: refused), and how long servers were busy."""
    service, done = station.service, [math.nan] * len(due_s)
    events: list[tuple[float, int, int]] = [(time_s, 0, number) for number, time_s in enumerate(due_s)]
    heapq.heapify(events)
    free, waiting, batches, busy = station.servers, deque[int](), 0, 0.0
    while events:
        now, kind, number = heapq.heappop(events)  # what comes at one moment comes one after the other
        if kind == 1:
            free += 1
        elif kind == 0 and (station.queue is None or len(waiting) < station.queue):
            waiting.append(number)
            heapq.heappush(events, (due_s[number] + station.wait_s, 2, number))
        while free and waiting and (len(waiting) >= station.batch or now >= due_s[waiting[0]] + station.wait_s):
            taken = [waiting.popleft() for _ in range(min(station.batch, len(waiting)))]
            times = service.of_size(len(taken))
            took = times[int(draws[batches] * len(times))]
            batches, free, busy = batches + 1, free - 1, busy + took + service.pause_s
            for one in taken:
                done[one] = now + took + service.outside_s[0]
            heapq.heappush(events, (now + took + service.pause_s, 1, -1))
    return done, busy


SIZED = ServiceTimes({1: (0.8, 1.0, 1.3), 4: (2.0, 2.3, 2.9)}, pause_s=0.05, outside_s=(0.2,))


@pytest.mark.parametrize(
    "station",
    [
        Station(SIZED),
        Station(SIZED, queue=2),
        Station(SIZED, servers=3),
        Station(SIZED, batch=4),
        Station(SIZED, batch=4, wait_s=0.7),
        Station(SIZED, batch=4, wait_s=0.7, queue=6),
        Station(SIZED, batch=4, wait_s=0.3, queue=2),
        Station(SIZED, servers=2, batch=3, wait_s=0.4, queue=5),
    ],
    ids=str,
)
@pytest.mark.parametrize("law", ["poisson", "burst"])
def test_every_request_is_answered_when_a_plain_simulation_says(station: Station, law: str) -> None:
    due_s = queueing.schedule(Law(law, burst=5), lanes=6, count=150, seed=3) / 1.2345
    draws = np.random.default_rng(0).random(due_s.shape)
    found = served(station, due_s, seed=0)
    for lane in range(len(due_s)):
        done, busy = plainly(station, due_s[lane].tolist(), draws[lane].tolist())
        assert found.done_s[lane] == pytest.approx(np.array(done), nan_ok=True)
        assert found.busy_s[lane] == pytest.approx(busy)
    if station.queue is not None:
        assert np.isnan(found.done_s).any(), "some are refused, or the test says nothing of it"


def test_a_server_of_its_own_lane_gives_what_several_at_once_give() -> None:
    """The quick way for one server without batches, and the one for all others."""
    due_s = queueing.schedule(Law(), lanes=4, count=200) / 0.8
    quick = served(Station(SIZED), due_s)
    other = served(Station(SIZED, queue=199), due_s)
    assert quick.done_s == pytest.approx(other.done_s)
    assert quick.busy_s == pytest.approx(other.busy_s)


# -- closed loads


@pytest.mark.parametrize(
    ("in_flight", "servers", "latency_s", "per_s"), [(1, 1, 1.0, 1.0), (4, 1, 4.0, 1.0), (4, 2, 2.0, 2.0)]
)
def test_a_closed_load_of_a_fixed_service_takes_what_all_in_flight_take(
    in_flight: int, servers: int, latency_s: float, per_s: float
) -> None:
    found = served_closed(Station(FIXED, servers), in_flight, 60, lanes=2)
    said = queueing.figures(found, servers, queueing.settled_closed(found, in_flight))
    assert (said.p50_s, said.p95_s) == (pytest.approx(latency_s), pytest.approx(latency_s))
    assert said.per_s == pytest.approx(per_s, rel=0.03)
    assert said.busy == pytest.approx(min(1, in_flight / servers), rel=0.05)


def test_a_closed_load_fills_batches() -> None:
    station = Station(ServiceTimes({1: (1.0,), 4: (2.0,)}), batch=4)
    full = served_closed(station, 8, 200, lanes=1)
    said = queueing.figures(full, 1, queueing.settled_closed(full, 8))
    assert said.p50_s == pytest.approx(4.0), "its own batch, and the one before"
    assert said.per_s == pytest.approx(2.0, rel=0.03)
    waits = Station(ServiceTimes({1: (1.0,), 4: (2.0,)}), batch=4, wait_s=0.5)
    alone = served_closed(waits, 1, 20, lanes=1)
    assert alone.latency_s == pytest.approx(1.5), "nobody else comes"


def test_in_flight_is_rate_times_latency_in_a_closed_load() -> None:
    """Little's law, with time outside the server too."""
    station = Station(ServiceTimes({1: SCATTERED.by_size[1]}, pause_s=0.1, outside_s=(0.4, 0.6)), servers=2)
    found = served_closed(station, 6, 3000, lanes=2)
    said = queueing.figures(found, 2, queueing.settled_closed(found, 6))
    assert said.mean_s is not None
    assert said.mean_s * said.per_s == pytest.approx(6, rel=0.02)


def test_a_load_with_fewer_requests_than_may_be_in_flight_is_taken_whole() -> None:
    found = served_closed(Station(FIXED), 8, 3, lanes=1)
    assert sorted(found.latency_s[0].tolist()) == [1.0, 2.0, 3.0]
    assert queueing.settled_closed(found, 8).all()


def test_what_a_request_takes_outside_holds_no_server() -> None:
    outside = tuple((n + 0.5) / 50 for n in range(100))
    plain, longer = (long(ServiceTimes({1: (1.0,)}, outside_s=one), 0.5) for one in ((0.0,), outside))
    assert plain.mean_s is not None
    assert longer.mean_s == pytest.approx(plain.mean_s + 1, rel=0.01)
    assert (longer.busy, longer.per_s) == (pytest.approx(plain.busy, rel=0.01), pytest.approx(plain.per_s, rel=0.01))
    few = Station(ServiceTimes({1: (1.0,)}, outside_s=outside))
    light = queueing.figures(served_closed(few, 1, 400), 1, np.ones(400, bool))
    assert light.p95_s == pytest.approx(1 + 1.9, rel=0.03), "its scatter is kept"


# -- service times


def test_sizes_between_and_beyond_those_measured_lie_on_lines_through_them() -> None:
    service = ServiceTimes({1: (1.0, 1.0), 4: (4.0, 4.0)})
    assert [service.mean_s(size) for size in (1, 2, 3, 4, 6)] == pytest.approx([1, 2, 3, 4, 6])
    wide = ServiceTimes({1: (1.0, 3.0), 3: (3.0, 9.0)}).of_size(2)
    assert (min(wide), max(wide)) == (pytest.approx(2.0, rel=0.05), pytest.approx(6.0, rel=0.05)), (
        "quantile by quantile"
    )
    assert ServiceTimes({2: (1.0,), 4: (0.1,)}).mean_s(8) == 0.0, "no time is negative"


def test_one_size_tells_of_no_other() -> None:
    assert FIXED.knows(1)
    assert not FIXED.knows(2)
    assert not ServiceTimes({4: (1.0,)}).knows(4), "batches are not always full"
    with pytest.raises(ValueError, match="need two sizes"):
        Station(FIXED, batch=2)
    with pytest.raises(ValueError, match="do not tell how long 2 take"):
        FIXED.of_size(2)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"by_size": some} for some in ({}, {1: ()}, {0: (1.0,)}, {1: (-1.0,)}, {1: (math.nan,)})),
        {"by_size": {1: (1.0,)}, "pause_s": math.inf},
        {"by_size": {1: (1.0,)}, "outside_s": ()},
    ],
)
def test_times_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"time|batch"):
        ServiceTimes(**wrong)


@pytest.mark.parametrize("wrong", [{"servers": 0}, {"batch": 0}, {"queue": 0}, {"wait_s": -1.0}, {"wait_s": math.nan}])
def test_stations_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"at least 1|finite"):
        Station(SIZED, **wrong)
