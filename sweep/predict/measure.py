"""Measures what one device of this machine achieves with PyTorch, and how fast several exchange data.

A device is a GPU or, as for sweeps, a CPU core that runs one rank with one thread. Each figure gets a share of the
time; what a device cannot do is reported and left out. Imports torch when it measures. Knows no files.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sweep.config.hardware import AUTO, DRIVER, MEASURED, AllReduce, Hardware, Origin
from sweep.machine.devices import cpu_name
from sweep.refusals import require

Say = Callable[[str], None]

SHARES = {"matrices": 0.5, "copies": 0.1, "launches": 0.05, "links": 0.05, "all_reduce": 0.3}
"""Shares of the time, by what is measured."""

SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (2048, 4096, 8192, 16384)}
"""Sides of the square matrices that are multiplied."""

DTYPES = {"cpu": ("float32", "bfloat16", "int8"), "cuda": ("float32", "tf32", "bfloat16", "fp8", "int8")}

MESSAGES = {
    "cpu": (1 << 12, 1 << 16, 1 << 20, 1 << 24),
    "cuda": (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 28),
}
"""Bytes of what is reduced."""

COPIED = {"cpu": 1 << 28, "cuda": 1 << 30}
"""Bytes that are copied at once, more than any cache holds."""

LAUNCHES = 200
"""Kernels that are launched in a row, fewer than a GPU's queue holds."""

LEAST, SAMPLE_S = 3, 0.01
"""Fewest samples of a figure, and the shortest one: shorter calls are timed together."""

START_S = 120.0
"""How long ranks may take to start."""


def kind_of(asked: str) -> str:
    """cpu or cuda, for `auto` cuda where PyTorch finds a GPU. Raises ConfigError."""
    import torch

    found = torch.cuda.is_available()
    require(asked != "cuda" or found, "--device cuda: PyTorch finds no GPU here; choose cpu")
    return ("cuda" if found else "cpu") if asked == AUTO else asked


def hardware(name: str, kind: str, seconds: float, say: Say) -> Hardware:
    """Measure everything, in about `seconds` plus the start of processes. Raises ConfigError when nothing works."""
    import torch

    idle_w, limit_w = _power(seconds, say) if kind == "cuda" else (None, None)
    torch.set_num_threads(1)
    device = Device(kind, seconds, say)
    model = torch.cuda.get_device_name(0) if kind == "cuda" else cpu_name()
    say(f"measuring {'a core of ' * (kind == 'cpu')}{model} for about {seconds:g} s")
    memory_gb, usable_gb = device.memory_gb()
    peaks = device.peaks_tflops()
    require(bool(peaks), f"PyTorch cannot multiply matrices on {model}")
    link, peer = device.links_gb_s()
    found: dict[str, Any] = {
        "peak_tflops": peaks,
        "bandwidth_gb_s": device.bandwidth_gb_s(),
        "memory_gb": memory_gb,
        "usable_gb": usable_gb,
        "link_gb_s": link,
        "peer_gb_s": peer,
        "launch_us": device.launch_us(),
        "all_reduce": device.all_reduces(),
        "power_w": limit_w,
        "idle_w": idle_w,
    }
    found = {figure: value for figure, value in found.items() if value}
    return Hardware(name=name, kind=kind, match=[model], **found, sources=_sources(found, kind))


def _sources(found: dict[str, Any], kind: str) -> dict[str, Origin]:
    import torch

    today = datetime.now(UTC).date().isoformat()
    how = f"python -m sweep.predict measure, PyTorch {torch.__version__}"
    on_gpu = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    how += ", one thread" if kind == "cpu" else f", {on_gpu}"
    source = "psutil: memory that all cores share" if kind == "cpu" else "NVML, and torch.cuda.mem_get_info"
    asked = ("memory_gb", "usable_gb", "power_w")
    return {name: Origin(DRIVER, source, today) if name in asked else Origin(MEASURED, how, today) for name in found}


@dataclass
class Device:
    """The first device of its kind, and how long there is to measure it."""

    kind: str
    seconds: float
    say: Say

    @property
    def first(self) -> str:
        """As torch names it."""
        return "cuda:0" if self.kind == "cuda" else "cpu"

    def time_of(self, work: Callable[[], object], budget_s: float) -> float:
        """Median of the seconds that `work` takes, at least LEAST samples."""
        return median_s(work, self.wait, budget_s)

    def wait(self) -> None:
        """Wait until everything that was launched is done."""
        import torch

        if self.kind == "cuda":
            for number in range(torch.cuda.device_count()):
                torch.cuda.synchronize(number)

    def peaks_tflops(self) -> dict[str, float]:
        """10^12 operations a second of a product of square matrices, at the size where it is fastest, by dtype."""
        kinds = DTYPES[self.kind]
        budget_s = self.seconds * SHARES["matrices"] / len(kinds)
        found = {}
        for dtype in kinds:
            best, side = 0.0, 0
            try:
                for size, flops in self._products(dtype, budget_s):
                    best, side = max((best, side), (flops, size))
            except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
                if not best:
                    self.say(f"{dtype}: not here ({_first_line(error)})")
            if best:
                found[dtype] = rounded(best / 1e12)
                self.say(f"{dtype}: {best / 1e12:.3g} TFLOP/s in products of {side} × {side} matrices")
        return found

    def _products(self, dtype: str, budget_s: float) -> Iterator[tuple[int, float]]:
        """Size and operations a second, from small to large, until the time is up."""
        ends, last_s = time.perf_counter() + budget_s, 0.0
        sizes = SIZES[self.kind]
        for size in sizes:
            left_s = ends - time.perf_counter()
            if last_s * 8 * (LEAST + 1) > left_s:  # twice the side is eight times the work
                return
            with _product(dtype, self.first, size) as work:
                last_s = self.time_of(work, left_s / 2 if size != sizes[-1] else left_s)
            yield size, 2 * size**3 / last_s

    def bandwidth_gb_s(self) -> float:
        """10^9 bytes/s read and written by a copy within the memory."""
        import torch

        size = COPIED[self.kind]
        source = torch.ones(size, dtype=torch.uint8, device=self.first)
        target = torch.empty_like(source)
        speed = 2 * size / self.time_of(lambda: target.copy_(source), self.seconds * SHARES["copies"]) / 1e9
        self.say(f"copies: {speed:.4g} GB/s read and written")
        return rounded(speed)

    def launch_us(self) -> float:
        """Microseconds of the host for one kernel on a single number, without waiting for it."""
        import torch

        number = torch.ones(1, device=self.first)
        ends = time.perf_counter() + self.seconds * SHARES["launches"]
        samples: list[float] = []
        while len(samples) < LEAST + 1 or time.perf_counter() < ends:
            self.wait()
            began = time.perf_counter()
            for _ in range(LAUNCHES):
                number.add_(1.0)
            samples.append((time.perf_counter() - began) / LAUNCHES)
        found = statistics.median(samples[1:]) * 1e6
        self.say(f"launches: {found:.3g} µs each")
        return rounded(found)

    def memory_gb(self) -> tuple[float, float]:
        """Memory as the driver reports it, and what one process can allocate, 10^9 bytes."""
        import torch

        if self.kind == "cpu":
            import psutil

            total = psutil.virtual_memory().total / 1e9
            return rounded(total), rounded(total)
        usable = torch.cuda.mem_get_info(0)[1] / 1e9
        reported = _nvml(lambda nvml, gpu: float(nvml.nvmlDeviceGetMemoryInfo(gpu).total)) or usable * 1e9
        return round(reported / 1e9, 3), round(usable, 3)

    def links_gb_s(self) -> tuple[float | None, float | None]:
        """10^9 bytes/s that GPU 0 sends to all others at once, and to GPU 1; None without another GPU."""
        import torch

        count = torch.cuda.device_count() if self.kind == "cuda" else 0
        if count < 2:
            return None, None
        size, budget_s = 1 << 28, self.seconds * SHARES["links"] / 2
        source = torch.ones(size, dtype=torch.uint8, device="cuda:0")
        targets = [torch.empty(size, dtype=torch.uint8, device=f"cuda:{number}") for number in range(1, count)]
        streams = [torch.cuda.Stream(0) for _ in targets]

        def to_all() -> None:
            for stream, target in zip(streams, targets, strict=True):
                with torch.cuda.stream(stream):
                    target.copy_(source, non_blocking=True)

        peer = size / self.time_of(lambda: targets[0].copy_(source, non_blocking=True), budget_s) / 1e9
        link = len(targets) * size / self.time_of(to_all, budget_s) / 1e9
        self.say(f"links: {peer:.4g} GB/s to another GPU, {link:.4g} GB/s to all {len(targets)}")
        return rounded(link), rounded(peer)

    def all_reduces(self) -> list[AllReduce]:
        """Each size, for each number of ranks that is a power of two; none where ranks cannot be started."""
        import torch

        there = torch.cuda.device_count() if self.kind == "cuda" else min(os.cpu_count() or 1, 2)
        counts = [ranks for ranks in (2, 4, 8) if ranks <= there]
        found: list[AllReduce] = []
        for ranks in counts:
            try:
                times = self._all_reduce(ranks, self.seconds * SHARES["all_reduce"] / len(counts))
            except (RuntimeError, OSError) as error:  # from a rank, the network or NCCL
                self.say(f"all-reduce between {ranks} ranks: not measured ({_first_line(error)})")
                break
            found += [AllReduce(ranks, size, rounded(1e6 * time_s)) for size, time_s in times]
            largest, time_s = times[-1]
            self.say(
                f"all-reduce between {ranks} ranks: {1e6 * times[0][1]:.3g} µs to {1e3 * time_s:.3g} ms ({largest} B)"
            )
        if not counts:
            self.say("all-reduce: not measured, as there is a single device")
        return found

    def _all_reduce(self, ranks: int, budget_s: float) -> list[tuple[int, float]]:
        """Bytes and seconds of each size. Rank 0 is this process. Raises RankError and what torch raises."""
        from sweep.engines.diffusers.ranks import RankPlace, RankProcesses, leave

        others = RankProcesses(ranks)
        names = [f"cuda:{number}" if self.kind == "cuda" else "cpu" for number in range(ranks)]
        places = [RankPlace(rank, ranks, others.rendezvous, names[rank], 1, START_S) for rank in range(ranks)]
        command = [(size, budget_s / len(MESSAGES[self.kind])) for size in MESSAGES[self.kind]]
        try:
            others.start(Reducer, places[1:], None)
            mine = Reducer(places[0], None)
            others.receive(START_S)
            others.send(command)
            times: list[float] = mine.run(command)
            others.receive(START_S)
        finally:
            others.close()
            leave()
        return [(size, time_s) for (size, _), time_s in zip(command, times, strict=True)]


class Reducer:
    """A rank that takes part in all-reduces (a Runner of sweep.engines.diffusers.ranks)."""

    def __init__(self, place: Any, argument: Any) -> None:
        from sweep.engines.diffusers.ranks import join

        join(place)
        self.device = place.device

    def run(self, command: Sequence[tuple[int, float]]) -> list[float]:
        """Median seconds of an all-reduce of each size, from (size, seconds to spend) pairs; equal on every rank."""
        return [self._time_of(size, budget_s) for size, budget_s in command]

    def _time_of(self, size: int, budget_s: float) -> float:
        import torch
        import torch.distributed as dist

        cuda = self.device != "cpu"
        data = torch.ones(
            size // 2 if cuda else size // 4, dtype=torch.bfloat16 if cuda else torch.float32, device=self.device
        )

        def some(count: int) -> float:
            dist.barrier()
            began = time.perf_counter()
            for _ in range(count):
                dist.all_reduce(data)
            if cuda:
                torch.cuda.synchronize()
            return (time.perf_counter() - began) / count

        some(2)
        slowest = torch.tensor([max(some(2), 1e-7)], dtype=torch.float32, device=self.device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)  # so that all ranks count alike
        each = max(1, min(1000, int(SAMPLE_S / float(slowest))))
        samples = max(LEAST, min(50, int(budget_s / (each * float(slowest)))))
        return statistics.median(some(each) for _ in range(samples))


def median_s(work: Callable[[], object], wait: Callable[[], None], budget_s: float) -> float:
    """Median of the seconds that `work` takes, with `wait` for what it launched; the first two calls warm up."""

    def some(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            work()
        wait()
        return (time.perf_counter() - began) / count

    wait()
    ends = time.perf_counter() + budget_s
    some(1)
    each = max(1, min(10_000, int(SAMPLE_S / max(some(1), 1e-7))))
    samples = [some(each) for _ in range(LEAST)]
    while time.perf_counter() + each * samples[-1] < ends and len(samples) < 1000:
        samples.append(some(each))
    return statistics.median(samples)


@contextlib.contextmanager
def _product(dtype: str, device: str, size: int) -> Iterator[Callable[[], object]]:
    """A product of two square matrices. Raises what torch raises where it has none in this dtype."""
    import torch

    if dtype == "int8":
        one, other = (torch.randint(-8, 8, (size, size), dtype=torch.int8, device=device) for _ in range(2))
        yield lambda: torch._int_mm(one, other.t())  # the layout that GPUs have kernels for
    elif dtype == "fp8":
        kind = torch.float8_e4m3fnuz if _is_gfx94(device) else torch.float8_e4m3fn
        one, other = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        scale = torch.ones((), device=device)
        yield lambda: torch._scaled_mm(one, other.t(), scale, scale, out_dtype=torch.bfloat16)
    else:
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        one, other = (torch.randn(size, size, dtype=kind, device=device) for _ in range(2))
        out = torch.empty_like(one)
        with _float32_as(dtype == "tf32"):
            yield lambda: torch.mm(one, other, out=out)


@contextlib.contextmanager
def _float32_as(tf32: bool) -> Iterator[None]:
    """Products of float32 in tf32, or exactly."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _is_gfx94(device: str) -> bool:
    """Whether it is an AMD GPU with a float8 of its own (MI300)."""
    import torch

    return bool(torch.version.hip) and "gfx94" in str(
        getattr(torch.cuda.get_device_properties(device), "gcnArchName", "")
    )


def _power(seconds: float, say: Say) -> tuple[float | None, float | None]:
    """Watts of GPU 0 without work, before this process touches it, and its limit; None where the driver gives none."""
    from sweep.machine.gpu_neighbours import gpu_pids, nvml_indices

    limit = _nvml(lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3)
    if gpu_pids(nvml_indices((0,))):
        say("another process uses GPU 0: figures will be too low, and its power without work is not measured")
        return None, limit
    samples = []
    for _ in range(max(LEAST, min(20, int(seconds / 2)))):
        samples.append(_nvml(lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3))
        time.sleep(0.1)
    known = [watts for watts in samples if watts]
    idle = rounded(statistics.median(known)) if known else None
    if idle:
        say(f"power: {idle:g} W without work{f' of {limit:g} W' if limit else ''}")
    return idle, limit


def _nvml(ask: Callable[[Any, Any], float]) -> float | None:
    """What NVML answers for the first GPU that we see; None without NVML, or where it does not answer."""
    from sweep.machine.gpu_neighbours import nvml_indices

    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return float(ask(pynvml, pynvml.nvmlDeviceGetHandleByIndex(nvml_indices((0,))[0])))
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no driver, no library, no permission, an old driver
        return None


def rounded(value: float) -> float:
    """To four digits; a measured figure has no more."""
    return float(f"{value:.4g}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
