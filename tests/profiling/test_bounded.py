"""Waits for what may never answer end with an error, wherever in a message the other end stopped."""

import os
import subprocess
import sys
import threading

import pytest

from profiling.bounded import killed, pipe

LARGE = "x" * 3_000_000
"""More than a socket holds."""


def test_large_objects_arrive_in_both_directions() -> None:
    ours, theirs = pipe()
    echo = threading.Thread(target=lambda: theirs.send(theirs.recv()))
    echo.start()
    ours.send_within(LARGE, 240)
    assert ours.recv_within(240) == LARGE
    echo.join()


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x09four"], ids=["nothing", "half a header", "half an object"])
def test_an_answer_that_stops_anywhere_is_not_waited_for(sent: bytes) -> None:
    ours, theirs = pipe()
    os.write(theirs.fileno(), sent)
    with pytest.raises(TimeoutError):
        ours.recv_within(0.05)


def test_what_nobody_reads_is_not_waited_for() -> None:
    ours, _theirs = pipe()
    with pytest.raises(TimeoutError):
        ours.send_within(LARGE, 0.05)


def test_a_closed_end_is_said_as_such() -> None:
    ours, theirs = pipe()
    theirs.close()
    with pytest.raises(EOFError):
        ours.recv_within(240)
    with pytest.raises(BrokenPipeError):
        ours.send_within("", 240)


def test_a_stopped_process_is_killed_and_one_that_stays_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 19)"])
    assert killed(process, 240) == -9
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with monkeypatch.context() as patched:
        patched.setattr(process, "kill", lambda: None)
        assert killed(process, 0.05) is None
    assert killed(process, 240) == -9
