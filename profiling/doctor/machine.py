"""What this machine lets a profiler see: drivers, permissions, room. Each question is a Finding with its remedy.

Reads files of the kernel and asks drivers; changes nothing. Knows nothing of Nsight Systems.
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

CAP_SYS_ADMIN, CAP_PERFMON = 21, 38
TRACE_ROOM_GB = 5.0  # a few minutes of a busy GPU; nsys writes a trace twice before it is done

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
    remedy: str = ""  # what to do, or what goes without


def machine_findings() -> list[Finding]:
    """All of this module, in the order of a reader's questions."""
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
    """The driver, and which of telemetry's questions its GPUs answer."""
    try:
        from profiling.telemetry.nvidia import NvidiaReader

        reader = NvidiaReader(None)
    except Exception as error:
        why = "the package nvidia-ml-py is not installed" if isinstance(error, ImportError) else f"NVML: {error}"
        without = "sweeps run on the CPU; for GPUs and their memory, power and energy columns install"
        need = (
            "nvidia-ml-py"
            if isinstance(error, ImportError)
            else "NVIDIA's driver (in a container: let it see the GPUs)"
        )
        return [Finding("driver", MISSING, f"no NVIDIA driver answers ({why})", f"{without} {need}")]
    try:
        version, names = reader.driver()
        readings = reader.read()
    finally:
        reader.close()
    return [driver_finding(version, names), answers_finding(readings)]


def driver_finding(version: str, names: Sequence[str]) -> Finding:
    """The driver's version and its GPUs."""
    if not names:
        return Finding("driver", MISSING, f"{version}, but no GPU", "let this machine or container see its GPUs")
    counted = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    return Finding("driver", OK, f"{version}, {', '.join(counted)}")


def answers_finding(readings: Sequence[GpuReading]) -> Finding:
    """What telemetry.csv will have, and what stays empty."""
    lacking = [
        f"GPU {reading.index} has no {', no '.join(absent)}"
        for reading in readings
        if (absent := [told for name, told in ASKED_OF_A_GPU.items() if getattr(reading, name) is None])
    ]
    if lacking:
        remedy = "those columns stay empty; without throttle reasons a slowed-down GPU goes unnoticed (MIG slices and"
        return Finding("gpu telemetry", WARNING, "; ".join(lacking), f"{remedy} some virtual GPUs never tell)")
    told = ", ".join(ASKED_OF_A_GPU.values()) if readings else "no GPU to ask"
    return Finding("gpu telemetry", OK if readings else MISSING, told)


def cuda_finding(visible: str | None) -> Finding:
    """Whether CUDA itself works in a process of ours, and on how many GPUs."""
    name = "cuda"
    hidden = f" (CUDA_VISIBLE_DEVICES={visible})" if visible is not None else ""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Finding(name, MISSING, "libcuda.so.1 is not here", "it comes with NVIDIA's driver; the CPU needs none")
    count = ctypes.c_int(0)
    if code := library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        remedy = "100 and 101: no GPU is visible, see CUDA_VISIBLE_DEVICES; 802, 803: driver and its services disagree"
        return Finding(name, MISSING, f"CUDA does not start: error {code}{hidden}", remedy)
    if not count.value:
        return Finding(name, MISSING, f"no GPU is visible{hidden}", "unset CUDA_VISIBLE_DEVICES")
    return Finding(name, OK, f"{count.value} GPU{'s' * (count.value > 1)} visible{hidden}")


def amd_finding(has_device: bool) -> Finding:
    """AMD's library, where there is an AMD GPU."""
    if not has_device:
        return Finding("amd", OK, "no AMD GPU (/dev/kfd is not there)")
    if importlib.util.find_spec("amdsmi") is None:
        return Finding("amd", MISSING, "an AMD GPU, but no amdsmi", "pip install amdsmi, of the version of your ROCm")
    try:
        from profiling.telemetry.amd import AmdReader

        reader = AmdReader(None)
    except Exception as error:
        remedy = "install ROCm's amd-smi-lib, and join the groups render and video"
        return Finding("amd", MISSING, f"amdsmi does not work: {type(error).__name__}: {error}", remedy)
    try:
        count = len(reader.read())
    finally:
        reader.close()
    return Finding("amd", OK, f"amdsmi reads {count} GPU{'s' * (count != 1)}")


def sampler_finding() -> Finding:
    """Telemetry's own process, for a moment."""
    sampler = ProcessTreeSampler(os.getpid(), gpu_indices=())
    start_s = sampler.mark()
    end_s = sampler.mark()
    sampler.stop()
    if sampler.problem or sampler.window(start_s, end_s).summary.peak_memory_gb is None:
        why = sampler.problem or "the sampler saw nothing"
        return Finding("telemetry", MISSING, why, "sweeps run without memory and utilisation columns")
    return Finding("telemetry", OK, "its process starts and samples")


def cpu_samples_finding(paranoid: int | None, held: int) -> Finding:
    """`nsys profile --sample=process-tree`; tracing needs none of it."""
    name = "cpu samples"
    if paranoid is None:
        return Finding(name, MISSING, "this kernel has no perf events", "nsys profile --sample=none; traces need none")
    if paranoid <= 2 or held >> CAP_SYS_ADMIN & 1 or held >> CAP_PERFMON & 1:
        return Finding(name, OK, f"allowed (perf_event_paranoid={paranoid})")
    remedy = "sudo sysctl kernel.perf_event_paranoid=2; tracing of phases and kernels needs none"
    return Finding(name, WARNING, f"forbidden by perf_event_paranoid={paranoid}", remedy)


def gpu_counters_finding(params: str | None, held: int) -> Finding:
    """GPU performance counters: `nsys --gpu-metrics-devices` and Nsight Compute; tracing needs none of them."""
    name = "gpu counters"
    if params is None:
        return Finding(name, MISSING, "no NVIDIA kernel module is visible", "tracing of phases and kernels needs none")
    restricted = "RmProfilingAdminOnly: 1" in params
    if not restricted or held >> CAP_SYS_ADMIN & 1:
        return Finding(name, OK, "hardware counters may be read")
    remedy = "run as root, or load the module with NVreg_RestrictProfilingToAdminUsers=0; plain tracing needs none"
    return Finding(name, WARNING, "hardware counters are for administrators (RmProfilingAdminOnly: 1)", remedy)


def ptrace_finding(scope: int | None) -> Finding:
    """Looking into a process that runs already; nsys starts what it traces and needs none of it."""
    if scope is None or scope < 2:
        return Finding("ptrace", OK, "not restricted" if not scope else "of own children (ptrace_scope=1)")
    remedy = "only debuggers and py-spy need it: sudo sysctl kernel.yama.ptrace_scope=1"
    return Finding("ptrace", WARNING, f"forbidden by ptrace_scope={scope}", remedy)


def disk_finding(asked: str | None) -> Finding:
    """Room where nsys keeps a trace while it records."""
    folder = tempfile.gettempdir()
    name = "disk"
    if asked and Path(asked).resolve() != Path(folder).resolve():
        return Finding(name, WARNING, f"TMPDIR={asked} cannot be written to", "nsys needs it; name a folder that can")
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < TRACE_ROOM_GB:
        remedy = f"set TMPDIR to a folder with {TRACE_ROOM_GB:g} GB and more before nsys profile, or record fewer steps"
        return Finding(name, WARNING, f"{free_gb:.1f} GB free in {folder}", remedy)
    return Finding(name, OK, f"{free_gb:.0f} GB free in {folder}")


def read_text(path: Path) -> str | None:
    """A small file's text; None when it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """A setting of the kernel; None when it has none of that name."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def capabilities() -> int:
    """Effective capabilities of this process, as a mask; 0 where the kernel tells none."""
    status = read_text(Path("/proc/self/status")) or ""
    return next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
