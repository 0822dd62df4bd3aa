"""A load that several processes send: dealt out whole, begun at one moment, ended as one."""

import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

from sweep.run.client.messages import Due, Job
from sweep.run.client.several import dealt


def job(count: int, **more: object) -> Job:
    due = [Due(f"r{number}", {}, (8, 8), number / 10) for number in range(count)]
    warm = [Due("w0", {}, (8, 8))]
    return Job("http://127.0.0.1:1", "/", due, 1.0, **{"warm_up": warm, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "clients", "parts"), [(10, 1, 1), (10, 3, 3), (2, 3, 2)])
def test_every_request_is_sent_once_and_in_order(count: int, clients: int, parts: int) -> None:
    jobs = dealt(job(count, clients=clients))
    assert len(jobs) == parts
    names = sorted((one.id for part in jobs for one in part.requests), key=lambda name: int(name[1:]))
    assert names == [f"r{number}" for number in range(count)]
    for part in jobs:
        times = [one.intended_s for one in part.requests]
        assert times == sorted(times, key=lambda at: at or 0.0)
    assert [len(part.warm_up) for part in jobs] == [1, *[0] * (parts - 1)]


def test_what_may_be_in_flight_is_shared_and_nobody_has_nothing() -> None:
    assert [part.concurrency for part in dealt(job(20, clients=3, concurrency=8))] == [3, 3, 2]
    assert [part.concurrency for part in dealt(job(20, clients=3, concurrency=2))] == [1, 1]
    assert [part.concurrency for part in dealt(job(20, clients=2))] == [None, None]
