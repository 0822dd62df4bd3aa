"""What is left when everything of a sweep is killed at once, as with its container: the next sweep clears it away."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sweep.engines.process import temp_folders
from tests.faults.conftest import NOOP, Sweep, alive, wait_for
from tests.faults.test_engine import in_generate

HOLD = """
import multiprocessing, time
from sweep.engines.process import temp_folders
held = multiprocessing.get_context("spawn").Lock(), temp_folders.make()
FLAG.write_text(str(temp_folders.SEMAPHORES / f"sem.{held[0]._semlock.name[1:]}") + " " + str(held[1]))
time.sleep(600)
"""


def kill_all(process: "subprocess.Popen[str]") -> None:
    """The sweep and all that it started, so that none can clean up after the others."""
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in every:
        one.suspend()
    for one in every:
        one.kill()
    process.wait()


def test_what_a_killed_sweep_left_is_cleared_away_by_the_next_one(sweep: Sweep) -> None:
    in_generate(sweep, "if not FLAG.exists():" + HOLD.replace("\n", "\n    "))
    arguments = ("-m", *NOOP, "workload.num_prompts=1", "workload.repeats=1")
    process = sweep.start(*arguments)
    sweep.wait_until(process, lambda: sweep.flag.exists() and " " in sweep.flag.read_text())
    semaphore, folder = map(Path, sweep.flag.read_text().split())
    place = temp_folders._place()
    launcher = temp_folders.SEMAPHORES / f"sem.loky-{process.pid}-made_up"
    launcher.touch()
    kill_all(process)
    tmp = sweep.base / "tmp"
    left = [semaphore, folder, launcher, *tmp.glob(f"sweep-main-{place}-{process.pid}-*")]
    assert len(left) == 4
    assert all(path.exists() for path in left)

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    nowhere = sweep.base / "elsewhere"
    nowhere.mkdir()
    others = [
        tmp / f"sweep-engine-{place}-{os.getpid()}-living",
        tmp / f"sweep-engine-{'0' * len(place)}-{gone.pid}-elsewhere",  # another machine's, in a shared folder
        tmp / f"pymp-{gone.pid}",
        temp_folders.SEMAPHORES / f"sem.loky-{gone.pid}-no_sweep",
        nowhere,
    ]
    for path in others[:3]:
        path.mkdir()
    others[3].touch()
    (tmp / f"sweep-engine-{place}-{gone.pid}-link").symlink_to(nowhere)
    try:
        assert sweep.run(*arguments).code == 0
        assert not [path for path in left if path.exists()]
        assert all(path.exists() for path in others)
        assert list(tmp.glob("sweep-main-*")) == [], "nor does a sweep that ends leave one"
    finally:
        others[3].unlink(missing_ok=True)
        launcher.unlink(missing_ok=True)
        semaphore.unlink(missing_ok=True)


def test_stopped_engine_of_a_killed_sweep_is_ended_by_the_next_one(sweep: Sweep) -> None:
    """It could not end itself, and would hold its devices' memory forever."""
    in_generate(sweep, "if not FLAG.exists(): FLAG.touch(); import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    arguments = ("-m", *NOOP, "workload.num_prompts=1", "workload.repeats=1")
    process = sweep.start(*arguments)
    sweep.wait_until(process, sweep.flag.exists)
    (engine,) = sweep.engine_pids()
    wait_for(lambda: psutil.Process(engine).status() == psutil.STATUS_STOPPED)
    process.kill()
    process.wait()
    time.sleep(1.5)  # it would end itself within half a second
    assert alive(engine)
    done = sweep.run(*arguments)
    assert done.code == 0, done.out + done.err
    wait_for(lambda: not alive(engine))
    assert str(engine) in done.err
    again = sweep.run(*arguments)
    assert again.err == ""


def test_folders_of_another_user_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = tmp_path / f"sweep-engine-{temp_folders._place()}-{gone.pid}-x"
    folder.mkdir()
    own = os.getuid()
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: own + 1)
        temp_folders.clear_dead()
    assert folder.exists()
    temp_folders.clear_dead()
    assert not folder.exists()
