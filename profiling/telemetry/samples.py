"""Telemetry samples and summaries of any window of them: pure functions over recorded samples.

Says nothing about single phases, because utilisation over only a few samples has no meaning. Reads no device.
"""

import bisect
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

GB = 1e9

Span = tuple[float, float]
"""From, to, in seconds of the samples' clock."""

THROTTLING = frozenset(
    {
        *("hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown"),  # NVIDIA
        *("prochot", "socket_thermal", "vr_thermal", "hbm_thermal"),  # AMD
    }
)
"""Reasons for low clocks that make a measurement worthless: heat, or a power supply that pulls the brake.

A GPU at its power limit ("sw_power_cap", AMD "ppt") works as designed. An idle GPU, or one whose clocks were set by
hand, is not throttled either.
"""

POWER_CAPS = frozenset({"sw_power_cap", "ppt"})

NO_REASON = "none"
"""The driver reports no reason; unknown is None."""


@dataclass(frozen=True)
class GpuReading:
    """What the driver reports for one GPU now; None where the device does not report a value."""

    index: int  # the driver's: counts all devices, ignores CUDA_VISIBLE_DEVICES
    memory_gb: float | None = None  # used on the device, by all processes
    util_pct: float | None = None  # share of the driver's last sampling period with a kernel running
    power_w: float | None = None
    energy_j: float | None = None  # counter since the driver was loaded
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle_reasons: str | None = None  # why clocks are not higher, joined by "+"; "none" when nothing holds them


@dataclass(frozen=True)
class GpuUser:
    """A process with a compute context on a GPU. Inside a container the driver may report a `pid` of another
    namespace, or no processes at all."""

    gpu_index: int
    pid: int
    name: str  # "" when the driver does not report it
    memory_gb: float | None


@dataclass(frozen=True)
class TelemetrySample:
    """One moment, and one GPU if there are any: one row per GPU, with the same process columns."""

    time_s: float  # time.perf_counter; the same clock in all processes of a Linux machine
    rss_gb: float  # resident memory summed over the tree; pages that processes share count once each
    cpu_pct: float  # processor time of the tree since the previous sample; 100 = one core busy
    gpu_index: int | None = None  # the GPU columns are those of GpuReading
    gpu_memory_gb: float | None = None
    gpu_util_pct: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle_reasons: str | None = None


@dataclass(frozen=True)
class Watched:
    """What the sampling process hands over: samples since the last hand-over, and processes seen since it woke."""

    samples: tuple[TelemetrySample, ...] = ()
    users: tuple[GpuUser, ...] = ()  # on the sampled GPUs, each with the most memory that it held
    tree_pids: frozenset[int] = frozenset()  # every process that the tree had


@dataclass(frozen=True)
class TelemetrySummary:
    """A window in one row. None: unknown."""

    peak_memory_gb: float | None  # fullest GPU; without GPUs the process tree
    cpu_pct: float | None  # mean; 100 = one core busy
    gpu_util_pct: float | None  # mean over samples and GPUs
    energy_j: float | None  # used by all sampled GPUs together
    power_capped_pct: float | None = None  # samples of GPUs at their power limit: no fault, but why clocks differ


@dataclass(frozen=True)
class Throttled:
    """A GPU that was slowed down in `seen` of `samples` samples."""

    gpu_index: int
    reasons: tuple[str, ...]
    seen: int
    samples: int

    def __str__(self) -> str:
        return (
            f"GPU {self.gpu_index} was throttled ({', '.join(self.reasons)}) in {self.seen} of {self.samples}"
            f" samples ({self.seen / self.samples:.0%})"
        )


@dataclass(frozen=True)
class TelemetryWindow:
    """The samples between two times, and their summary."""

    samples: tuple[TelemetrySample, ...]
    summary: TelemetrySummary
    throttled: tuple[Throttled, ...] = ()


def window(
    samples: Sequence[TelemetrySample], start_s: float, end_s: float, turns: Sequence[Span] | None = None
) -> TelemetryWindow:
    """Samples between `start_s` and `end_s`, in order of time, summarised over `turns`, or over everything without any.

    An engine that alternates with another is busy only in its own turns; a mean over the whole window would mix both.
    """
    spans = [(start_s, end_s)] if turns is None else turns
    inside = tuple(sample for sample in samples if start_s <= sample.time_s <= end_s)
    return TelemetryWindow(inside, summarise(samples, spans), throttled(samples, spans))


def joined(spans: Sequence[Span]) -> list[Span]:
    """The same time as spans in order that do not overlap."""
    found: list[Span] = []
    for start_s, end_s in sorted(spans):
        if found and start_s <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end_s)
        else:
            found.append((start_s, end_s))
    return found


def levels(samples: Sequence[TelemetrySample], spans: Sequence[Span]) -> list[TelemetrySample]:
    """Samples inside the spans; for a span without any, the first after it, else the last before it."""
    chosen: set[float] = set()
    times = sorted({sample.time_s for sample in samples})
    for start_s, end_s in spans if times else ():
        inside = times[bisect.bisect_left(times, start_s) : bisect.bisect_right(times, end_s)]
        after = bisect.bisect_right(times, end_s)
        chosen.update(inside or times[after : after + 1] or times[-1:])
    return [sample for sample in samples if sample.time_s in chosen]  # one per GPU


def summarise(samples: Sequence[TelemetrySample], spans: Sequence[Span]) -> TelemetrySummary:
    """Reduce the samples, in order of time, to one row for the spans; samples just outside help at their ends."""
    spans = joined(spans)
    seen = levels(samples, spans)
    gpu_memory = [sample.gpu_memory_gb for sample in seen if sample.gpu_memory_gb is not None]
    utilisation = [sample.gpu_util_pct for sample in seen if sample.gpu_util_pct is not None]
    capped = [not POWER_CAPS.isdisjoint(found) for sample in seen if (found := reasons(sample)) is not None]
    return TelemetrySummary(
        peak_memory_gb=max(gpu_memory or [sample.rss_gb for sample in seen], default=None),
        cpu_pct=mean_cpu_pct(samples, spans),
        gpu_util_pct=sum(utilisation) / len(utilisation) if utilisation else None,
        energy_j=energy_used_j(samples, spans),
        power_capped_pct=100 * sum(capped) / len(capped) if capped else None,
    )


def reasons(sample: TelemetrySample) -> frozenset[str] | None:
    """Why the GPU's clocks were not higher; None if unknown."""
    if sample.throttle_reasons is None:
        return None
    return frozenset(sample.throttle_reasons.split("+")) - {NO_REASON}


def throttled(samples: Sequence[TelemetrySample], spans: Sequence[Span]) -> tuple[Throttled, ...]:
    """GPUs that were slowed down in the spans, and why (see THROTTLING). GPUs with unknown reasons are left out."""
    looked: Counter[int] = Counter()
    seen: Counter[int] = Counter()
    found: dict[int, set[str]] = {}
    for sample in levels(samples, joined(spans)):
        given = reasons(sample)
        if sample.gpu_index is None or given is None:
            continue
        looked[sample.gpu_index] += 1
        if slowed := given & THROTTLING:
            seen[sample.gpu_index] += 1
            found.setdefault(sample.gpu_index, set()).update(slowed)
    return tuple(Throttled(gpu, tuple(sorted(found[gpu])), seen[gpu], looked[gpu]) for gpu in sorted(found))


def mean_cpu_pct(samples: Sequence[TelemetrySample], spans: Sequence[Span]) -> float | None:
    """Mean over the spans. A sample covers the time since the previous one; only the overlap counts."""
    by_time = {sample.time_s: sample.cpu_pct for sample in samples}  # one per moment, not per GPU
    times = sorted(by_time)
    covered_s, weighted = 0.0, 0.0
    for start_s, end_s in spans:
        first = max(bisect.bisect_right(times, start_s), 1)
        for number in range(first, len(times)):
            overlap_s = min(times[number], end_s) - max(times[number - 1], start_s)
            if overlap_s <= 0:
                break
            covered_s += overlap_s
            weighted += overlap_s * by_time[times[number]]
    return weighted / covered_s if covered_s else None


def energy_used_j(samples: Sequence[TelemetrySample], spans: Sequence[Span]) -> float | None:
    """Difference of each GPU's energy counter between the spans' ends, summed; None without two readings of any.

    The counter is interpolated linearly between samples; before the first and after the last it counts as constant.
    """
    readings: dict[int, list[tuple[float, float]]] = {}
    for sample in samples:
        if sample.gpu_index is not None and sample.energy_j is not None:
            readings.setdefault(sample.gpu_index, []).append((sample.time_s, sample.energy_j))
    lines = [line for line in readings.values() if len(line) >= 2]
    used = [counter_at(end_s, line) - counter_at(start_s, line) for line in lines for start_s, end_s in spans]
    return sum(used) if used else None


def counter_at(time_s: float, readings: Sequence[tuple[float, float]]) -> float:
    """Linear interpolation in (time, value) pairs that are in order of time."""
    if time_s <= readings[0][0]:
        return readings[0][1]
    for (before_s, before), (after_s, after) in itertools.pairwise(readings):
        if time_s <= after_s:
            return before + (after - before) * (time_s - before_s) / (after_s - before_s)
    return readings[-1][1]
