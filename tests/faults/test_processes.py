"""Processes that are stopped or cannot be ended: every wait has a limit, and the sweep continues."""

import pytest

from tests.faults.conftest import NOOP, Sweep, alive, numbers
from tests.faults.test_engine import in_generate

FORKED = 'KIND.preload["cpu"] = "colorsys"'
"""Has the engine that does nothing forked like a real one."""

THREE_GROUPS = ("-m", *NOOP, "workload.num_prompts=1", "workload.repeats=1", "engine.threads_per_rank=1,2,3", "batch=1")
CELLS = [f"baseline b1 threads_per_rank={group}" for group in (1, 2, 3)]


def forked(sweep: Sweep) -> None:
    """Fork engines from a server of the sweep's own, whose children they are."""
    sweep.own_fork_server = True
    sweep.inject("sweep.engines.noop.kind", FORKED)


@pytest.mark.parametrize("how", ["SIGSTOP", "SIGKILL"])
def test_fork_server_that_stops_or_dies_while_a_cell_is_measured_costs_no_cell(sweep: Sweep, how: str) -> None:
    forked(sweep)
    first = "if self.spec.threads_per_rank == 1 and not FLAG.exists():"
    in_generate(sweep, f"{first}\n    import os, signal; FLAG.touch(); os.kill(os.getppid(), signal.{how})")
    done = sweep.run(*THREE_GROUPS, timeout_s=120)
    assert sweep.flag.exists()
    assert done.code == 0, done.out + done.err
    assert [sweep.statuses()[cell] for cell in CELLS] == [("PASS", "")] * 3
    said = [line for line in done.err.splitlines() if "forked from" in line]
    assert len(said) == (how == "SIGSTOP"), "one that has ended is started again"
    assert not [pid for pid in sweep.engine_pids() if alive(pid)]


def test_fork_server_that_stops_before_it_forks_costs_one_engine(sweep: Sweep) -> None:
    forked(sweep)
    stop = """
_close = EngineHost.close

def close(self):
    _close(self)
    if self.spec.threads_per_rank == 1:
        os.kill(forkserver.forkserver._forkserver._forkserver_pid, signal.SIGSTOP)

EngineHost.close = close
"""
    sweep.inject("sweep.engines.process.host", stop)
    done = sweep.run(*THREE_GROUPS, "engine.load_timeout_s=2", timeout_s=120)
    assert done.code == 1, done.out + done.err
    assert [sweep.statuses()[cell] for cell in CELLS] == [("PASS", ""), ("ERROR", "timeout"), ("PASS", "")]
    assert "engine.fork=false" in sweep.reason(CELLS[1])


def test_engine_that_cannot_be_ended_is_an_error_that_says_so_and_others_run(sweep: Sweep) -> None:
    """As in a driver that hangs: signals to it have no effect, and it sleeps."""
    in_generate(sweep, "if self.spec.threads_per_rank == 1: import time; time.sleep(600)")
    immune = """
import types
KILL_TIMEOUT_S = CLOSE_TIMEOUT_S = 0.5
_os, os = os, types.SimpleNamespace(**vars(os))
os.killpg = lambda *given: None
"""
    sweep.inject("sweep.engines.process.host", immune)
    done = sweep.run(*THREE_GROUPS, "engine.request_timeout_s=1", "engine.warmup=0", timeout_s=120)
    assert done.code == 1, done.out + done.err
    assert [sweep.statuses()[cell] for cell in CELLS] == [("ERROR", "not_ended"), ("PASS", ""), ("PASS", "")]
    first = sweep.engine_pids()[0]
    assert numbers(sweep.reason(CELLS[0]))[-1] == first
    assert done.err.count(str(first)) == 1, "said once"
    assert not alive(first), "in the end it could be ended"
