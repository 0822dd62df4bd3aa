"""Calibrations in files: those that come with the package, and those that were made on this machine.

One file for a device and an engine: `h200-vllm_omni.json`. Knows nothing of how factors are fitted.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from profiling.atomic_write import write_atomic
from sweep.places import machine_conf
from sweep.predict.calibrate import Calibration, Errors
from sweep.predict.factors import ASSUMED, Factors
from sweep.refusals import ConfigError

SHIPPED = Path(__file__).parent / "calibrations"

NEAREST = {"vllm_omni": "h200-vllm_omni"}
"""Calibration of another device whose shares are the best guess where a device has none, by engine."""


def path_of(device: str, engine: str, folder: Path | None = None) -> Path:
    """Where the calibration of a device for an engine is; by default that of this machine."""
    return (folder or machine_conf() / "calibrations") / f"{device}-{engine}.json"


def save(path: Path, device: str, engine: str, made: Calibration, sweeps: Sequence[str], date: str) -> None:
    """Write one, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {
        "device": device,
        "engine": engine,
        "date": date,
        "sweeps": list(sweeps),
        "cells": made.cells,
        "held_out": {name: dataclasses.asdict(errors) for name, errors in made.held_out.items()},
        "hosts": dict(made.hosts),
        "psnr_db": {model: dict(known) for model, known in made.psnr_db.items()},
        "factors": dataclasses.asdict(made.factors),
    }
    write_atomic(path, json.dumps(said, indent=1) + "\n")


def load(path: Path) -> Calibration:
    """Read one. Raises ConfigError for a file that is not a calibration."""
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(Factors)}
        factors = Factors(**{name: value for name, value in said["factors"].items() if name in known})
        held_out = {name: Errors(**errors) for name, errors in said["held_out"].items()}
        return Calibration(factors, said["hosts"], held_out, said["cells"], said["psnr_db"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: no calibration ({type(error).__name__}: {error})") from error


@functools.lru_cache(maxsize=64)
def calibration_for(device: str, engine: str) -> Calibration:
    """The calibration of a device and an engine: made here, else shipped, else of another device, else assumed."""
    for folder in (None, SHIPPED):
        path = path_of(device, engine, folder)
        if path.is_file():
            return load(path)
    guess = SHIPPED / f"{NEAREST.get(engine, '')}.json"
    if guess.is_file():
        found = load(guess)
        factors = dataclasses.replace(found.factors, grade=ASSUMED, origin=f"as on {guess.stem.partition('-')[0]}")
        return Calibration(factors, psnr_db=found.psnr_db)
    return Calibration(Factors())
