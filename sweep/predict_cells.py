"""`python -m sweep.predict OVERRIDES`: what the cells of a sweep would take, without running any."""

import argparse
import copy
import dataclasses
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

from sweep.asked import Asked, asked
from sweep.config.model import Model
from sweep.config.run import RunConfig
from sweep.predict.calibrate import Calibration
from sweep.predict.calibration_files import calibration_for, load
from sweep.predict.hardware import Device, device_of
from sweep.predict.planned import shaped_model
from sweep.predict.point import point_of
from sweep.predict.prediction import predicted
from sweep.predict.quality import psnr_db
from sweep.predict.row import Row
from sweep.predict.search import GOALS, UNITS, best, check_goal, limits
from sweep.predict.timing import Unknown
from sweep.refusals import ConfigError, require

EPILOG = f"""\
The overrides are those of a sweep: `python -m sweep -m …`. Nothing is loaded or run, and no GPU is needed.

examples
  python -m sweep.predict model=qwen_image engine=vllm_omni workload=image_1024 hardware=h200
  python -m sweep.predict model=qwen_image engine=vllm_omni workload=image_1024 hardware=h200,l40s \\
      feature=cfg_parallel,teacache,ulysses combine=2 batch=1,2,4
  python -m sweep.predict … --best images_per_s_per_gpu --under memory=80,latency=5,gpus=4

--best ranks by {", ".join(GOALS)}.
--under takes {"; ".join(f"{name}=N ({unit})" for name, unit in UNITS.items())}.
PSNR is not predicted: it is what the calibration's sweeps measured with the same features.

exit codes: 0 done, 1 nothing fits or meets the limits, 2 bad input (one line says what), 3 the result could not be
printed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.epilog = EPILOG
    parser.add_argument("overrides", nargs="+", metavar="OVERRIDE", help="as of a sweep: model=qwen_image batch=1,2,4")
    parser.add_argument("-m", "--multirun", action="store_true", help="as of a sweep; changes nothing here")
    parser.add_argument("--best", metavar="GOAL", help=f"rank by {', '.join(GOALS)} instead of listing all")
    parser.add_argument("--under", metavar="LIMITS", default="", help="memory=80,latency=5,gpus=4,psnr=35, …")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="one that `calibrate` wrote")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")


def run(given: argparse.Namespace) -> int:
    """Predict, and print. Raises ConfigError."""
    under = limits(given.under)
    require(not under or given.best, "--under goes with --best, e.g. --best latency --under memory=80")
    if given.best:
        check_goal(given.best)
    own = load(given.calibration) if given.calibration else None
    known: dict[tuple[str, str], Calibration] = {}

    def calibration(row: Row) -> Calibration:
        key = row.device.name, row.run.engine.name
        return own or known.setdefault(key, calibration_for(*key))

    gc.disable()  # it would look through a hundred thousand rows again and again, and find nothing
    rows = list(predictions(asked(given.overrides), own))
    require(bool(rows), "nothing is asked for")
    _refuse_if_none_runs(rows)
    found = None
    if given.best:
        qualities: dict[tuple[str, str, tuple[str, ...]], float | None] = {}

        def quality(row: Row) -> float | None:
            key = row.device.name, row.run.model.name, row.features
            if key not in qualities:
                qualities[key] = psnr_db(row, calibration(row))
            return qualities[key]

        found = best(rows, given.best, under, quality)
    from sweep.predict.report import print_json, print_text

    printed = print_json if given.json else print_text
    printed(rows, found, given.best, calibration)
    fits = found.rows if found else [row for row in rows if row.prediction and row.prediction.fits is not False]
    return 0 if fits else 1


def predictions(cells: Iterator[Asked], own: Calibration | None = None) -> Iterator[Row]:
    """A row for each. Raises ConfigError for what cannot be predicted."""
    devices: dict[int, Device] = {}
    models: dict[tuple[object, ...], Model] = {}
    for cell in cells:
        device = _device(cell.run, devices)
        row = Row(cell.label, cell.features, cell.run, device, cell.varied)
        if cell.skip:
            yield dataclasses.replace(row, skip=cell.skip.text)
            continue
        run = cell.run
        key = run.model.name, run.model.path, *run.model.stages.fields().items()
        if key not in models:
            models[key] = shaped_model(run.model)
        run = copy.copy(run)
        run.model = models[key]
        by = (own or calibration_for(device.name, run.engine.name)).factors
        point = point_of(run, device.kind)
        try:
            yield dataclasses.replace(row, prediction=predicted(point, device, by))
        except Unknown as error:
            yield dataclasses.replace(row, skip=str(error))


def _device(run: RunConfig, known: dict[int, Device]) -> Device:
    """The device of a configuration; those that share its Hardware share it."""
    key = id(run.hardware)
    if key not in known:
        found = device_of(run.hardware)
        if found is None:
            raise ConfigError(
                f"hardware={run.hardware.name}: nothing is known of this machine; choose hardware=h200, or measure it: "
                "python -m sweep.predict measure"
            )
        known[key] = found
    return known[key]


def _refuse_if_none_runs(rows: Sequence[Row]) -> None:
    if all(row.prediction is None for row in rows):
        raise ConfigError(f"nothing of it can run: {rows[0].label}: {rows[0].skip}")
