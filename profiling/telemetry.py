"""ProcessTreeSampler: memory and processor use of a process and its children, and of the GPUs where NVML works.

A thread takes a sample at a fixed interval; summaries of any window are pure functions over the samples.
A machine without NVIDIA's driver simply has no GPU columns. Says nothing of single phases: utilisation
over less than a few samples has no meaning. Knows nothing of engines or cells.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from types import ModuleType

GB = 1e9


@dataclass(frozen=True)
class TelemetrySample:
    """One moment, and one GPU where there are any (so one row a GPU, with the same process columns)."""

    time_s: float  # time.perf_counter; the same clock in all processes of a Linux machine
    rss_gb: float  # resident memory summed over the tree; pages that processes share count once each
    cpu_pct: float  # processor time of the tree since the previous sample; 100 = one core busy
    gpu_index: int | None = None  # NVML's index: all devices, whatever CUDA_VISIBLE_DEVICES says
    gpu_memory_gb: float | None = None  # used on the device, by whomever
    gpu_util_pct: float | None = None  # share of the driver's last sampling period with a kernel running
    power_w: float | None = None
    energy_j: float | None = None  # counter since the driver was loaded
    sm_clock_mhz: float | None = None


@dataclass(frozen=True)
class TelemetrySummary:
    """A window in one row. None: not known."""

    peak_memory_gb: float | None  # fullest GPU; without GPUs the process tree
    cpu_pct: float | None  # mean; 100 = one core busy
    gpu_util_pct: float | None  # mean over samples and GPUs
    energy_j: float | None  # used by all sampled GPUs together


@dataclass(frozen=True)
class TelemetryWindow:
    """What was seen between two times, raw and in one row."""

    samples: tuple[TelemetrySample, ...]
    summary: TelemetrySummary


@dataclass(frozen=True)
class GpuReading:
    """What NVML says of one GPU now; None where the device does not support the question."""

    index: int
    memory_gb: float | None
    util_pct: float | None
    power_w: float | None
    energy_j: float | None
    sm_clock_mhz: float | None


@dataclass(frozen=True)
class GpuUser:
    """A process with a compute context on a GPU. Inside a container the driver may give another
    namespace's `pid`, or list nobody."""

    gpu_index: int
    pid: int
    name: str  # "" when the driver does not tell
    memory_gb: float | None


class ProcessTreeSampler:
    """Samples the tree of process `pid` every `interval_s` seconds between `start` and `stop`.

    `gpu_indices` names the GPUs to read, by NVML index: None for all, () for none (an engine on the CPU).
    """

    def __init__(self, pid: int, interval_s: float = 0.2, gpu_indices: Sequence[int] | None = None) -> None:
        self.pid = pid
        self.interval_s = interval_s
        self._gpus = GpuReader(gpu_indices)
        self._processes = ProcessTreeReader(pid)
        self._samples: list[TelemetrySample] = []
        self._users: dict[tuple[int, int], GpuUser] = {}
        self._lock = threading.Lock()  # `mark` samples on the caller's thread
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Sample once, then regularly."""
        self._gpus.open()
        self._sample()
        self._thread.start()

    def mark(self) -> float:
        """Sample now and return the time, so that a window that begins or ends here has no partial interval."""
        self._sample()
        return time.perf_counter()

    def window(self, start_s: float, end_s: float) -> TelemetryWindow:
        """What happened between two times of perf_counter; also after `stop`."""
        with self._lock:
            samples = tuple(self._samples)
        inside = tuple(sample for sample in samples if start_s <= sample.time_s <= end_s)
        return TelemetryWindow(inside, summarise(samples, start_s, end_s))

    def gpu_users(self) -> tuple[GpuUser, ...]:
        """Every process seen on the sampled GPUs, each with the most memory that it held."""
        with self._lock:
            return tuple(self._users.values())

    def tree_pids(self) -> frozenset[int]:
        """Every process id that the tree has had, as this process sees them."""
        with self._lock:
            return frozenset(self._processes.pids)

    def stop(self) -> None:
        """Sample a last time and stop; safe to call twice, or without `start`."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
            self._sample()
        self._gpus.close()

    def _run(self) -> None:
        while not self._stopping.wait(self.interval_s):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            processes = self._processes.read()
            if processes is None:
                return
            rss_gb, cpu_pct, now = processes
            for user in self._gpus.users():
                before = self._users.get((user.gpu_index, user.pid))
                if before is None or (user.memory_gb or 0) >= (before.memory_gb or 0):
                    self._users[user.gpu_index, user.pid] = user
            self._samples += [
                TelemetrySample(
                    now, rss_gb, cpu_pct, gpu.index, gpu.memory_gb, gpu.util_pct, gpu.power_w, gpu.energy_j,
                    gpu.sm_clock_mhz,
                )
                for gpu in self._gpus.read()
            ] or [TelemetrySample(now, rss_gb, cpu_pct)]  # fmt: skip


class ProcessTreeReader:
    """Memory and processor time of a process tree and its group; processes that vanish meanwhile are left out."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.pids: set[int] = set()  # all that were ever read
        self._cpu_s: dict[tuple[int, float], float] = {}  # (pid, creation time), since numbers are reused
        self._read_at: float | None = None

    def read(self) -> tuple[float, float, float] | None:
        """(resident GB, per cent of a core since the last reading, time); None when the tree is gone.

        The first reading's per cent is the mean since the process began.
        """
        try:
            root = psutil.Process(self._pid)
            tree = list(
                {process.pid: process for process in (root, *root.children(recursive=True), *self._group())}.values()
            )
        except psutil.Error:
            return None
        rss_bytes, spent_s = 0, 0.0
        cpu_s: dict[tuple[int, float], float] = {}
        self.pids.update(process.pid for process in tree)
        for process in tree:
            try:
                with process.oneshot():
                    memory, times = process.memory_info().rss, process.cpu_times()
                    key = (process.pid, process.create_time())
            except psutil.Error:
                continue
            rss_bytes += memory
            cpu_s[key] = times.user + times.system
            spent_s += cpu_s[key] - self._cpu_s.get(key, 0.0)
        now = time.perf_counter()
        # The start of a process is told by the wall clock, which may have been set since: then too short a time.
        elapsed_s = time.time() - root.create_time() if self._read_at is None else now - self._read_at
        elapsed_s = max(elapsed_s, spent_s / (psutil.cpu_count() or 1))
        self._cpu_s, self._read_at = cpu_s, now
        return (rss_bytes / GB, 100.0 * spent_s / max(elapsed_s, 1e-3), now) if cpu_s else None

    def _group(self) -> list[psutil.Process]:
        """Processes of the group that the root leads: those forked for it by another process are no children of it."""
        found = []
        for pid in psutil.pids():
            try:
                if os.getpgid(pid) == self._pid:
                    found.append(psutil.Process(pid))
            except (OSError, psutil.Error):
                continue
        return found


class GpuReader:
    """NVML readings of the chosen GPUs; none where NVML is missing or does not work."""

    def __init__(self, indices: Sequence[int] | None) -> None:
        self._indices = indices
        self._nvml: ModuleType | None = None
        self._handles: dict[int, object] = {}

    def open(self) -> None:
        """Connect to the driver, if there is one."""
        if self._indices is not None and not self._indices:
            return
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # no package, no driver, no device, a broken driver: all mean no GPU columns
            return
        self._nvml = pynvml
        indices = range(pynvml.nvmlDeviceGetCount()) if self._indices is None else self._indices
        self._handles = {index: pynvml.nvmlDeviceGetHandleByIndex(index) for index in indices}

    def read(self) -> list[GpuReading]:
        """One reading a GPU."""
        return [self._read_one(self._nvml, index, gpu) for index, gpu in self._handles.items() if self._nvml]

    def users(self) -> list[GpuUser]:
        """Processes with a compute context on the GPUs, as far as the driver tells."""
        if self._nvml is None:
            return []
        return [user for index, gpu in self._handles.items() for user in self._users(self._nvml, index, gpu)]

    def close(self) -> None:
        """Disconnect; safe to call twice."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
        self._nvml, self._handles = None, {}

    @staticmethod
    def _users(nvml: "ModuleType", index: int, gpu: object) -> list[GpuUser]:
        try:
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
        except nvml.NVMLError:
            return []
        found = []
        for process in processes:
            try:
                name = Path(str(nvml.nvmlSystemGetProcessName(process.pid))).name
            except nvml.NVMLError:  # not ours to know, or gone
                name = ""
            used = process.usedGpuMemory
            found.append(GpuUser(index, int(process.pid), name, used / GB if used else None))
        return found

    def _read_one(self, nvml: "ModuleType", index: int, gpu: object) -> GpuReading:
        def ask(question: Callable[[], float]) -> float | None:
            try:
                return float(question())
            except nvml.NVMLError:  # "not supported" on some devices and in some containers
                return None

        return GpuReading(
            index=index,
            memory_gb=ask(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used / GB),
            util_pct=ask(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
            power_w=ask(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3),
            energy_j=ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3),
            sm_clock_mhz=ask(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
        )


def summarise(samples: Sequence[TelemetrySample], start_s: float, end_s: float) -> TelemetrySummary:
    """Reduce the samples, in order of time, to one row for the window; those just outside serve its two ends."""
    inside = [sample for sample in samples if start_s <= sample.time_s <= end_s]
    levels = inside or [sample for sample in samples if sample.time_s > end_s][:1] or list(samples[-1:])
    gpu_memory = [sample.gpu_memory_gb for sample in levels if sample.gpu_memory_gb is not None]
    utilisation = [sample.gpu_util_pct for sample in levels if sample.gpu_util_pct is not None]
    return TelemetrySummary(
        peak_memory_gb=max(gpu_memory or [sample.rss_gb for sample in levels], default=None),
        cpu_pct=mean_cpu_pct(samples, start_s, end_s),
        gpu_util_pct=sum(utilisation) / len(utilisation) if utilisation else None,
        energy_j=energy_used_j(samples, start_s, end_s),
    )


def mean_cpu_pct(samples: Sequence[TelemetrySample], start_s: float, end_s: float) -> float | None:
    """Mean over the window. A sample speaks of the time since the one before, of which only the overlap counts."""
    by_time = {sample.time_s: sample.cpu_pct for sample in samples}  # one a moment, not one a GPU
    covered_s, weighted = 0.0, 0.0
    for earlier, later in itertools.pairwise(sorted(by_time)):
        overlap_s = max(0.0, min(later, end_s) - max(earlier, start_s))
        covered_s += overlap_s
        weighted += overlap_s * by_time[later]
    return weighted / covered_s if covered_s else None


def energy_used_j(samples: Sequence[TelemetrySample], start_s: float, end_s: float) -> float | None:
    """Difference of each GPU's energy counter between the window's ends, summed; None without two readings of any.

    The counter is interpolated linearly between samples; beyond the first and the last it is taken as constant.
    """
    readings: dict[int, list[tuple[float, float]]] = {}
    for sample in samples:
        if sample.gpu_index is not None and sample.energy_j is not None:
            readings.setdefault(sample.gpu_index, []).append((sample.time_s, sample.energy_j))
    used = [counter_at(end_s, line) - counter_at(start_s, line) for line in readings.values() if len(line) >= 2]
    return sum(used) if used else None


def counter_at(time_s: float, readings: Sequence[tuple[float, float]]) -> float:
    """Linear interpolation in (time, value) pairs that are in order of time."""
    if time_s <= readings[0][0]:
        return readings[0][1]
    for (before_s, before), (after_s, after) in itertools.pairwise(readings):
        if time_s <= after_s:
            return before + (after - before) * (time_s - before_s) / (after_s - before_s)
    return readings[-1][1]
