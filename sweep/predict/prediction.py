"""The prediction for one configuration on one kind of device: seconds, memory, energy, cost, and the limits. Pure."""

import functools
from dataclasses import dataclass

from sweep.predict import stages, timing
from sweep.predict.factors import Factors
from sweep.predict.hardware import Device
from sweep.predict.memory import Ledger, ledger
from sweep.predict.point import Point
from sweep.predict.timing import Timed

RESERVED, BAGEL_RESERVED = {"shared": 0.35, "split": 0.6}, 0.45
"""Share of its GPU that the AR stage of vLLM-Omni takes beforehand (TwoStages in sweep/engines/vllm_omni/stages.py);
BAGEL's shared (bagel.py), which holds more."""


@dataclass(frozen=True)
class Prediction:
    """One batch of pictures."""

    point: Point
    phases: tuple[Timed, ...]
    memory: Ledger
    memory_bytes: float | None  # of the device; None: unknown
    energy_j: float | None  # of one picture, all devices; None: power unknown
    cost: float | None  # of one picture, in the hardware's currency; None: price unknown

    @functools.cached_property
    def latency_s(self) -> float:
        """Of a batch, from its request to its last picture."""
        return sum(phase.seconds for phase in self.phases)

    @functools.cached_property
    def limit_s(self) -> float:
        """Least seconds that the batch can take on these devices."""
        return sum(phase.limit_s for phase in self.phases)

    @property
    def sent_bytes(self) -> float:
        """Bytes that each device sends to others, or takes from host memory, for the batch."""
        return sum(exchange.sent for phase in self.phases for exchange in phase.phase.exchanges)

    @property
    def most_images_per_s(self) -> float:
        """Pictures a second that the limit allows."""
        return self.point.batch / self.limit_s

    @property
    def images_per_s(self) -> float:
        """Pictures a second, one batch after another."""
        return self.point.batch / self.latency_s

    @property
    def fits(self) -> bool | None:
        """Whether the fullest device has room; None where its memory is unknown."""
        return self.memory.fits

    @property
    def bottleneck(self) -> Timed:
        """The longest phase."""
        return max(self.phases, key=lambda phase: phase.seconds)


def predicted(point: Point, device: Device, by: Factors) -> Prediction:
    """Every prediction for `point` on `device`. Raises ConfigError where the device lacks a figure that is needed."""
    before, after = _around(point, device, by)
    phases = (*before, timing.timed(stages.denoise(point), device, by), *after)
    reserved = None
    if point.model.ar is not None and point.engine == "vllm_omni":
        reserved = point.model.stages.ar.gpu_memory_utilization
        shared = BAGEL_RESERVED if point.model.family == "bagel" else RESERVED["shared"]
        reserved = reserved or (RESERVED["split"] if point.stage_devices else shared)
    room = device.usable_bytes or device.memory_bytes
    held = ledger(point, by, room, reserved)
    seconds = sum(phase.seconds for phase in phases)
    return Prediction(point, phases, held, room, _energy_j(point, phases, device), _cost(point, seconds, device))


_Timed = tuple[tuple[Timed, ...], tuple[Timed, ...]]

_AROUND: dict[tuple[object, ...], tuple[object, _Timed]] = {}
"""What comes before and after the DiT, stored with the objects whose identities are in the key."""

MOST_KEPT = 100_000


def _around(point: Point, device: Device, by: Factors) -> _Timed:
    """Computed once for the many configurations of a search that differ only in the DiT."""
    key = (id(device), id(by), *stages.around_key(point))
    if key not in _AROUND:
        if len(_AROUND) >= MOST_KEPT:
            _AROUND.clear()
        before, after = stages.around(point)
        found = tuple(tuple(timing.timed(one, device, by, point.pixels) for one in part) for part in (before, after))
        _AROUND[key] = (point.model, device, by), (found[0], found[1])
    return _AROUND[key][1]


def _energy_j(point: Point, phases: tuple[Timed, ...], device: Device) -> float | None:
    """Power limit while a device computes, idle power while it waits, of all devices of the cell."""
    if device.power_w is None:
        return None
    idle = device.idle_w or 0.0
    busy = sum(min(phase.device_s, phase.seconds) for phase in phases)
    seconds = sum(phase.seconds for phase in phases)
    each = device.power_w * busy + idle * (seconds - busy)
    return point.gpus * each / point.batch


def _cost(point: Point, seconds: float, device: Device) -> float | None:
    if device.price_per_hour is None:
        return None
    return point.gpus * device.price_per_hour * seconds / 3600 / point.batch
