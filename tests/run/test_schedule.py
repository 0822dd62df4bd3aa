"""Offline turns, and the driver that sends them."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sweep.engines.process.failures import EngineFailure
from sweep.engines.process.host import EngineHost
from sweep.engines.protocol import Output, Request
from sweep.run.baseline_engine import BaselineEngine
from sweep.run.drivers import MOST_IN_VAIN, Broken, OfflineDriver, Record
from sweep.run.schedule import offline

REQUESTS = [Request(f"r{number}", "a red fox", number, 0, 64, 64, 8, 4.0) for number in range(4)]
ROUNDS = [REQUESTS[:2], REQUESTS[2:]]


def test_every_batch_is_sent_so_often_and_the_baseline_takes_turns_in_going_first() -> None:
    turns = offline(ROUNDS, 3)
    assert [(turn.repeat, turn.requests[0].request_id) for turn in turns] == [
        *((repeat, name) for repeat in range(3) for name in ("r0", "r2")),
    ]
    assert [turn.baseline_first for turn in turns] == [True, False, False, True, True, False]
    assert [turn.keep_images for turn in turns] == [True, True, False, False, False, False]
    assert all(turn.intended_s is None for turn in turns), "offline, a turn follows the one before"


class Host:
    """Takes a second for each batch; fails at call number `fails_at`."""

    def __init__(self, log: list[str], name: str, fails_at: int = -1) -> None:
        self.log, self.name, self.fails_at, self.calls = log, name, fails_at, 0

    def generate(self, requests: Any, folder: Path | None, timeout_s: float, doing: str) -> Output:
        self.calls += 1
        if self.calls == self.fails_at:
            raise EngineFailure("crash", "it ended")
        self.log.append(f"{self.name} {requests[0].request_id}")
        names = tuple(request.request_id for request in requests)
        return Output(names, 0.0, 1.0, ("",) * 2, ("",) * 2, 0, (1,) * 2, (), ())


def driver(log: list[str], fails_at: int = -1, baseline_fails_at: int = -1) -> OfflineDriver:
    host = cast(EngineHost, Host(log, "cell", fails_at))
    baseline = BaselineEngine(cast(EngineHost, Host(log, "baseline", baseline_fails_at)))
    return OfflineDriver(host, baseline, None, 10.0, lambda: log.append("moment") or 7.0)


def test_records_come_one_by_one_with_the_baselines_latency() -> None:
    log: list[str] = []
    records = driver(log).drive(offline(ROUNDS, 1))
    assert isinstance(records, Iterator)
    first = next(records)
    sent = [line for line in log if line != "moment"]
    assert (first.baseline.latency_s, sent) == (1.0, ["baseline r0", "cell r0"]), "the second batch was not sent yet"
    assert [record.turn.requests[0].request_id for record in records] == ["r2"]
    sent = [line for line in log if line != "moment"]
    assert sent[2:] == ["cell r2", "baseline r2"]


def test_every_turn_of_either_engine_begins_with_a_moment_of_its_own() -> None:
    log: list[str] = []
    records = list(driver(log).drive(offline(ROUNDS, 1)))
    assert log[::2] == ["moment"] * 4
    assert [record.span for record in records] == [(7.0, 8.0)] * 2
    log.clear()
    alone = OfflineDriver(cast(EngineHost, Host(log, "cell")), None, None, 10.0, lambda: log.append("moment") or 7.0)
    list(alone.drive(offline(ROUNDS, 1)))
    assert log == ["cell r0", "cell r2"], "without another engine there is nothing to tell apart"


def test_the_turn_that_failed_is_known_and_those_before_it_are_kept() -> None:
    one = driver([], fails_at=2)
    kept = []
    with pytest.raises(EngineFailure):
        kept.extend(one.drive(offline(ROUNDS, 1)))
    assert one.failed is not None
    assert one.failed.turn.requests[0].request_id == "r2"


def test_a_baseline_that_fails_after_the_cell_costs_its_own_time_only() -> None:
    one, kept = driver([], baseline_fails_at=2), list[Record]()
    with pytest.raises(EngineFailure):
        kept.extend(one.drive(offline(ROUNDS, 1)))
    assert [record.baseline and record.baseline.latency_s for record in kept] == [1.0, None]
    assert one.failed is None, "the cell's own engine answered"


def test_an_engine_may_hand_over_its_requests_one_by_one() -> None:
    """As the host sees it: any number of records, then the end."""
    answers = iter([("record", 1), ("record", 2), ("ok", None)])
    host = SimpleNamespace(_send=lambda *_: None, _answer=lambda *_: next(answers), log_size=lambda: 0)
    assert list(EngineHost.stream(cast(EngineHost, host), [], None, 1.0, "generating")) == [1, 2]


class Picky:
    """An engine that continues after a batch with one of `bad` in it, which fails."""

    def __init__(self, *bad: int, dies_at: int = -1) -> None:
        self.bad, self.dies_at, self.sent = set(bad), dies_at, list[tuple[int, ...]]()

    def generate(self, requests: Any, folder: Path | None, timeout_s: float, doing: str) -> Output:
        indices = tuple(request.prompt_index for request in requests)
        self.sent.append(indices)
        if len(self.sent) == self.dies_at:
            raise EngineFailure("crash", "it ended")
        if self.bad & set(indices):
            raise EngineFailure("exception", f"failed while {doing}", alive=True)
        names = tuple(request.request_id for request in requests)
        return Output(names, 0.0, 1.0, ("",) * len(names), ("",) * len(names), 0, (1,) * len(names), (), ())


def drive(host: Picky, repeats: int = 1) -> tuple[list[Record], list[Broken], OfflineDriver]:
    broken: list[Broken] = []
    one = OfflineDriver(cast(EngineHost, host), None, None, 10.0, broke=broken.append)
    return list(one.drive(offline(ROUNDS, repeats))), broken, one


def test_a_batch_that_failed_is_sent_request_by_request_and_never_again() -> None:
    host = Picky(1)
    records, (broken,), one = drive(host, repeats=2)
    assert host.sent == [(0, 1), (0,), (1,), (2, 3), (2, 3)]
    assert [record.turn.requests[0].prompt_index for record in records] == [2, 2]
    assert [record.turn.requests for record in broken.alone] == [(REQUESTS[0],)]
    ((failed, reason),) = broken.failed
    assert failed.turn.requests == (REQUESTS[1],)
    assert "r1" in reason
    assert one.failed is None


def test_an_engine_that_dies_over_a_single_request_ends_the_turns() -> None:
    host, broken = Picky(1, dies_at=3), list[Broken]()
    one = OfflineDriver(cast(EngineHost, host), None, None, 10.0, broke=broken.append)
    with pytest.raises(EngineFailure, match="it ended"):
        list(one.drive(offline(ROUNDS, 1)))
    assert [record.turn.requests for record in broken[0].alone] == [(REQUESTS[0],)], "what it had generated is kept"
    assert one.failed is not None
    assert one.failed.turn.requests == (REQUESTS[1],)


def test_a_baseline_that_cannot_generate_a_batch_leaves_the_cells_own_engine_to_it() -> None:
    own, other, broken = Picky(1), Picky(1), list[Broken]()
    baseline = BaselineEngine(cast(EngineHost, other))
    one = OfflineDriver(cast(EngineHost, own), baseline, None, 10.0, lambda: 7.0, broken.append)
    records = list(one.drive(offline(ROUNDS, 1)))
    assert (other.sent, own.sent) == ([(0, 1), (2, 3)], [(0,), (1,), (2, 3)])
    assert [record.baseline is not None for record in records] == [True]
    assert [record.turn.requests for record in broken[0].alone] == [(REQUESTS[0],)]


def test_when_no_request_ever_succeeds_no_more_are_sent() -> None:
    many = [Request(f"r{number}", "a red fox", number, 0, 64, 64, 8, 4.0) for number in range(30)]
    host = Picky(*range(30))
    one = OfflineDriver(cast(EngineHost, host), None, None, 10.0)
    with pytest.raises(EngineFailure):
        list(one.drive(offline([[request] for request in many], 1)))
    assert len(host.sent) == MOST_IN_VAIN
    host = Picky(*range(1, 30))
    assert (
        len(list(OfflineDriver(cast(EngineHost, host), None, None, 10.0).drive(offline([many[:15], many[15:]], 1))))
        == 0
    )
    assert host.sent[-1] == (29,), "one that succeeded may not be the last"
