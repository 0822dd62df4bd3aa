"""Readings of AMD GPUs through AMD SMI (`amdsmi`, checked against version 7.0). Unknown values are None.

amdsmi returns "N/A" for most values that a device lacks, and the largest number of the type for some; a power or energy
of 0 means that there is no meter. All of these are None here.
"""

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from profiling.telemetry.samples import GB, NO_REASON, GpuReading, GpuUser

NOT_AVAILABLE = frozenset({2**16 - 1, 2**32 - 1, 2**64 - 1})

RESIDENCIES = {
    "prochot_residency_acc": "prochot",
    "ppt_residency_acc": "ppt",
    "socket_thm_residency_acc": "socket_thermal",
    "vr_thm_residency_acc": "vr_thermal",
    "hbm_thm_residency_acc": "hbm_thermal",
}
"""GPU counters that grow while something holds the clocks down, and our names of those reasons.

`amdsmi_get_violation_status` names them too, but takes a tenth of a second per call. Older devices have
`throttle_status` instead, which amdsmi reduces to yes or no.
"""


class AmdReader:
    """AMD SMI's readings of the chosen GPUs. If it does not work, its own error is raised."""

    name = "AMD SMI"

    def __init__(self, indices: Sequence[int] | None) -> None:
        with contextlib.redirect_stdout(None):  # without ROCm's library it prints two lines, then fails
            self._smi: Any = importlib.import_module("amdsmi")
        self._smi.amdsmi_init()
        handles = self._smi.amdsmi_get_processor_handles()
        chosen = range(len(handles)) if indices is None else [index for index in indices if index < len(handles)]
        self._handles: dict[int, Any] = {index: handles[index] for index in chosen}
        self._residencies: dict[int, dict[str, float]] = {}  # of the previous reading
        self._open = True

    def read(self) -> list[GpuReading]:
        """One reading per GPU."""
        return [self._read_one(index, gpu) for index, gpu in self._handles.items()]

    def users(self) -> list[GpuUser]:
        """Processes on the GPUs, as far as the driver reports them."""
        found = []
        for index, gpu in self._handles.items():
            for process in self._ask(self._smi.amdsmi_get_gpu_process_list, gpu) or []:
                used = number(process.get("memory_usage", {}).get("vram_mem"))
                name = str(process.get("name", ""))
                found.append(
                    GpuUser(
                        index, int(process["pid"]), "" if name == "N/A" else name, None if used is None else used / GB
                    )
                )
        return found

    def close(self) -> None:
        """Disconnect; safe to call twice."""
        if self._open:
            self._smi.amdsmi_shut_down()
        self._open, self._handles = False, {}

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except Exception:  # its own kinds of error differ between versions; all mean "not on this device"
            return None

    def _read_one(self, index: int, gpu: Any) -> GpuReading:
        smi, ask = self._smi, self._ask
        used = number(ask(smi.amdsmi_get_gpu_memory_usage, gpu, smi.AmdSmiMemoryType.VRAM))
        power = ask(smi.amdsmi_get_power_info, gpu) or {}
        energy = ask(smi.amdsmi_get_energy_count, gpu) or {}
        ticks = positive(energy.get("energy_accumulator", energy.get("power")))  # its name until ROCm 6.0
        resolution_uj = positive(energy.get("counter_resolution"))
        return GpuReading(
            index=index,
            memory_gb=None if used is None else used / GB,
            util_pct=number((ask(smi.amdsmi_get_gpu_activity, gpu) or {}).get("gfx_activity")),
            power_w=positive(power.get("current_socket_power")) or positive(power.get("average_socket_power")),
            energy_j=None if ticks is None or resolution_uj is None else ticks * resolution_uj / 1e6,
            sm_clock_mhz=self._clock_mhz(gpu, "GFX"),
            memory_clock_mhz=self._clock_mhz(gpu, "MEM"),
            throttle_reasons=self._reasons(index, ask(smi.amdsmi_get_gpu_metrics_info, gpu) or {}),
        )

    def _clock_mhz(self, gpu: Any, kind: str) -> float | None:
        clocks = self._ask(self._smi.amdsmi_get_clock_info, gpu, getattr(self._smi.AmdSmiClkType, kind)) or {}
        return number(clocks.get("clk", clocks.get("cur_clk")))  # the latter until ROCm 6.1

    def _reasons(self, index: int, metrics: Mapping[str, Any]) -> str | None:
        """Reasons that held since the previous reading; None at the first, and without these counters."""
        now = {name: value for name in RESIDENCIES if (value := number(metrics.get(name))) is not None}
        before, self._residencies[index] = self._residencies.get(index, {}), now
        known = now.keys() & before.keys()
        if not known:
            return None
        return "+".join(RESIDENCIES[name] for name in RESIDENCIES if name in known and now[name] > before[name]) or (
            NO_REASON
        )


def number(value: Any) -> float | None:
    """A value of amdsmi; None for "N/A" and for its substitutes."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and value not in NOT_AVAILABLE
    return float(value) if known else None


def positive(value: Any) -> float | None:
    """The same for a value that is never 0 if it is measured at all."""
    return number(value) or None
