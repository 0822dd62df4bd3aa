"""`profile=nsys` when something goes wrong: a cell never loses its measurements, and nothing of nsys is left behind."""

import signal

import psutil
import pytest

from profiling.nsys.nsys_cli import Nsys
from tests.faults.conftest import NOOP, Sweep, alive, group_alive, numbers, wait_for
from tests.faults.test_engine import in_generate
from tests.nsys import fake_nsys, nsys_processes, real_nsys

MEASURING = "while folder or FLAG.exists(): import time; FLAG.touch(); time.sleep(0.1)"
"""The engine that does nothing stays in its first measured batch."""


@pytest.fixture(params=["script", "real"])
def nsys(request: pytest.FixtureRequest, sweep: Sweep) -> str:
    """Which nsys records: the script in its place, and the real one where there is one."""
    if request.param == "script":
        sweep.environment["NSYS"] = str(fake_nsys(sweep.base)[0])
    else:
        found: Nsys = real_nsys()
        sweep.environment["NSYS"] = str(found.path)
    return str(request.param)


def left(sweep: Sweep) -> list[str]:
    """What is left of nsys: processes of the sessions of this test's sweeps, and its temporary files."""
    owners = [f"sweep-{process.pid}-" for process in sweep.processes]
    lines = [line for owner in owners for line in nsys_processes(owner)]
    return lines + [path.name for path in (sweep.base / "tmp").glob("sweep-nsys-*")]


def test_killed_engine_under_nsys_is_one_error_and_the_next_cell_is_recorded(sweep: Sweep, nsys: str) -> None:
    in_generate(sweep, "if folder and len(requests) == 1: import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    done = sweep.run("-m", *NOOP, "profile=nsys", "batch=1,2")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()["baseline b1"] == ("ERROR", "crash")
    assert "SIGKILL" in sweep.reason("baseline b1")
    assert numbers(sweep.reason("baseline b1")) == [1, 4, 1], "batch 1 of 4, repeat 1"
    assert sweep.rows()["baseline b2"]["status"] == "PASS"
    assert (sweep.cell_path("baseline b2") / "trace.nsys-rep").is_file()
    assert not left(sweep)


def test_exception_under_nsys_costs_the_batch_and_keeps_the_session(sweep: Sweep, nsys: str) -> None:
    in_generate(sweep, "if folder and len(requests) == 1: raise ValueError('no')")
    done = sweep.run("-m", *NOOP, "profile=nsys", "batch=1,2")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()["baseline b1"] == ("ERROR", "exception")
    assert sweep.reason("baseline b1").endswith("ValueError: no")
    assert sweep.rows()["baseline b2"]["status"] == "PASS"
    assert sweep.manifest()["engine_starts"] == 1
    for batch in (1, 2):
        assert (sweep.cell_path(f"baseline b{batch}") / "trace.nsys-rep").is_file(), "also of what led to the error"
    assert not left(sweep)


def test_hanging_engine_under_nsys_is_killed_with_its_session(sweep: Sweep, nsys: str) -> None:
    in_generate(sweep, MEASURING)
    done = sweep.run("-m", *NOOP, "profile=nsys", "engine.request_timeout_s=2")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()["baseline b1"] == ("ERROR", "timeout")
    assert numbers(sweep.reason("baseline b1")) == [2, 1, 4, 1], "seconds, batch 1 of 4, repeat 1"
    assert not left(sweep)
    assert not any(group_alive(pid) for pid in sweep.engine_pids())


def test_interrupt_under_nsys_leaves_nothing(sweep: Sweep, nsys: str) -> None:
    in_generate(sweep, MEASURING)
    process = sweep.start("-m", *NOOP, "profile=nsys")
    sweep.wait_until(process, sweep.flag.exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, out + err
    assert sweep.statuses()["baseline b1"] == ("ERROR", "interrupted")
    assert numbers(sweep.reason("baseline b1")) == [1, 4, 1], "batch 1 of 4, repeat 1"
    assert not left(sweep)
    assert not any(group_alive(pid) for pid in sweep.engine_pids())


def test_sweeper_killed_while_nsys_records_leaves_no_process(sweep: Sweep, nsys: str) -> None:
    in_generate(sweep, MEASURING)
    process = sweep.start("-m", *NOOP, "profile=nsys")
    sweep.wait_until(process, sweep.flag.exists)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(alive(pid) for pid in sweep.engine_pids()))
    wait_for(lambda: not nsys_processes(f"sweep-{process.pid}-"))


def test_agent_that_dies_costs_the_trace_only(sweep: Sweep, nsys: str) -> None:
    """As it does when the folder of its temporary files is full."""
    gone = "FLAG.with_name('gone')"
    in_generate(sweep, f"import time\nwhile folder and not {gone}.exists():\n    FLAG.touch(); time.sleep(0.1)")
    process = sweep.start("-m", *NOOP, "profile=nsys")
    sweep.wait_until(process, sweep.flag.exists)
    for one in psutil.process_iter():
        words = one.cmdline() if one.is_running() and one.status() != psutil.STATUS_ZOMBIE else []
        if any(word.startswith(f"--session-name=sweep-{process.pid}-") for word in words):
            one.kill()
    sweep.flag.with_name("gone").touch()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    row = sweep.rows()["baseline b1"]
    if nsys == "real":  # the script's agent does nothing
        assert sweep.notes("baseline b1") == ["profile_failed"]
        assert str(sweep.base / "tmp") in row["note"], "the folder that may be full"
        assert row["trace"] == ""
    assert row["status"] == "PASS"
    assert not left(sweep)


NO_ROOM = """
    print("Failed to create '" + (state / "output").read_text() + "': No space left on device.")
    sys.exit(0)
"""


def test_no_room_for_the_trace_is_told_and_costs_no_cell(sweep: Sweep) -> None:
    sweep.environment["NSYS"] = str(fake_nsys(sweep.base, stop=NO_ROOM)[0])
    done = sweep.run("-m", *NOOP, "profile=nsys")
    assert done.code == 0, done.out + done.err
    row = sweep.rows()["baseline b1"]
    trace = sweep.cell_path("baseline b1") / "trace.nsys-rep"
    assert sweep.notes("baseline b1") == ["profile_failed"]
    assert row["note"].endswith(f"Failed to create '{trace}': No space left on device.")
    assert (row["status"], row["trace"], row["profiled"]) == ("PASS", "", "nsys")


def test_analysis_that_fails_costs_no_trace(sweep: Sweep) -> None:
    sweep.environment["NSYS"] = str(fake_nsys(sweep.base)[0])
    sweep.inject("profiling.errors", "import sys; sys.modules['profiling.nsys.analyze'] = None")
    done = sweep.run("-m", *NOOP, "profile=nsys")
    assert done.code == 0, done.out + done.err
    row = sweep.rows()["baseline b1"]
    assert sweep.notes("baseline b1") == ["profile_failed"]
    assert "ModuleNotFoundError: " in row["note"]
    assert row["trace"].endswith("/trace.nsys-rep")
    assert row["status"] == "PASS"


def test_nsys_that_cannot_launch_is_refused_before_anything_is_loaded(sweep: Sweep) -> None:
    script, _ = fake_nsys(sweep.base, launch="print('no permission'); agent.kill(); sys.exit(1)")
    sweep.environment["NSYS"] = str(script)
    done = sweep.run("-m", *NOOP, "profile=nsys")
    assert done.code == 2, done.out + done.err
    (line,) = done.err.splitlines()
    assert all(fact in line for fact in ("profile=nsys", "no permission", "python -m profiling doctor")), line
    assert not sweep.folder.exists()


def test_launch_that_fails_later_is_an_error_of_its_cells(sweep: Sweep) -> None:
    once = "pathlib.Path(LOG + '.once')"
    again = f"if {once}.exists(): print('no more'); agent.kill(); sys.exit(1)\n    {once}.touch()"
    sweep.environment["NSYS"] = str(fake_nsys(sweep.base, launch=again)[0])
    done = sweep.run("-m", *NOOP, "profile=nsys")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()["baseline b1"] == ("ERROR", "load")
    assert sweep.reason("baseline b1").endswith("no more")
    assert numbers(sweep.reason("baseline b1")) == [1], "the exit code"
    assert not left(sweep)
