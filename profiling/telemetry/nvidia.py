"""Readings of NVIDIA GPUs through NVML. Values that a device does not support are None."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from profiling.telemetry.samples import GB, NO_REASON, GpuReading, GpuUser

REASONS = {
    "gpu_idle": "GpuIdle",
    "applications_clocks_setting": "ApplicationsClocksSetting",
    "sw_power_cap": "SwPowerCap",
    "hw_slowdown": "HwSlowdown",
    "sync_boost": "SyncBoost",
    "sw_thermal_slowdown": "SwThermalSlowdown",
    "hw_thermal_slowdown": "HwThermalSlowdown",
    "hw_power_brake_slowdown": "HwPowerBrakeSlowdown",
    "display_clock_setting": "DisplayClockSetting",
    "board_limit": "BoardLimit",
    "reliability": "Reliability",
}
"""Our name of each reason for low clocks, and NVML's (nvmlClocksEventReason…, before CUDA 12.2 …ThrottleReason…)."""


class NvidiaReader:
    """NVML's readings of the chosen GPUs. If NVML does not work, its own error is raised."""

    name = "NVML"

    def __init__(self, indices: Sequence[int] | None) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml: Any = pynvml
        self._handles: dict[int, object] = {}
        for index in range(pynvml.nvmlDeviceGetCount()) if indices is None else indices:
            try:
                self._handles[index] = pynvml.nvmlDeviceGetHandleByIndex(index)
            except pynvml.NVMLError:  # an index that this driver does not have: no columns for it
                continue
        self._bits = _reason_bits(pynvml)
        self._open = True

    def driver(self) -> tuple[str, list[str]]:
        """Its version, and the name of each chosen GPU."""
        version = str(self._nvml.nvmlSystemGetDriverVersion())
        return version, [str(self._nvml.nvmlDeviceGetName(gpu)) for gpu in self._handles.values()]

    def read(self) -> list[GpuReading]:
        """One reading per GPU."""
        return [self._read_one(index, gpu) for index, gpu in self._handles.items()]

    def users(self) -> list[GpuUser]:
        """Processes with a compute context on the GPUs, as far as the driver reports them."""
        return [user for index, gpu in self._handles.items() for user in self._users(index, gpu)]

    def close(self) -> None:
        """Disconnect; safe to call twice."""
        if self._open:
            self._nvml.nvmlShutdown()
        self._open, self._handles = False, {}

    def _users(self, index: int, gpu: object) -> list[GpuUser]:
        nvml = self._nvml
        try:
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
        except nvml.NVMLError:
            return []
        found = []
        for process in processes:
            try:
                name = Path(str(nvml.nvmlSystemGetProcessName(process.pid))).name
            except nvml.NVMLError:  # no permission, or the process is gone
                name = ""
            used = process.usedGpuMemory
            found.append(GpuUser(index, int(process.pid), name, used / GB if used is not None else None))
        return found

    def _read_one(self, index: int, gpu: object) -> GpuReading:
        nvml = self._nvml

        def ask(question: Callable[[], float]) -> float | None:
            try:
                return float(question())
            except (nvml.NVMLError, AttributeError):  # "not supported" on some devices, not in older packages
                return None

        return GpuReading(
            index=index,
            memory_gb=ask(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used / GB),
            util_pct=ask(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
            power_w=ask(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3),
            energy_j=ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3),
            sm_clock_mhz=ask(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=ask(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
            throttle_reasons=self._reasons(gpu),
        )

    def _reasons(self, gpu: object) -> str | None:
        """Why the clocks are not higher. Drivers and packages before CUDA 12.2 use an older name for this call."""
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            try:
                return _names(int(getattr(self._nvml, name)(gpu)), self._bits)
            except (self._nvml.NVMLError, AttributeError):
                continue
        return None


def _reason_bits(nvml: Any) -> dict[int, str]:
    """Bit of each reason that the installed package knows, by either of its names."""
    found = {}
    for ours, theirs in REASONS.items():
        for prefix in ("nvmlClocksEventReason", "nvmlClocksThrottleReason"):
            if bit := getattr(nvml, prefix + theirs, 0):
                found[int(bit)] = ours
    return found


def _names(mask: int, bits: dict[int, str]) -> str:
    """The reasons in a mask; a bit that the package does not know appears as a number."""
    unknown = mask & ~sum(bits)
    names = [name for bit, name in bits.items() if mask & bit] + ([hex(unknown)] if unknown else [])
    return "+".join(names) or NO_REASON
