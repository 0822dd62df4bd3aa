"""What this machine lets a profiler see: drivers, permissions, disk space. Each check is a Finding with its remedy.

Reads kernel files and queries drivers; changes nothing. Knows nothing of Nsight Systems.
"""

import ctypes
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profiling.telemetry.sampler import ProcessTreeSampler
from profiling.telemetry.samples import GpuReading

OK, WARNING, MISSING = "ok", "warning", "missing"

NO_PACKAGE, NO_DRIVER, NO_GPU = "no_package", "no_driver", "no_gpu"
NOT_WRITABLE, LITTLE_ROOM = "not_writable", "little_room"
"""Codes of findings."""

CAP_SYS_ADMIN, CAP_PERFMON = 21, 38
TRACE_ROOM_GB = 5.0  # a few minutes of a busy GPU; nsys writes a trace twice before it is done

NOT_FOR_TRACING = "not needed to trace phases and kernels"

ASKED_OF_A_GPU = {
    "energy_j": "energy counter",
    "power_w": "power",
    "sm_clock_mhz": "SM clock",
    "memory_clock_mhz": "memory clock",
    "throttle_reasons": "throttle reasons",
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table. `status`: OK, WARNING (works in part) or MISSING."""

    name: str
    status: str
    found: str
    remedy: str = ""  # what to do, or what works without it
    code: str = ""  # which case it is, if name and status leave that open


def machine_findings() -> list[Finding]:
    """All checks of this module, in the order in which a reader needs them."""
    return [
        *nvidia_findings(),
        cuda_finding(os.environ.get("CUDA_VISIBLE_DEVICES")),
        amd_finding(Path("/dev/kfd").exists()),
        sampler_finding(),
        cpu_samples_finding(read_number(Path("/proc/sys/kernel/perf_event_paranoid")), capabilities()),
        gpu_counters_finding(read_text(Path("/proc/driver/nvidia/params")), capabilities()),
        ptrace_finding(read_number(Path("/proc/sys/kernel/yama/ptrace_scope"))),
        disk_finding(os.environ.get("TMPDIR")),
    ]


def nvidia_findings() -> list[Finding]:
    """The driver, and which of the values that telemetry reads its GPUs report."""
    try:
        from profiling.telemetry.nvidia import NvidiaReader

        reader = NvidiaReader(None)
    except Exception as error:
        without = "sweeps run on the CPU; to use GPUs and fill their memory, power and energy columns, install"
        if isinstance(error, ImportError):
            found = "the NVIDIA driver cannot be queried: the package nvidia-ml-py is not installed"
            return [Finding("driver", MISSING, found, f"{without} nvidia-ml-py", NO_PACKAGE)]
        remedy = f"{without} the NVIDIA driver (in a container, make the GPUs visible)"
        return [Finding("driver", MISSING, f"the NVIDIA driver does not respond (NVML: {error})", remedy, NO_DRIVER)]
    try:
        version, names = reader.driver()
        readings = reader.read()
    finally:
        reader.close()
    return [driver_finding(version, names), answers_finding(readings)]


def driver_finding(version: str, names: Sequence[str]) -> Finding:
    """The driver's version and its GPUs."""
    if not names:
        remedy = "make the GPUs visible to this machine or container"
        return Finding("driver", MISSING, f"{version}, but no GPU", remedy, NO_GPU)
    counted = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    return Finding("driver", OK, f"{version}, {', '.join(counted)}")


def answers_finding(readings: Sequence[GpuReading]) -> Finding:
    """Which columns telemetry.csv will have, and which stay empty."""
    lacking = [
        f"GPU {reading.index} does not report {', '.join(absent)}"
        for reading in readings
        if (absent := [label for name, label in ASKED_OF_A_GPU.items() if getattr(reading, name) is None])
    ]
    if lacking:
        remedy = "those columns stay empty; without throttle reasons, throttling goes unnoticed (MIG slices and some"
        return Finding("gpu telemetry", WARNING, "; ".join(lacking), f"{remedy} virtual GPUs never report them)")
    found = ", ".join(ASKED_OF_A_GPU.values()) if readings else "no GPU to query"
    return Finding("gpu telemetry", OK if readings else MISSING, found)


def cuda_finding(visible: str | None) -> Finding:
    """Whether CUDA itself works in a process of ours, and on how many GPUs."""
    name = "cuda"
    hidden = f" (CUDA_VISIBLE_DEVICES={visible})" if visible is not None else ""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        remedy = "it comes with the NVIDIA driver; sweeps on the CPU do not need it"
        return Finding(name, MISSING, "libcuda.so.1 was not found", remedy)
    count = ctypes.c_int(0)
    if code := library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        remedy = "100, 101: no GPU is visible, check CUDA_VISIBLE_DEVICES; 802, 803: driver and services do not match"
        return Finding(name, MISSING, f"CUDA fails to start: error {code}{hidden}", remedy)
    if not count.value:
        return Finding(name, MISSING, f"no GPU is visible{hidden}", "unset CUDA_VISIBLE_DEVICES")
    return Finding(name, OK, f"{count.value} GPU{'s' * (count.value > 1)} visible{hidden}")


def amd_finding(has_device: bool) -> Finding:
    """AMD's library, where there is an AMD GPU."""
    if not has_device:
        return Finding("amd", OK, "no AMD GPU (/dev/kfd does not exist)")
    if importlib.util.find_spec("amdsmi") is None:
        remedy = "run pip install amdsmi, in the version that matches your ROCm"
        return Finding("amd", MISSING, "there is an AMD GPU, but amdsmi is not installed", remedy, NO_PACKAGE)
    try:
        from profiling.telemetry.amd import AmdReader

        reader = AmdReader(None)
    except Exception as error:
        remedy = "install amd-smi-lib from ROCm, and join the groups render and video"
        return Finding("amd", MISSING, f"amdsmi does not work: {type(error).__name__}: {error}", remedy, NO_DRIVER)
    try:
        count = len(reader.read())
    finally:
        reader.close()
    return Finding("amd", OK, f"amdsmi reads {count} GPU{'s' * (count != 1)}")


def sampler_finding() -> Finding:
    """Runs the telemetry process for a moment."""
    sampler = ProcessTreeSampler(os.getpid(), gpu_indices=())
    start_s = sampler.mark()
    end_s = sampler.mark()
    sampler.stop()
    if sampler.problem or sampler.window(start_s, end_s).summary.peak_memory_gb is None:
        why = sampler.problem or "the sampler recorded nothing"
        return Finding("telemetry", MISSING, why, "sweeps still run, with empty memory and utilisation columns")
    return Finding("telemetry", OK, "the sampler starts and records")


def cpu_samples_finding(paranoid: int | None, held: int) -> Finding:
    """Whether `nsys profile --sample=process-tree` may sample the CPU; tracing does not need it."""
    name = "cpu samples"
    if paranoid is None:
        remedy = f"use nsys profile --sample=none; {NOT_FOR_TRACING}"
        return Finding(name, MISSING, "this kernel has no perf events", remedy)
    if paranoid <= 2 or held >> CAP_SYS_ADMIN & 1 or held >> CAP_PERFMON & 1:
        return Finding(name, OK, f"allowed (perf_event_paranoid={paranoid})")
    remedy = f"run sudo sysctl kernel.perf_event_paranoid=2; {NOT_FOR_TRACING}"
    return Finding(name, WARNING, f"forbidden by perf_event_paranoid={paranoid}", remedy)


def gpu_counters_finding(params: str | None, held: int) -> Finding:
    """Whether `nsys --gpu-metrics-devices` and Nsight Compute may read GPU counters; tracing does not need them."""
    name = "gpu counters"
    if params is None:
        return Finding(name, MISSING, "no NVIDIA kernel module is visible", NOT_FOR_TRACING)
    restricted = "RmProfilingAdminOnly: 1" in params
    if not restricted or held >> CAP_SYS_ADMIN & 1:
        return Finding(name, OK, "hardware counters are readable")
    remedy = f"run as root, or load the module with NVreg_RestrictProfilingToAdminUsers=0; {NOT_FOR_TRACING}"
    return Finding(name, WARNING, "only administrators may read hardware counters (RmProfilingAdminOnly: 1)", remedy)


def ptrace_finding(scope: int | None) -> Finding:
    """Whether tools may attach to a running process; nsys starts what it traces and does not need it."""
    if scope is None or scope < 2:
        return Finding("ptrace", OK, "not restricted" if not scope else "allowed for child processes (ptrace_scope=1)")
    remedy = "only debuggers and py-spy need it; to allow it, run sudo sysctl kernel.yama.ptrace_scope=1"
    return Finding("ptrace", WARNING, f"forbidden by ptrace_scope={scope}", remedy)


def disk_finding(asked: str | None) -> Finding:
    """Disk space where nsys keeps a trace while it records."""
    folder = tempfile.gettempdir()
    name = "disk"
    if asked and Path(asked).resolve() != Path(folder).resolve():
        remedy = "nsys writes there; set TMPDIR to a writable folder"
        return Finding(name, WARNING, f"TMPDIR={asked} is not writable", remedy, NOT_WRITABLE)
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < TRACE_ROOM_GB:
        remedy = f"set TMPDIR to a folder with at least {TRACE_ROOM_GB:g} GB before recording, or record fewer steps"
        return Finding(name, WARNING, f"{free_gb:.1f} GB free in {folder}", remedy, LITTLE_ROOM)
    return Finding(name, OK, f"{free_gb:.0f} GB free in {folder}")


def read_text(path: Path) -> str | None:
    """Text of a small file, or None when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """A kernel setting, or None when the kernel has no such setting."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def capabilities() -> int:
    """Effective capabilities of this process, as a mask; 0 where the kernel does not report them."""
    status = read_text(Path("/proc/self/status")) or ""
    return next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
