"""`python -m sweep.predict calibrate SWEEP…`: fit the factors of a device on what sweeps measured on it."""

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sweep.config.hardware import AUTO
from sweep.predict import shown
from sweep.predict.calibrate import MEASURED, Calibration, Errors, calibrated, errors
from sweep.predict.calibration_files import path_of, save
from sweep.predict.factors import Factors
from sweep.predict.hardware import Device, by_device_name, device_for
from sweep.predict.observed import Observed, observed
from sweep.predict.shown import NAMES
from sweep.refusals import ConfigError, require

FEWEST = 4
"""Fewest cells of a device and engine for a fit."""

EPILOG = """\
examples
  python -m sweep.predict calibrate outputs/2026-11-29/10-00-00 outputs/mine
  python -m sweep.predict calibrate docs/results/* --out sweep/predict/calibrations

Half of the cells are fitted first and tried on the other half, which says how good predictions are; what is stored is
fitted on all. Later predictions for that hardware and engine use it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.epilog = EPILOG
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP", help="folder of a sweep")
    parser.add_argument("--hardware", metavar="NAME", help="what they ran on, where its name does not say it")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the calibration (default: this machine's)")


def run(given: argparse.Namespace) -> int:
    """Fit, store, and say how good it is. Raises ConfigError."""
    folders = [folder for folder in given.sweeps if (folder / "report.json").is_file()]
    require(bool(folders), f"{given.sweeps[0]}: no report.json; give the folders of sweeps")
    cells = [cell for folder in folders for cell in observed(folder)]
    require(bool(cells), "no cell of these sweeps was measured offline with a model whose shape is known")
    groups: dict[tuple[str, str], list[Observed]] = {}
    devices: dict[str, Device] = {}
    for cell in cells:
        device = _device(cell, given.hardware)
        devices[device.name] = device
        groups.setdefault((device.name, cell.point.engine), []).append(cell)
    console = Console()
    made = 0
    for (name, engine), mine in sorted(groups.items()):
        if len(mine) < FEWEST:
            shown.show(console, [f"{name}, {engine}: {len(mine)} cells are too few to fit ({FEWEST} at least)"])
            continue
        made += 1
        _one(console, devices[name], engine, mine, given.out)
    require(made > 0, f"no device has {FEWEST} cells or more")
    return 0


def _device(cell: Observed, asked: str | None) -> Device:
    if asked:
        return device_for(asked)
    found = by_device_name(cell.device) if cell.device else device_for(AUTO)
    if found is None:
        raise ConfigError(
            f"{cell.sweep}: nothing is known of '{cell.device}'; say --hardware NAME, or measure it there: "
            "python -m sweep.predict measure"
        )
    return found


def _one(console: Console, device: Device, engine: str, cells: Sequence[Observed], out: Path | None) -> None:
    sweeps = sorted({cell.sweep for cell in cells})
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    before = errors(cells, device, Factors(), {}, {})
    fitted = calibrated(cells, device, f"{len(cells)} cells of {len(sweeps)} sweeps, {date}")
    path = path_of(device.name, engine, out)
    save(path, device.name, engine, fitted, sweeps, date)
    held = fitted.held_out["latency"]
    shown.show(
        console,
        [
            f"{device.name}, {engine}: fitted on {fitted.cells} cells of {len(sweeps)} sweeps. Fitted on each half and "
            f"tried on the other, latency was off by {held.median:.1%} (median) and {held.p90:.1%} (90th percentile).",
            "",
        ],
    )
    console.print(_table(before, fitted))
    shown.show(console, ["", f"written: {path}"])


def _table(before: Mapping[str, Errors], made: Calibration) -> Table:
    """|predicted ÷ measured − 1|: median and 90th percentile with what is assumed, and of cells that were held out."""
    table = Table(box=None, pad_edge=False)
    for name in ("error of", "cells", "assumed", "90 %", "held out", "90 %", "most"):
        table.add_column(name, justify="left" if name == "error of" else "right", no_wrap=True)
    for name in ("latency", *MEASURED):
        if name in made.held_out:
            one, fit = before[name], made.held_out[name]
            figures = (one.median, one.p90, fit.median, fit.p90, fit.largest)
            label = "whole latency" if name == "latency" else NAMES[name]
            table.add_row(label, str(fit.cells), *(f"{figure:.1%}" for figure in figures))
    return table
