"""What is predicted for the cells of a plan: seconds, memory and speed-up, on the device that they run on.

Reads files of hardware, calibrations and checkpoints. What cannot be predicted is left out; nothing is guessed for it.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweep.config.model import Model
from sweep.plan.cells import Cell
from sweep.predict.calibration_files import calibration_for
from sweep.predict.factors import ASSUMED
from sweep.predict.hardware import Device
from sweep.predict.point import point_of
from sweep.predict.prediction import Prediction, predicted
from sweep.predict.shapes import of_checkpoint
from sweep.predict.starts import Start, start_of
from sweep.refusals import ConfigError, require
from sweep.workload.requests import number_of_requests

ASSUMED_ERROR = 0.5
"""How far off a latency may be, relative, where factors are assumed; for fitted ones, held-out cells show it."""

ASSUMED_SKIP_ERROR = 0.3
"""What is added for a cache, whose share of skipped blocks is assumed."""


@dataclass(frozen=True)
class Foreseen:
    """One cell."""

    prediction: Prediction
    error: float  # how far off its latency may be, relative
    start: Start  # of its engine


@dataclass(frozen=True)
class Forecast:
    """What is predicted for a plan on one kind of device."""

    device: Device
    cells: Mapping[str, Foreseen]  # by key; without those that cannot be predicted
    cells_s: Mapping[str, float]  # by key: warm-up and measurement, the interleaved baseline's included
    starts: Mapping[str, Start]  # by engine key
    grade: str  # of the latencies

    def worth(self, cell: Cell) -> float:
        """The largest speed-up that is plausible: predicted × (1 + error). Infinite where it cannot be predicted."""
        mine, baseline = self.cells.get(cell.origin), self.cells.get(cell.baseline_key)
        if mine is None or baseline is None:
            return math.inf
        return baseline.prediction.latency_s / mine.prediction.latency_s * (1 + mine.error)


def forecast(cells: Iterable[Cell], device: Device) -> Forecast:
    """Predict those of these cells that run, except loads."""
    planned = {cell.key: cell for cell in cells if not cell.skip}
    shaped: dict[tuple[object, ...], Model] = {}
    found = {key: one for key, cell in planned.items() if (one := _foreseen(cell, device, shaped)) is not None}
    times = {key: seconds for key in found if (seconds := _seconds(planned[key], found)) is not None}
    starts = {planned[key].engine_key: one.start for key, one in found.items()}
    grades = {calibration_for(device.name, planned[key].config["engine"]["name"]).factors.grade for key in found}
    return Forecast(device, found, times, starts, grades.pop() if len(grades) == 1 else ASSUMED)


def _foreseen(cell: Cell, device: Device, shaped: dict[tuple[object, ...], Model]) -> Foreseen | None:
    if cell.under_load:
        return None
    run = cell.run_config
    key = run.model.name, run.model.path, *run.model.stages.fields().items()
    try:
        if key not in shaped:
            shaped[key] = shaped_model(run.model)
        made = calibration_for(device.name, run.engine.name)
        point = point_of(dataclasses.replace(run, model=shaped[key]), device.kind)
        found = predicted(point, device, made.factors)
    except ConfigError:
        return None
    held = made.held_out.get("latency")
    error = held.p90 if held is not None else ASSUMED_ERROR
    return Foreseen(found, error + (ASSUMED_SKIP_ERROR if point.effects.skip else 0.0), start_of(point))


def shaped_model(model: Model) -> Model:
    """The model with the shapes of its checkpoint, where a folder is given. Raises ConfigError where it has none."""
    if model.path is None:
        return model
    folder = Path(model.path)
    require(folder.is_dir(), f"model.path={model.path}: no such folder; leave it out to predict the published model")
    return of_checkpoint(model, folder)


def _seconds(cell: Cell, found: Mapping[str, Foreseen]) -> float | None:
    """Warm-up and measured batches, each of them also in the interleaved baseline. None for a profiled cell."""
    if cell.profile:
        return None
    beside = found.get(cell.interleaved) if cell.interleaved else None
    if cell.interleaved and beside is None:
        return None
    latency = found[cell.key].prediction.latency_s + (beside.prediction.latency_s if beside else 0.0)
    return latency * _batches(cell)


def _batches(cell: Cell) -> int:
    run = cell.run_config
    requests = number_of_requests(run.workload, run.batch, cell.inputs)
    return run.engine.warmup + requests // run.batch * run.workload.repeats
