"""The sampler on a real, busy process tree, and what is left of it when one of the two goes."""

import contextlib
import itertools
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from driver_doubles import nvml

from profiling.telemetry import worker
from profiling.telemetry.sampler import ProcessTreeSampler
from profiling.telemetry.samples import GpuUser, TelemetrySummary, TelemetryWindow, Watched
from tests.conftest import environment

# A parent that holds 50 MB and waits, its child computes; then more children come and go at once.
TREE = """
import subprocess, sys, time
held = bytearray(50_000_000)
busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    subprocess.run([sys.executable, "-S", "-c", ""])
sys.stdin.readline()
busy.kill()
busy.wait()
"""


@pytest.fixture
def tree() -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen([sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    yield process
    process.communicate("\n\n", timeout=240)


def proceed(process: "subprocess.Popen[str]") -> None:
    """Let the tree go on to its next part."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_memory_and_processor_time_of_the_whole_tree(tree: "subprocess.Popen[str]") -> None:
    sampler = ProcessTreeSampler(tree.pid, interval_s=0.05, gpu_indices=())
    sampler.start()
    (busy,) = psutil.Process(tree.pid).children()
    read = [sum(busy.cpu_times()[:2])]
    start = sampler.mark()  # it takes as long as its process takes to start
    read.append(sum(busy.cpu_times()[:2]))
    for _ in range(60):  # seconds: where the machine is busy, so is the process that samples
        time.sleep(1.0)
        used, end = sum(busy.cpu_times()[:2]), sampler.mark()
        if len(sampler.window(start, end).samples) >= 5:
            break
    read += [used, sum(busy.cpu_times()[:2])]
    sampler.stop()
    least, most = (100 * used / (end - start) for used in (read[2] - read[1], read[3] - read[0]))
    window = sampler.window(start, end)
    assert 5 <= len(window.samples) <= (end - start) / 0.05 + 2
    assert all(start <= sample.time_s <= end for sample in window.samples)
    assert window.summary.peak_memory_gb is not None
    assert 0.05 < window.summary.peak_memory_gb < 0.5
    assert window.summary.cpu_pct is not None
    assert 0.7 * least - 5 < window.summary.cpu_pct < 1.3 * most + 5  # busy may share its core, and marks may wait
    assert (window.summary.gpu_util_pct, window.summary.energy_j) == (None, None)
    assert all(sample.gpu_index is None for sample in window.samples)


def test_processes_that_vanish_while_sampling(tree: "subprocess.Popen[str]") -> None:
    sampler = ProcessTreeSampler(tree.pid, interval_s=0.005, gpu_indices=())
    start = sampler.mark()
    proceed(tree)
    for _ in range(120):  # half seconds: a busy machine samples rarely
        time.sleep(0.5)
        if len(sampler.window(start, sampler.mark()).samples) > 10:
            break
    proceed(tree)
    tree.wait(timeout=240)
    time.sleep(0.05)
    gone = time.perf_counter()
    time.sleep(0.05)
    sampler.stop()
    assert len(sampler.window(start, gone).samples) > 10
    assert sampler.window(gone, time.perf_counter()).samples == ()


def test_the_clock_is_shared_with_other_processes() -> None:
    sampler = ProcessTreeSampler(os.getpid(), gpu_indices=())
    before = time.perf_counter()
    sampler.mark()
    asked = "import time; print(time.perf_counter())"
    between = float(subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True).stdout)
    sampler.stop()
    times = [sample.time_s for sample in sampler.window(before, time.perf_counter()).samples]
    assert times[0] < between < times[-1]


def test_stop_twice_or_without_start_is_fine() -> None:
    ProcessTreeSampler(os.getpid()).stop()
    sampler = ProcessTreeSampler(os.getpid())
    sampler.start()
    sampler.stop()
    sampler.stop()
    assert sampler.problem == ""


def samplers(of: int | None = None) -> list[psutil.Process]:
    """Sampling processes that this process, or another, has started and that run."""
    found = []
    for one in psutil.Process(of).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "profiling.telemetry.worker" in one.cmdline():
                found.append(one)
    return found


def test_sampling_goes_on_while_this_process_lets_nobody_else_run() -> None:
    def longest_gap() -> float:
        """Longest time without a sample, as a part of the call."""
        sampler = ProcessTreeSampler(os.getpid(), interval_s=0.02, gpu_indices=())
        start = sampler.mark()
        sum(range(150_000_000))  # one call that never lets go of the interpreter: a thread would wait all the while
        end = time.perf_counter()
        sampler.stop()
        times = [start, *(sample.time_s for sample in sampler.window(start, end).samples), end]
        assert end - start > 0.3
        return max(later - earlier for earlier, later in itertools.pairwise(times)) / (end - start)

    # A busy machine can starve the sampler during one call, though not during each; a thread would wait in all of them.
    assert any(longest_gap() < 0.5 for _ in range(8))


def test_nothing_is_sampled_before_the_first_mark_and_at_rest() -> None:
    sampler = ProcessTreeSampler(os.getpid(), interval_s=0.01, gpu_indices=())
    sampler.start()
    time.sleep(0.3)
    first = sampler.mark()
    assert len(sampler.window(0.0, first).samples) == 1
    sampler.rest()
    resting = time.perf_counter()
    time.sleep(0.2)
    second = sampler.mark()
    assert [sample.time_s > resting for sample in sampler.window(0.0, second).samples] == [True]
    sampler.stop()


ANSWERS_NOTHING = """
import sys
from profiling.telemetry import worker

class Pipe:
    def poll(self, seconds): return True
    def recv(self): raise EOFError

worker.serve(Pipe(), 1, 1.0, ())
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_only_what_sampling_needs_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS_NOTHING], capture_output=True, text=True, env=environment(), check=True
    )
    imported = set(done.stdout.split())
    assert "psutil" in imported
    assert not imported & {"numpy", "torch", "hydra", "omegaconf", "pynvml", "amdsmi", "sweep", "rich"}


STARTS_ONE = """
import os, sys, time
from profiling.telemetry.sampler import ProcessTreeSampler
sampler = ProcessTreeSampler(os.getpid(), interval_s=0.05, gpu_indices={gpus})
sampler.start()
{then}
print("ready", flush=True)
time.sleep(60)
"""
HANGS = """
import pathlib, time

def nvmlInit():
    pathlib.Path({asked!r}).touch()
    time.sleep(60)
"""


@pytest.mark.parametrize("doing", ["sampling", "waiting for a driver that hangs"])
def test_sampler_ends_with_its_parent_however_that_died(doing: str, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    (tmp_path / "pynvml.py").write_text(HANGS.format(asked=str(asked)))
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), variables["PYTHONPATH"]])
    script = STARTS_ONE.format(gpus="()", then="sampler.mark()")
    if doing != "sampling":
        script = STARTS_ONE.format(gpus=None, then=f"while not os.path.exists({str(asked)!r}): time.sleep(0.01)")
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=variables)
    assert parent.stdout
    assert parent.stdout.readline() == b"ready\n"
    (sampler,) = samplers(parent.pid)
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs([sampler], timeout=120)[1] == []


def test_stopping_ends_its_process_at_once() -> None:
    sampler = ProcessTreeSampler(os.getpid(), interval_s=600, gpu_indices=())
    sampler.mark()
    (process,) = samplers()
    start = time.perf_counter()
    sampler.stop()
    assert time.perf_counter() - start < 60, "it did not wait for its next sample"
    assert not process.is_running()


def test_lost_sampler_leaves_nothing_half_known_and_the_next_window_has_another() -> None:
    sampler = ProcessTreeSampler(os.getpid(), interval_s=0.02, gpu_indices=())
    start = sampler.mark()
    time.sleep(0.1)
    samplers()[0].kill()
    end = sampler.mark()
    sampler.rest()
    assert "SIGKILL" in sampler.problem
    assert sampler.window(start, end) == TelemetryWindow((), TelemetrySummary(None, None, None, None))
    start = sampler.mark()
    end = sampler.mark()
    sampler.stop()
    assert sampler.problem == ""
    assert sampler.window(start, end).summary.peak_memory_gb is not None


def test_sampler_that_hangs_is_given_up_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiling.telemetry.sampler.ANSWER_TIMEOUT_S", 0.2)
    sampler = ProcessTreeSampler(os.getpid(), gpu_indices=())
    sampler.mark()
    (process,) = samplers()
    process.suspend()
    sampler.rest()
    assert "0.2 s" in sampler.problem
    assert not process.is_running()
    sampler.stop()


def test_sampler_that_cannot_be_started_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    sampler = ProcessTreeSampler(os.getpid(), gpu_indices=())
    start = sampler.mark()
    sampler.stop()
    assert "[Errno 2]" in sampler.problem
    assert "/nowhere/python" in sampler.problem
    assert sampler.window(start, time.perf_counter()).samples == ()


BREAKS = """
class NVMLError(Exception): pass
calls = iter(range(3))
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetComputeRunningProcesses(gpu): raise NVMLError
def nvmlDeviceGetMemoryInfo(gpu): raise NVMLError if next(calls) < 2 else ValueError("nonsense")
"""


@pytest.mark.parametrize("interval_s", [0.01, 60.0], ids=["between commands", "at a command"])
def test_sampler_that_fails_tells_its_last_words(
    interval_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pynvml.py").write_text(BREAKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sampler = ProcessTreeSampler(os.getpid(), interval_s, gpu_indices=None)
    sampler.mark()
    if interval_s < 1:
        psutil.wait_procs(samplers(), timeout=240)  # none when it has failed already
    sampler.mark()
    sampler.rest()
    assert sampler.problem.endswith(": ValueError: nonsense")
    sampler.stop()


def test_answer_of_a_command_that_was_broken_off_is_not_taken_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = ProcessTreeSampler(os.getpid(), interval_s=60, gpu_indices=())
    sampler.mark()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sampler, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sampler.mark()
    assert sampler._pipe
    assert sampler._pipe.poll(240)  # its answer waits there
    last = time.perf_counter()
    sampler.stop()
    assert [sample.time_s > last for sample in sampler.window(0.0, time.perf_counter()).samples] == [False, False, True]


class Commands:
    """A pipe that brings these commands and keeps the answers; polling always finds something."""

    def __init__(self, *commands: str) -> None:
        self.commands = list(commands)
        self.answers: list[Watched] = []

    def poll(self, seconds: float | None) -> bool:
        return True

    def recv(self) -> tuple[int, str]:
        if not self.commands:
            raise EOFError
        return len(self.answers) + 1, self.commands.pop(0)

    def send(self, answer: tuple[int, Watched]) -> None:
        self.answers.append(answer[1])


def test_who_used_a_gpu_before_a_rest_is_not_told_after_it(driver: Callable[..., None]) -> None:
    seen = iter([[(7, 1e9)], [(7, 3e9), (8, None)], [(9, 2e9)]])
    driver(
        nvml(
            nvmlDeviceGetComputeRunningProcesses=lambda gpu: [
                types.SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in next(seen)
            ]
        )
    )
    pipe = Commands("mark", "rest", "mark")
    worker.serve(pipe, os.getpid(), 60.0, (0,))  # type: ignore[arg-type]
    assert [answer.users for answer in pipe.answers] == [
        (GpuUser(0, 7, "", 1.0),),
        (GpuUser(0, 7, "", 3.0), GpuUser(0, 8, "", None)),
        (GpuUser(0, 9, "", 2.0),),
    ]
    assert [len(answer.samples) for answer in pipe.answers] == [1, 1, 1]


@pytest.mark.gpu
def test_gpu_columns_of_a_busy_gpu() -> None:
    import torch

    sampler = ProcessTreeSampler(os.getpid(), interval_s=0.05, gpu_indices=(0,))
    sampler.start()
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    start = sampler.mark()
    while time.perf_counter() - start < 2.0:
        for _ in range(20):
            matrix @ matrix
        torch.cuda.synchronize()
    end = sampler.mark()
    sampler.stop()
    window = sampler.window(start, end)
    assert {sample.gpu_index for sample in window.samples} == {0}
    assert window.summary.peak_memory_gb is not None
    assert window.summary.peak_memory_gb > 0.1
    assert window.summary.gpu_util_pct is not None
    assert window.summary.gpu_util_pct > 50
    assert window.summary.energy_j is not None
    assert 100 < window.summary.energy_j < 3000
    assert all(sample.power_w and sample.sm_clock_mhz and sample.memory_clock_mhz for sample in window.samples)
    assert all(sample.throttle_reasons is not None for sample in window.samples)
