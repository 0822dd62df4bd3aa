"""Loading and measuring exclude each other, across processes; the same kind does not."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.machine.load_measure_lock import LOADING, MEASURING, turn
from tests.conftest import environment

HOLD = """
import sys, time
from pathlib import Path
from sweep.machine.load_measure_lock import turn
kind, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
said = []
with turn(kind, folder, said.append, poll_s=0.01):
    print("in", *said, flush=True)
    time.sleep(seconds)
print("out", flush=True)
"""


def hold(kind: str, folder: Path, seconds: float) -> "subprocess.Popen[str]":
    """A process that takes a turn for so long; returned once it has it or waits."""
    command = [sys.executable, "-c", HOLD, kind, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_one_kind_is_shared_and_the_other_waits(tmp_path: Path) -> None:
    one, two = hold(MEASURING, tmp_path, 60), hold(MEASURING, tmp_path, 60)
    try:
        assert (first_line(one), first_line(two)) == ("in", "in")
        other = hold(LOADING, tmp_path, 0)
        time.sleep(0.7)
        assert other.poll() is None, "it waits"
        one.kill()
        time.sleep(0.3)
        assert other.poll() is None, "one still measures"
        os.kill(two.pid, signal.SIGKILL)  # a dead process holds nothing
        said = other.communicate(timeout=20)[0].split("\n")[0]
        assert said.startswith("in "), "it said that it waits"
        assert "measuring" in said
    finally:
        for process in (one, two):
            process.kill()
            process.communicate()


def test_turns_of_one_process_follow_each_other(tmp_path: Path) -> None:
    said: list[str] = []
    for kind in (LOADING, MEASURING, LOADING, LOADING):
        with turn(kind, tmp_path, said.append):
            pass
    assert said == []


def test_many_processes_never_mix(tmp_path: Path) -> None:
    code = """
import os, random, sys, time
from pathlib import Path
import pytest

from sweep.machine.load_measure_lock import LOADING, MEASURING, turn
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
for number in range(25):
    kind = rng.choice((LOADING, MEASURING))
    with turn(kind, folder, lambda message: None, poll_s=0.002):
        mark = folder / f"{kind}-{os.getpid()}.mark"
        mark.touch()
        wrong = [path.name for path in folder.glob("*.mark") if not path.name.startswith(kind)]
        time.sleep(rng.uniform(0, 0.004))
        mark.unlink()
    if wrong:
        raise SystemExit(f"{kind} beside {wrong}")
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen([*command, str(seed)], env=environment()) for seed in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]


class Waits(Exception):
    """Raised instead of waiting."""


def test_a_process_that_is_stopped_while_it_checks_holds_nobody_up_without_a_word(tmp_path: Path) -> None:
    def waiting(message: str) -> None:
        raise Waits(message)

    with (tmp_path / "door.turn").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        signal.alarm(60)
        try:
            with pytest.raises(Waits), turn(MEASURING, tmp_path, waiting):
                pass
        finally:
            signal.alarm(0)
