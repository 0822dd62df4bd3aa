"""What happens around a cell: strangers on its GPU, a clock that is set, a launcher's worker that is killed."""

import csv
import json
import os
import re
import signal
from collections.abc import Sequence
from datetime import datetime

import pytest

from tests.conftest import ROOT
from tests.faults.conftest import NOOP, Sweep, alive, wait_for

NVML = '''
"""One GPU with processes on it, as the driver's library tells."""

import pathlib
import types

import psutil

CASE = {case!r}
REASONS = {reasons!r}


class NVMLError(Exception):
    pass


def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return "Simulated GPU"
def nvmlSystemGetDriverVersion(): return "1.0"


def engines():
    """Process ids; asked by the sweep, or by the sampler that it has started."""
    me = psutil.Process()
    sweep = me.parent() if "profiling.telemetry.worker" in me.cmdline() else me
    return [one.pid for one in sweep.children() if "sweep.engines.process.child" in one.cmdline()]


def nvmlDeviceGetMemoryInfo(handle):
    taken = engines() or CASE == "memory of nobody"
    return types.SimpleNamespace(used=5e9 if taken else 3e8)


def unsupported(*_):
    raise NVMLError("not supported")


NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
nvmlClocksEventReasonSwPowerCap = 0x4
nvmlClocksEventReasonHwThermalSlowdown = 0x40
nvmlDeviceGetUtilizationRates = nvmlDeviceGetPowerUsage = nvmlDeviceGetTotalEnergyConsumption = unsupported
nvmlDeviceGetClockInfo = unsupported
nvmlDeviceGetCurrentClocksEventReasons = lambda handle: REASONS.pop(0) if len(REASONS) > 1 else REASONS[0]


def nvmlSystemGetProcessName(pid):
    return "/usr/bin/python" if pid == 4242 else unsupported()


def nvmlDeviceGetComputeRunningProcesses(handle):
    own = engines()
    pids = {{
        "alone": own,
        "there before, ids of our namespace": [4242, *own],
        "came later, ids of our namespace": [4242, *own] if own else [],
        "there before, ids of another namespace": [4242, *(90001 for _ in own)],
        "own engine under an id of another namespace": [90001 for _ in own],
        "gone before the measurement": [] if own else [4242],
        "memory of nobody": own,
    }}[CASE]
    used = {{4242: 3_100_000_000}}
    return [types.SimpleNamespace(pid=pid, usedGpuMemory=used.get(pid)) for pid in pids]
'''

STRANGER = ("4242", "python", "GPU 0", "3.1 GB")
CASES: dict[str, tuple[str, ...]] = {
    "alone": (),
    "there before, ids of our namespace": STRANGER,
    "came later, ids of our namespace": STRANGER,
    "there before, ids of another namespace": STRANGER,
    "own engine under an id of another namespace": (),
    "gone before the measurement": (),
    "memory of nobody": ("GPU 0", "5.0 GB"),
}
"""Facts of the doubt: process, name, GPU and memory; () where there is none."""


def simulate_gpu(sweep: Sweep, case: str = "alone", reasons: Sequence[int] = (0,)) -> None:
    """Put a driver's library with one GPU in front of the real one, for the sweep and for its sampler."""
    place = sweep.base / "nvml"
    place.mkdir()
    (place / "pynvml.py").write_text(NVML.format(case=case, reasons=list(reasons)))
    path = [str(place), str(ROOT), os.environ.get("PYTHONPATH", "")]
    sweep.environment |= {"CUDA_VISIBLE_DEVICES": "0", "PYTHONPATH": os.pathsep.join(path)}


def telemetry(sweep: Sweep, label: str) -> list[dict[str, str]]:
    """telemetry.csv of a cell."""
    with (sweep.cell_path(label) / "telemetry.csv").open() as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("case", CASES)
def test_foreign_process_on_the_gpu_makes_the_row_invalid(sweep: Sweep, case: str) -> None:
    simulate_gpu(sweep, case)
    done = sweep.run("-m", *NOOP, "engine.device=cuda", "batch=1")
    assert done.code == 0, done.out + done.err
    row = sweep.rows()["baseline b1"]
    assert (row["status"], row["valid"]) == ("PASS", str(not CASES[case]))
    assert sweep.doubts("baseline b1") == ["disturbed"] * bool(CASES[case])
    assert all(fact in row["invalid_reason"] for fact in CASES[case])
    assert bool(row["invalid_reason"]) == bool(CASES[case])


SLOW = """
def generate(self, requests, folder, before=NoopEngine.generate):
    import time; time.sleep({seconds})
    return before(self, requests, folder)

NoopEngine.generate = generate
"""
ONE_BATCH = ("workload.num_prompts=1", "workload.repeats=1")


def test_gpu_throttled_by_heat_makes_the_row_invalid(sweep: Sweep) -> None:
    """Hot before the measurement, then at every other sample of it, and always at the power limit."""
    simulate_gpu(sweep, reasons=[0x44, *([0x4, 0x44] * 50)])
    sweep.inject("sweep.engines.noop.engine", SLOW.format(seconds=1.1))
    done = sweep.run("-m", *NOOP, *ONE_BATCH, "engine.device=cuda", "batch=1")
    assert done.code == 0, done.out + done.err
    row = sweep.rows()["baseline b1"]
    assert (row["status"], row["valid"]) == ("PASS", "False")
    assert sweep.doubts("baseline b1") == ["throttled"]
    said = re.search(r"GPU 0\b.*\bhw_thermal_slowdown\b.*?(\d+) of (\d+)", row["invalid_reason"])
    assert said, row["invalid_reason"]
    stored = json.loads((sweep.cell_path("baseline b1") / "result.json").read_bytes())
    (request,) = stored["requests"]
    begin, end = (stored["first_request_s"] + request[name] for name in ("sent_s", "done_s"))
    samples = telemetry(sweep, "baseline b1")
    raw = [one["throttle_reasons"] for one in samples if begin <= float(one["time_s"]) <= end]
    assert set(raw) == {"sw_power_cap", "sw_power_cap+hw_thermal_slowdown"}
    assert [int(said[1]), int(said[2])] == [raw.count("sw_power_cap+hw_thermal_slowdown"), len(raw)]
    assert len(raw) >= 3


def test_gpu_at_its_power_limit_is_recorded_and_valid(sweep: Sweep) -> None:
    simulate_gpu(sweep, reasons=[0x4])
    sweep.inject("sweep.engines.noop.engine", SLOW.format(seconds=0.5))
    done = sweep.run("-m", *NOOP, *ONE_BATCH, "engine.device=cuda", "batch=1")
    assert done.code == 0, done.out + done.err
    row = sweep.rows()["baseline b1"]
    assert (row["valid"], row["invalid_reason"]) == ("True", "")
    samples = telemetry(sweep, "baseline b1")
    assert {sample["throttle_reasons"] for sample in samples} == {"sw_power_cap"}
    assert {(sample["memory_clock_mhz"], sample["energy_j"]) for sample in samples} == {("", "")}
    stored = json.loads((sweep.cell_path("baseline b1") / "result.json").read_bytes())
    assert stored["telemetry"]["power_capped_pct"] == 100.0


def test_what_was_measured_before_the_sweep_was_killed_is_kept_and_shown(sweep: Sweep) -> None:
    """SIGKILL cannot be caught: a cell of hours must not be lost to it."""
    sweep.inject("sweep.engines.noop.engine", SLOW.format(seconds=0.2))
    arguments = "-m", *NOOP, "workload.num_prompts=40", "workload.repeats=1"
    process = sweep.start(*arguments)
    (records,) = sweep.wait_until(process, lambda: list(sweep.folder.glob("*/records.jsonl")))
    sweep.wait_until(process, lambda: records.read_text().count("\n") > 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    report = sweep.run(str(sweep.folder), "--no-plots", module="sweep.report")
    assert report.code == 1, report.out + report.err
    row = sweep.rows()["baseline b1"]
    assert (row["status"], row["reason_code"]) == ("ERROR", "cut_off")
    assert float(row["latency_mean_s"]) > 0
    assert int(row["prompts"]) >= 3
    sweep.faults.clear()
    assert sweep.run(*arguments).code == 0
    assert sweep.statuses()["baseline b1"][0] == "PASS"
    assert not list(sweep.folder.glob("*/records.jsonl"))


KILL_SAMPLER = """
def generate(self, requests, folder, before=NoopEngine.generate):
    import os, psutil, time
    if len(requests) == 1 and not FLAG.exists():
        time.sleep(0.3)
        (sampler,) = [p for p in psutil.Process(os.getppid()).children() if "profiling.telemetry.worker" in p.cmdline()]
        sampler.kill()
        FLAG.touch()
    return before(self, requests, folder)

NoopEngine.generate = generate
"""


def test_killed_sampler_costs_one_cell_its_telemetry_and_nothing_else(sweep: Sweep) -> None:
    sweep.inject("sweep.engines.noop.engine", KILL_SAMPLER)
    done = sweep.run("-m", *NOOP, *ONE_BATCH, "engine.warmup=0", "batch=1,2")
    assert done.code == 0, done.out + done.err
    assert set(sweep.statuses().values()) == {("PASS", "")}
    assert len(sweep.engine_pids()) == 1
    hit, next_one = sweep.rows()["baseline b1"], sweep.rows()["baseline b2"]
    assert [hit["valid"], hit["peak_memory_gb"], hit["cpu_pct"]] == ["True", "", ""]
    assert sweep.notes("baseline b1") == ["no_telemetry"]
    assert "SIGKILL" in hit["note"]
    assert telemetry(sweep, "baseline b1") == []
    assert float(hit["latency_mean_s"]) > 0
    assert float(next_one["peak_memory_gb"]) > 0
    assert next_one["note"] == ""


def test_one_sampler_an_engine_and_none_is_left(sweep: Sweep) -> None:
    started = sweep.base / "samplers"
    log = f"import os, sys\nwith open({str(started)!r}, 'a') as handle:\n    print(os.getpid(), file=handle)\n"
    sweep.inject("profiling.telemetry.processes", log)  # what only the sampler imports
    done = sweep.run("-m", *NOOP, "batch=1,2", "engine.threads_per_rank=1,2")
    assert done.code == 0, done.out + done.err
    pids = [int(line) for line in started.read_text().split()]
    assert len(pids) == len(sweep.engine_pids()) == 2
    assert not [pid for pid in pids if alive(pid)]


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
        "sweep.engines.noop.engine",
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
    assert all(0 <= float(sample["cpu_pct"]) <= 12800 for sample in telemetry(sweep, "baseline b1"))
    manifest = sweep.manifest()
    span = datetime.fromisoformat(manifest["end"]) - datetime.fromisoformat(manifest["start"])
    assert 0 <= span.total_seconds() < 60
    assert abs(manifest["duration_s"] - span.total_seconds()) <= 1


def test_killed_worker_of_a_launcher_ends_in_a_true_report(sweep: Sweep) -> None:
    sweep.inject(
        "sweep.engines.noop.engine",
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
    assert "TerminatedWorkerError: " in done.err
    assert sweep.statuses() == {
        "baseline b1 threads_per_rank=1": ("PASS", ""),
        "baseline b1 threads_per_rank=2": ("ERROR", "cut_off"),
    }
    assert "loading" in sweep.reason("baseline b1 threads_per_rank=2")
    wait_for(lambda: not [pid for pid in sweep.engine_pids() if alive(pid)])
