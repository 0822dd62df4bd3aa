"""What happens around a cell: strangers on its GPU, a clock that is set, a launcher's worker that is killed."""

import csv
from datetime import datetime

import pytest

from tests.faults.conftest import NOOP, Sweep, alive, wait_for

NVML = '''
"""One GPU with processes on it, as the driver's library tells."""

import pathlib
import types

import psutil

CASE = {case!r}


class NVMLError(Exception):
    pass


def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return "Simulated GPU"
def nvmlSystemGetDriverVersion(): return "1.0"


def nvmlDeviceGetMemoryInfo(handle):
    taken = psutil.Process().children() or CASE == "memory of nobody"
    return types.SimpleNamespace(used=5e9 if taken else 3e8)


def unsupported(*_):
    raise NVMLError("not supported")


NVML_CLOCK_SM = 1
nvmlDeviceGetUtilizationRates = nvmlDeviceGetPowerUsage = nvmlDeviceGetTotalEnergyConsumption = unsupported
nvmlDeviceGetClockInfo = unsupported


def nvmlSystemGetProcessName(pid):
    return "/usr/bin/python" if pid == 4242 else unsupported()


def nvmlDeviceGetComputeRunningProcesses(handle):
    engines = [p.pid for p in psutil.Process().children()]
    pids = {{
        "alone": engines,
        "there before, ids of our namespace": [4242, *engines],
        "came later, ids of our namespace": [4242, *engines] if engines else [],
        "there before, ids of another namespace": [4242, *(90001 for _ in engines)],
        "own engine under an id of another namespace": [90001 for _ in engines],
        "gone before the measurement": [] if engines else [4242],
        "memory of nobody": engines,
    }}[CASE]
    used = {{4242: 3_100_000_000}}
    return [types.SimpleNamespace(pid=pid, usedGpuMemory=used.get(pid)) for pid in pids]
'''

STRANGER = "process 4242 (python) also used GPU 0 (3.1 GB) while measuring"
CASES = {
    "alone": "",
    "there before, ids of our namespace": STRANGER,
    "came later, ids of our namespace": STRANGER,
    "there before, ids of another namespace": STRANGER,
    "own engine under an id of another namespace": "",
    "gone before the measurement": "",
    "memory of nobody": "GPU 0 already held 5.0 GB when the engine started",
}


@pytest.mark.parametrize("case", CASES)
def test_foreign_process_on_the_gpu_makes_the_row_invalid(sweep: Sweep, case: str) -> None:
    place = sweep.base / "nvml"
    place.mkdir()
    (place / "pynvml.py").write_text(NVML.format(case=case))
    sweep.environment["CUDA_VISIBLE_DEVICES"] = "0"
    sweep.inject("sweep.cli", f"import sys\nsys.path.insert(0, {str(place)!r})")
    done = sweep.run("-m", *NOOP, "engine.device=cuda", "batch=1")
    assert done.code == 0, done.out + done.err
    row = sweep.rows()["baseline b1"]
    assert (row["status"], row["valid"], row["invalid_reason"]) == ("PASS", str(not CASES[case]), CASES[case])


CLOCK = """
import datetime as _module, time

_time, _datetime = time.time, _module.datetime

def jumped():
    return {jump} if FLAG.exists() else 0

class Jumping(_datetime):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + _module.timedelta(seconds=jumped())

time.time = lambda: _time() + jumped()
_module.datetime = Jumping
"""


@pytest.mark.parametrize("jump", [-3600, 3600], ids=["back", "forth"])
def test_wall_clock_set_while_running_changes_no_duration(sweep: Sweep, jump: int) -> None:
    sweep.inject(
        "sweep.engines.noop",
        "def load(self):\n    import time; time.sleep(0.5); FLAG.touch(); time.sleep(0.5)\n\nNoopEngine.load = load\n",
    )
    sweep.inject("sweep.cli", CLOCK.format(jump=jump))
    done = sweep.run("-m", *NOOP, "batch=1,2")
    assert done.code == 0, done.out + done.err
    took = [float(line.split(" after ")[1].split(" s")[0]) for line in done.out.splitlines() if ": done after" in line]
    assert len(took) == 2
    assert all(0 <= seconds < 60 for seconds in took), done.out
    row = sweep.rows()["baseline b1"]
    assert 1 <= float(row["load_s"]) < 60
    assert 0 < float(row["latency_mean_s"]) < 60
    with (sweep.cell_path("baseline b1") / "telemetry.csv").open() as handle:
        assert all(0 <= float(sample["cpu_pct"]) <= 12800 for sample in csv.DictReader(handle))
    manifest = sweep.manifest()
    span = datetime.fromisoformat(manifest["end"]) - datetime.fromisoformat(manifest["start"])
    assert 0 <= span.total_seconds() < 60
    assert abs(manifest["duration_s"] - span.total_seconds()) <= 1


def test_killed_worker_of_a_launcher_ends_in_a_true_report(sweep: Sweep) -> None:
    sweep.inject(
        "sweep.engines.noop",
        f"""
def load(self):
    import os, signal, time
    if self.spec.threads_per_rank == 2:
        while not list(pathlib.Path({str(sweep.folder)!r}).glob("*/result.json")):
            time.sleep(0.02)
        os.kill(os.getppid(), signal.SIGKILL)

NoopEngine.load = load
""",
    )
    arguments = ("batch=1", "engine.threads_per_rank=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = sweep.run("-m", *NOOP, *arguments)
    assert done.code == 1, done.out + done.err
    assert "the launcher failed: TerminatedWorkerError: " in done.err
    assert sweep.statuses() == {
        "baseline b1 threads_per_rank=1": ("PASS", ""),
        "baseline b1 threads_per_rank=2": ("ERROR", "no result: the sweep ended while it was loading"),
    }
    wait_for(lambda: not [pid for pid in sweep.engine_pids() if alive(pid)], 5)
