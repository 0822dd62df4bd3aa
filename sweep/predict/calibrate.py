"""Factors fitted on what sweeps measured: shares of a device's peaks, and costs of its host.

Each half of the cells (every second one by key) tests a fit on the other half; the stored fit then uses all cells.
Hosts differ in speed: launches of each sweep are `host` times as slow as in the middle of them all.
Pure except for reading the sweeps.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweep.plan.features import combination_name
from sweep.predict import stages
from sweep.predict.effects import Effects, merged
from sweep.predict.factors import FITTED, SHARES, Factors
from sweep.predict.feature_files import feature_named
from sweep.predict.hardware import Device
from sweep.predict.observed import MEASURED, Observed
from sweep.predict.point import Point
from sweep.predict.timing import timed

WEIGHTS = {"denoise_step": 1.0, "ar_decode": 1.0, "vae_decode": 1.0}
OTHERS = 0.35
"""Weight of a phase's error; phases without one of their own last milliseconds and vary by a third."""

TIED = 0.05
"""How strongly a factor is tied to the assumed one, per e-fold: enough to stay there where no data constrain it."""

HOST_TIED = 0.3
FARTHEST, FARTHEST_HOST = 3.0, 1.5
"""Most e-folds between a fitted factor and the assumed one."""

OF_THE_HOST = (*("launch_s", "launch_compiled_s", "all_to_all_s", "ring_s", "sum_s", "gather_s"),)
"""Factors that are `host` times as large on a host that is so much slower."""


@dataclass(frozen=True)
class Errors:
    """|predicted ÷ measured − 1| over cells."""

    cells: int
    median: float
    p90: float
    largest: float


@dataclass(frozen=True)
class Calibration:
    """A fit, and how good it is on cells that it had not seen."""

    factors: Factors
    hosts: Mapping[str, float] = field(default_factory=dict)  # sweep → how much slower its host is
    held_out: Mapping[str, Errors] = field(default_factory=dict)  # phase, or `latency`
    cells: int = 0
    psnr_db: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # model → features → lowest measured


_OF_MEMORY = ("context_bytes", "workspace")


def numbers() -> tuple[str, ...]:
    """Names of the factors that are fitted."""
    return tuple(
        field.name
        for field in dataclasses.fields(Factors)
        if field.type in (float, "float") and field.name not in _OF_MEMORY
    )


def on_host(by: Factors, slower: float) -> Factors:
    """The same factors on a host that is `slower` times as slow."""
    changed = {name: getattr(by, name) * slower for name in OF_THE_HOST}
    return dataclasses.replace(by, token_s=by.token_s * math.sqrt(slower), **changed)


def seconds(cell: Observed, device: Device, by: Factors, effects: Effects | None = None) -> dict[str, float]:
    """Predicted seconds of a cell's phases, and their sum as `latency`."""
    point = cell.point if effects is None else dataclasses.replace(cell.point, effects=effects)
    found = {phase.name: timed(phase, device, by, point.pixels).seconds for phase in stages.of(point)}
    return {**found, "latency": sum(found.values())}


def halves(cells: Sequence[Observed]) -> tuple[list[Observed], list[Observed]]:
    """Every second cell of each sweep, by key, and the others."""
    ordered = sorted(cells, key=lambda cell: (cell.sweep, cell.key, cell.cell))
    return ordered[::2], ordered[1::2]


def calibrated(cells: Sequence[Observed], device: Device, origin: str) -> Calibration:
    """Fit all of `cells`, after testing a fit on each half on the other half."""
    one, other = halves(cells)
    held_out = _joined([_tried(learn, test, device) for learn, test in ((one, other), (other, one))])
    by, hosts = fit(cells, device)
    factors = dataclasses.replace(by, grade=FITTED, origin=origin, skip=skipped(cells))
    return Calibration(factors, hosts, held_out, len(cells), lowest_psnr(cells))


def lowest_psnr(cells: Sequence[Observed]) -> dict[str, dict[str, float]]:
    """Lowest PSNR of each model's feature combinations, dB; those with identical images have none."""
    found: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell.psnr_db is not None and cell.point.features:
            known = found.setdefault(cell.point.model.name, {})
            name = combination_name(cell.point.features)
            known[name] = min(known.get(name, math.inf), cell.psnr_db)
    return found


Skips = Mapping[str, Mapping[str, float]]
"""Model → cache, or cache and the feature that changes it → share of the blocks that did not run."""


def skipped(cells: Sequence[Observed]) -> dict[str, dict[str, float]]:
    """Mean share of skipped blocks of each cache that engaged, and of a cache with a feature that changes it."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        for name in cell.point.features if cell.point.effects.skip else ():
            block = feature_named(name, cell.point.engine, {}).predict or {}
            if "skip" in block:
                others = [other for other in block.get("together") or {} if other in cell.point.features]
                key = combination_name((name, *others[:1]))
                found.setdefault((cell.point.model.name, key), []).append(cell.point.effects.skip)
    shares: dict[str, dict[str, float]] = {}
    for (model, key), values in sorted(found.items()):
        shares.setdefault(model, {})[key] = sum(values) / len(values)
    return shares


def with_learnt(cell: Observed, learnt: Skips) -> Effects:
    """The effects of a cell before it ran: with the share of skipped blocks that other cells had."""
    chosen = [feature_named(name, cell.point.engine, {}) for name in cell.point.features]
    known = learnt.get(cell.point.model.name, {})
    return dataclasses.replace(cell.point.effects, skip=merged(chosen, known).skip)


def _tried(learn: Sequence[Observed], test: Sequence[Observed], device: Device) -> dict[str, list[float]]:
    """How far predictions for `test` are off after a fit on `learn`."""
    by, hosts = fit(learn, device)
    return off(test, device, by, hosts, skipped(learn))


def _joined(several: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Errors]:
    names = [name for name in ("latency", *MEASURED) if any(name in one for one in several)]
    return {name: _errors([value for one in several for value in one.get(name, ())]) for name in names}


def errors(
    cells: Sequence[Observed], device: Device, by: Factors, hosts: Mapping[str, float], learnt: Skips
) -> dict[str, Errors]:
    """How far predictions are from what was measured, by phase and in total."""
    return _joined([off(cells, device, by, hosts, learnt)])


def off(
    cells: Sequence[Observed], device: Device, by: Factors, hosts: Mapping[str, float], learnt: Skips
) -> dict[str, list[float]]:
    """|predicted ÷ measured − 1| of each cell, by phase and in total."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        said = seconds(cell, device, on_host(by, hosts.get(cell.sweep, 1.0)), with_learnt(cell, learnt))
        for name, measured in {**cell.phases_s, "latency": cell.latency_s}.items():
            if measured > 0 and name in said:
                found.setdefault(name, []).append(abs(said[name] / measured - 1))
    return found


def _errors(values: Sequence[float]) -> Errors:
    import numpy as np

    return Errors(len(values), float(np.median(values)), float(np.quantile(values, 0.9)), max(values))


def _explained(point: Point, phase: str) -> bool:
    """Whether the factors describe where the phase's time went; other factors would absorb the rest.

    A text encoder that reads a picture took three times as long as its launches explain. Where the AR stage writes a
    batch in several rounds, the DiT draws at the same time, and each has a part of the device.
    """
    return not (point.edits and phase == stages.TEXT_ENCODE) and stages.rounds(point) == 1


def fit(cells: Sequence[Observed], device: Device) -> tuple[Factors, dict[str, float]]:
    """Factors and hosts that come closest, in ratios, with less weight on outliers."""
    import numpy as np
    from scipy.optimize import least_squares

    names = numbers()
    sweeps = sorted({cell.sweep for cell in cells})
    assumed = np.log([getattr(Factors(), name) for name in names])
    work = [(cell, stages.of(cell.point), cell.point.pixels) for cell in cells]

    def factors(values: "np.ndarray") -> tuple[Factors, dict[str, float]]:
        exact = np.exp(values)
        fitted: dict[str, Any] = dict(zip(names, map(float, exact), strict=False))
        by = dataclasses.replace(Factors(), **fitted)
        return by, dict(zip(sweeps, map(float, exact[len(names) :]), strict=True))

    def residuals(values: "np.ndarray") -> "np.ndarray":
        by, hosts = factors(values)
        own = {name: on_host(by, slower) for name, slower in hosts.items()}
        found = []
        for cell, phases, pixels in work:
            for phase in phases:
                measured = cell.phases_s.get(phase.name)
                if measured and _explained(cell.point, phase.name):
                    said = timed(phase, device, own[cell.sweep], pixels).seconds
                    found.append(WEIGHTS.get(phase.name, OTHERS) * math.log(said / measured))
        tied = (values[: len(names)] - assumed) * TIED
        return np.concatenate([found, tied, values[len(names) :] * HOST_TIED])

    start = np.concatenate([assumed, np.zeros(len(sweeps))])
    lowest = np.concatenate([assumed - FARTHEST, np.full(len(sweeps), -FARTHEST_HOST)])
    most = [
        min(value + FARTHEST, math.log(SHARES.get(name, math.inf))) for name, value in zip(names, assumed, strict=True)
    ]
    highest = np.concatenate([most, np.full(len(sweeps), FARTHEST_HOST)])
    found = least_squares(residuals, start, bounds=(lowest, highest), loss="soft_l1", f_scale=0.1, ftol=1e-4, xtol=1e-4)
    return factors(found.x)
