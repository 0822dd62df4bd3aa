"""A measured cell against its prediction and the least that physics allows. Pure.

`said` is the prediction before the run, with the share of blocks that a cache was expected to skip. The limit is for
what really ran. Knows nothing of files or sentences.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sweep.cached import cached_property
from sweep.predict import stages, timing
from sweep.predict.factors import Factors
from sweep.predict.hardware import Device
from sweep.predict.point import Point
from sweep.predict.prediction import Prediction, predicted
from sweep.predict.stages import AR_DECODE, AR_PREFILL, DENOISE, HOST_COPY, OTHER, STAGE_TRANSFER, VAE_DECODE, Phase

PRODUCTS, ATTENTION, CONVOLUTIONS, READING = "products", "attention", "convolutions", "reading"
SMALL_KERNELS, EXCHANGE, HOST_COPIES = "small_kernels", "exchange", "host_copies"
LAUNCHES, HOST = "launches", "host"
"""What a phase spends its time on. The first four have a limit; the others add to it. LAUNCHES is how long the device
waits for the host to launch kernels, HOST what no work on a device overlaps."""


@dataclass(frozen=True)
class Spent:
    """Seconds of a phase, by what they are spent on."""

    phase: str
    on: str  # PRODUCTS, …
    seconds: float
    limit_s: float  # of these, the least that physics allows

    @property
    def lost_s(self) -> float:
        """Seconds beyond the limit."""
        return self.seconds - self.limit_s


@dataclass(frozen=True)
class Reached:
    """One cell, offline: a batch of pictures."""

    said: Prediction  # before it ran
    ran: Point  # with the blocks that were skipped
    phases: tuple[Phase, ...]  # work of what ran
    device: Device
    factors: Factors
    latency_s: float  # measured, as are the fields below
    phases_s: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: float | None = None
    parts_bytes: Mapping[str, float] = field(default_factory=dict)  # components of its ledger, where they were recorded

    @property
    def prediction_error(self) -> float:
        """Predicted ÷ measured − 1."""
        return self.said.latency_s / self.latency_s - 1

    @cached_property
    def limits_s(self) -> Mapping[str, tuple[float, float]]:
        """By phase, the least seconds that its operations take, and reading its weights and KV cache."""
        both = timing.compute_limit_s, timing.read_limit_s
        return {one.name: (both[0](one, self.device), both[1](one, self.device)) for one in self.phases}

    @cached_property
    def limit_s(self) -> float:
        """Least seconds of the batch."""
        return math.fsum(map(max, self.limits_s.values()))

    @property
    def limit_share(self) -> float:
        """Limit ÷ measured: how much of what the devices allow was reached."""
        return self.limit_s / self.latency_s

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: operations that ran on all devices ÷ (time × devices × peak).

        Operations of another dtype count against the peak of theirs. Those that several ranks repeat count for each.
        """
        busy = [compute * self.devices_of(name) for name, (compute, _) in self.limits_s.items()]
        return math.fsum(busy) / (self.latency_s * self.ran.gpus)

    def devices_of(self, phase: str) -> int:
        """Devices that compute in a phase."""
        return 1 if phase in (AR_PREFILL, AR_DECODE) else self.ran.ranks

    def phase(self, name: str) -> Phase | None:
        """The work of a phase; None where the model has none."""
        return next((one for one in self.phases if one.name == name), None)

    def mfu_of(self, name: str) -> float | None:
        """MFU of each device in a phase; None where it was not measured."""
        return self._share(name, lambda compute, read: compute)

    def bandwidth_share_of(self, name: str) -> float | None:
        """Weights and KV cache that a phase read ÷ (its time × bandwidth); None where it was not measured."""
        return self._share(name, lambda compute, read: read)

    def limit_share_of(self, name: str) -> float | None:
        """Limit ÷ measured of a phase; None where it was not measured."""
        return self._share(name, max)

    def _share(self, name: str, of: Callable[[float, float], float]) -> float | None:
        limits, seconds = self.limits_s.get(name), self.phases_s.get(name)
        return of(*limits) / seconds if limits is not None and seconds else None

    @property
    def denoise_step_mfu(self) -> float | None:
        """MFU of the DiT's steps."""
        return self.mfu_of(DENOISE)

    @property
    def vae_decode_mfu(self) -> float | None:
        """MFU of the VAE."""
        return self.mfu_of(VAE_DECODE)

    @property
    def ar_decode_bandwidth_share(self) -> float | None:
        """Share of the bandwidth that writing tokens reached."""
        return self.bandwidth_share_of(AR_DECODE)

    @cached_property
    def spent(self) -> tuple[Spent, ...]:
        """The measured time, largest loss first.

        Seconds of each phase are measured. How a phase divides them is predicted, in proportion.
        """
        found: list[Spent] = []
        for phase in self.phases:
            measured = self.phases_s.get(phase.name)
            parts = split(phase, self.device, self.factors, self.ran.pixels)
            whole = math.fsum(one.seconds for one in parts)
            if measured and whole:
                found += [Spent(one.phase, one.on, one.seconds * measured / whole, one.limit_s) for one in parts]
        return tuple(sorted(found, key=lambda one: -one.lost_s))


def split(phase: Phase, device: Device, by: Factors, pixels: float) -> list[Spent]:
    """The predicted seconds of a phase by what they are spent on, and the limit of each; their sums are the phase's."""
    whole = timing.timed(phase, device, by, pixels)
    if phase.name in (OTHER, STAGE_TRANSFER):
        return [Spent(phase.name, HOST, whole.seconds, 0.0)]
    work, computed = phase.work, timing.compute_s(phase, device, by)
    limits = (
        work.linear / timing.peak(device, phase.dtype),
        work.attention / timing.peak(device, phase.state),
        work.convolution / timing.peak(device, phase.state),
    )
    moved, fixed = timing.moved_s(phase, device, by), timing.fixed_s(phase, by)
    copied = sum(timing.sent_s(one, device, by) for one in phase.exchanges if one.kind == HOST_COPY)
    exchanged = timing.exchanges_s(phase, device, by) - copied
    reading = max(0.0, timing.read_limit_s(phase, device) / by.read - sum(computed))
    ahead = max(0.0, whole.device_s - sum(computed) - reading - moved - exchanged - copied)  # copies that take longer
    parts = list(zip((PRODUCTS, ATTENTION, CONVOLUTIONS), computed, limits, strict=True))
    parts += [
        (READING, reading, max(0.0, whole.limit_s - sum(limits))),
        (SMALL_KERNELS, moved, 0.0),
        (EXCHANGE, exchanged, 0.0),
        (HOST_COPIES, copied + ahead, 0.0),
        (LAUNCHES, max(0.0, whole.seconds - fixed - whole.device_s), 0.0),
        (HOST, fixed, 0.0),
    ]
    return [Spent(phase.name, on, seconds, limit) for on, seconds, limit in parts if seconds or limit]


def reached(
    before: Point,
    ran: Point,
    device: Device,
    by: Factors,
    latency_s: float,
    phases_s: Mapping[str, float],
    peak_memory_bytes: float | None = None,
    parts_bytes: Mapping[str, float] | None = None,
    known: dict[Point, Prediction] | None = None,
) -> Reached:
    """Everything of one cell. `known` caches predictions of this device. Raises ConfigError as `predicted` does."""
    said = known.get(before) if known is not None else None
    if said is None:
        said = predicted(before, device, by)
        if known is not None:
            known[before] = said
    phases = tuple(one.phase for one in said.phases) if ran == before else stages.of(ran)
    measured = peak_memory_bytes, parts_bytes or {}
    return Reached(said, ran, phases, device, by, latency_s, phases_s, *measured)
