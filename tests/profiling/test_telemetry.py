"""The sampler on a real, busy process tree, and summaries of recorded samples."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from profiling.telemetry import ProcessTreeSampler, TelemetrySample, summarise

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
    process.communicate("\n\n", timeout=30)


def proceed(process: "subprocess.Popen[str]") -> None:
    """Let the tree go on to its next part."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_memory_and_processor_time_of_the_whole_tree(tree: "subprocess.Popen[str]") -> None:
    sampler = ProcessTreeSampler(tree.pid, interval_s=0.05, gpu_indices=())
    sampler.start()
    start = sampler.mark()
    time.sleep(0.6)
    end = sampler.mark()
    sampler.stop()
    window = sampler.window(start, end)
    assert 5 <= len(window.samples) <= 14
    assert all(start <= sample.time_s <= end for sample in window.samples)
    assert window.summary.peak_memory_gb is not None
    assert 0.05 < window.summary.peak_memory_gb < 0.5
    assert window.summary.cpu_pct is not None
    assert 15 < window.summary.cpu_pct < 130  # one busy child; it may have to share its core
    assert (window.summary.gpu_util_pct, window.summary.energy_j) == (None, None)
    assert all(sample.gpu_index is None for sample in window.samples)


def test_processes_that_vanish_while_sampling(tree: "subprocess.Popen[str]") -> None:
    sampler = ProcessTreeSampler(tree.pid, interval_s=0.005, gpu_indices=())
    sampler.start()
    start = time.perf_counter()
    proceed(tree)
    time.sleep(0.5)
    proceed(tree)
    tree.wait(timeout=30)
    time.sleep(0.05)
    gone = time.perf_counter()
    time.sleep(0.05)
    sampler.stop()
    assert len(sampler.window(start, gone).samples) > 10
    assert sampler.window(gone, time.perf_counter()).samples == ()


def test_the_clock_is_shared_with_other_processes() -> None:
    sampler = ProcessTreeSampler(os.getpid(), gpu_indices=())
    before = time.perf_counter()
    sampler.start()
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


def gpu_sample(time_s: float, index: int, memory_gb: float, util_pct: float, energy_j: float) -> TelemetrySample:
    """A row as a machine with two GPUs leaves it."""
    return TelemetrySample(time_s, 4.0, 100.0 * time_s, index, memory_gb, util_pct, 300.0, energy_j)


RECORDED = (
    gpu_sample(0.0, 0, 10.0, 0.0, 1000.0),
    gpu_sample(0.0, 1, 10.0, 0.0, 5000.0),
    gpu_sample(1.0, 0, 20.0, 90.0, 1300.0),
    gpu_sample(1.0, 1, 21.0, 80.0, 5200.0),
    gpu_sample(2.0, 0, 20.0, 100.0, 1700.0),
    gpu_sample(2.0, 1, 60.0, 90.0, 5400.0),
)


def test_gpu_window_between_samples() -> None:
    summary = summarise(RECORDED, 0.5, 1.5)
    assert summary.peak_memory_gb == 21.0
    assert summary.gpu_util_pct == 85.0
    assert summary.energy_j == pytest.approx(150 + 200 + 100 + 100)
    assert summary.cpu_pct == pytest.approx(0.5 * 100 + 0.5 * 200)


def test_window_without_a_sample_takes_its_neighbours() -> None:
    summary = summarise(RECORDED, 1.25, 1.75)
    assert summary.energy_j == pytest.approx(200 + 100)
    assert summary.cpu_pct == pytest.approx(200)
    assert summary.peak_memory_gb is not None


def test_no_samples_is_unknown_not_zero() -> None:
    summary = summarise((), 0.0, 1.0)
    assert (summary.peak_memory_gb, summary.cpu_pct, summary.energy_j) == (None, None, None)


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
    assert all(sample.power_w and sample.sm_clock_mhz for sample in window.samples)
