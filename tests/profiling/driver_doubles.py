"""Doubles of the GPU drivers' Python packages, which answer as the real ones do."""

import types
from typing import Any


class NVMLError(Exception):
    """As pynvml's."""


def unsupported(*_: object) -> Any:
    raise NVMLError("not supported")


def nvml(**answers: Any) -> types.ModuleType:
    """A pynvml whose two GPUs support nothing but `answers`."""
    double = types.ModuleType("pynvml")
    double.__dict__.update(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index if index < 2 else unsupported(),
        nvmlDeviceGetMemoryInfo=unsupported,
        nvmlDeviceGetUtilizationRates=unsupported,
        nvmlDeviceGetPowerUsage=unsupported,
        nvmlDeviceGetTotalEnergyConsumption=unsupported,
        nvmlDeviceGetClockInfo=unsupported,
        nvmlDeviceGetComputeRunningProcesses=unsupported,
        nvmlSystemGetProcessName=unsupported,
    )
    double.__dict__.update(answers)
    return double


EVENT_REASONS = {
    "nvmlClocksEventReasonGpuIdle": 0x1,
    "nvmlClocksEventReasonSwPowerCap": 0x4,
    "nvmlClocksEventReasonHwSlowdown": 0x8,
    "nvmlClocksEventReasonHwThermalSlowdown": 0x40,
}
THROTTLE_REASONS = {name.replace("Event", "Throttle"): bit for name, bit in EVENT_REASONS.items()}


class AmdSmiLibraryException(Exception):
    """As amdsmi's."""


def amd(**answers: Any) -> types.ModuleType:
    """An amdsmi whose one GPU is an MI300X that answers as version 7.0 does, but for `answers`."""
    double = types.ModuleType("amdsmi")
    double.__dict__.update(
        AmdSmiMemoryType=types.SimpleNamespace(VRAM="vram"),
        AmdSmiClkType=types.SimpleNamespace(GFX="gfx", MEM="mem"),
        amdsmi_init=lambda: None,
        amdsmi_shut_down=lambda: None,
        amdsmi_get_processor_handles=lambda: ["gpu"],
        amdsmi_get_gpu_memory_usage=lambda gpu, kind: {"vram": 20 * 10**9}[kind],
        amdsmi_get_gpu_activity=lambda gpu: {"gfx_activity": 97, "umc_activity": 12, "mm_activity": "N/A"},
        amdsmi_get_power_info=lambda gpu: {"current_socket_power": 700, "average_socket_power": "N/A"},
        amdsmi_get_energy_count=lambda gpu: {"energy_accumulator": 10**9, "counter_resolution": 15.3, "timestamp": 1},
        amdsmi_get_clock_info=lambda gpu, kind: {"clk": {"gfx": 2100, "mem": 1300}[kind], "max_clk": 2100},
        amdsmi_get_gpu_metrics_info=lambda gpu: {},
        amdsmi_get_gpu_process_list=lambda gpu: [
            {"name": "python", "pid": 7, "memory_usage": {"vram_mem": 3 * 10**9}},
            {"name": "N/A", "pid": 8, "memory_usage": {}},
        ],
    )
    double.__dict__.update(answers)
    return double
