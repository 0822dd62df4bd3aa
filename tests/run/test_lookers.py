"""Lookers: every reply is looked at once, by those that work at leisure or by those that help at the end."""

import asyncio
import json
import multiprocessing
import os
import socket
from multiprocessing.synchronize import Lock
from pathlib import Path

import pytest

pytest.importorskip("msgspec")
pytest.importorskip("uvloop")

import msgspec
import uvloop

from sweep.run.client import lookers
from sweep.run.client.messages import Answer, Told

SIZES = (0, 3, 6, 2, 5, 0, 4, 6)  # digits of their bytes
REPLIES = [
    json.dumps({"data": [], "metrics": {"number": number, "text": "x" * 10**size}}).encode()
    for number, size in enumerate(SIZES)
]


def looked_at(tmp_path: Path, count: int, pause_s: float = 0.0) -> list[Answer]:
    """What lookers report about REPLIES, in the order of their numbers; run in a separate process."""

    def run() -> None:
        os.dup2(os.open(tmp_path / "told", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
        some = lookers.Lookers(count, multiprocessing.get_context("fork").Lock(), pictures=False)

        async def hand() -> None:
            await some.begin()
            for number, reply in enumerate(REPLIES):
                await some.hand(lookers.Parcel(Answer(f"r{number}", 0.0, 0.0, 1.0, 200), None, ""), reply)
                await asyncio.sleep(pause_s)
            await some.end()

        uvloop.run(hand())

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    found = [msgspec.json.decode(line, type=Told).answer for line in (tmp_path / "told").read_bytes().splitlines()]
    return sorted(found, key=lambda answer: answer.id)


def gone(theirs: object, ours: lookers.Ends, reading: Lock, telling: Lock, *more: object) -> None:
    """A looker that never gets to run."""
    for end in ours:
        end.close()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("absent", ["", "_look_at_leisure", "_help"], ids=["all", "busy machine", "no help needed"])
def test_every_reply_is_looked_at_once(
    tmp_path: Path, count: int, absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if absent:
        monkeypatch.setattr(lookers, absent, gone)
    found = looked_at(tmp_path, count)
    assert [answer.id for answer in found] == [f"r{number}" for number in range(len(REPLIES))]
    assert [answer.metrics["number"] for answer in found] == list(range(len(REPLIES)))
    assert not any(answer.error for answer in found)


def test_helpers_join_before_too_much_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the generator would wait for lookers that a busy machine never lets run."""
    monkeypatch.setattr(lookers, "_look_at_leisure", gone)
    monkeypatch.setattr(lookers, "HELD", 1_000)
    assert len(looked_at(tmp_path, 1, pause_s=2 * lookers.GATHER_S)) == len(REPLIES)


def killed(theirs: object, ours: lookers.Ends, reading: Lock, telling: Lock) -> None:
    """A looker that is killed while it reads."""
    reading.acquire()
    os._exit(9)


def test_a_looker_that_is_killed_ends_the_load_also_while_the_generator_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lookers, "_look_at_leisure", killed)
    monkeypatch.setattr(lookers, "HELD", 1_000)
    with pytest.raises(AssertionError, match="assert 1 == 0"):
        looked_at(tmp_path, 2, pause_s=2 * lookers.GATHER_S)
    assert "LookerDied" in capfd.readouterr().err


def refuse(*_: object) -> None:
    raise PermissionError


def test_a_system_that_refuses_the_lowest_priority_loses_no_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    assert len(looked_at(tmp_path, 1)) == len(REPLIES)


def test_a_reply_that_is_cut_off_ends_a_looker() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(lookers._SIZES.pack(3, 100) + b"abc")
    ours.close()
    with theirs:
        lookers._look_at_all(theirs, multiprocessing.Lock(), multiprocessing.Lock())
