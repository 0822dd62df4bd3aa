"""manifest.json: what a sweep ran with, on what machine, and how far it came."""

import contextlib
import datetime
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from sweep.checkpoints.marker import read_marker
from sweep.masking import masked_text
from sweep.plan.plans import Plan
from sweep.predict import shapes
from sweep.refusals import ConfigError
from sweep.results.folder import SweepFolder
from sweep.run import provenance
from sweep.run.group import is_finished


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def later(start: str, seconds: float) -> str:
    """A moment computed from a duration, so that it comes after `start` even if the clock was set meanwhile."""
    moment = datetime.datetime.fromisoformat(start) + datetime.timedelta(seconds=seconds)
    return moment.isoformat(timespec="seconds")


def facts_of(folder: SweepFolder, plan: Plan) -> dict[str, Any]:
    """What is known when a run of the sweep starts."""
    started = _now()
    return {
        "command": shlex.join(["python", *map(masked_text, sys.orig_argv[1:])]),
        "versions": dict(provenance.versions()),
        "git_commit": provenance.git_commit(),
        "machine": _machine(),
        "random_weights": _random_weights(plan),
        **({"shapes": found} if (found := _shapes(plan)) else {}),
        **({"own": own} if (own := own_settings(plan)) else {}),
        "metadata": {name: value for cell in plan.cells for name, value in cell.config.get("metadata", {}).items()},
        "start": started,
        "first_start": folder.load_manifest().get("first_start", started),
    }


def progress(folder: SweepFolder, plan: Plan, before: list[dict[str, Any]], offset: int) -> dict[str, Any]:
    """Engine starts and cell states; `before` are the events of earlier runs, `offset` is where this run's begin."""
    events, _ = folder.events(offset)
    states = {cell.key: "skipped" if cell.skip else "pending" for cell in plan.cells}
    for cell in plan.cells:
        if not cell.skip and is_finished(folder, cell):
            states[cell.key] = "done"
    for event in events:
        if event["event"] == "cell":
            states[event["key"]] = event["state"]
    starts, earlier = (sum(event["event"] == "engine_start" for event in part) for part in (events, before))
    labels = {cell.key: cell.label for cell in plan.cells}
    return {
        "engine_starts": starts,
        "engine_starts_all_runs": starts + earlier,
        "cells": [
            {"cell": labels[key], "cell_key": key, "state": state} for key, state in states.items() if key in labels
        ],
    }


def _random_weights(plan: Plan) -> dict[str, Any]:
    """Models of the plan whose weights are random, each with what its checkpoint says about itself."""
    models = {cell.config["model"]["name"]: cell.config["model"] for cell in plan.cells}
    markers = {name: read_marker(Path(model["path"])) for name, model in models.items() if model["path"]}
    markers |= {name: {} for name, model in models.items() if model["embedded"] and not model["weights"]}
    return {name: marker for name, marker in sorted(markers.items()) if marker is not None}


def _shapes(plan: Plan) -> dict[str, Any]:
    """Shapes of the checkpoints given by path, so that a report where they are not can predict as well."""
    found = {}
    for cell in plan.cells:
        model = cell.run_config.model
        if model.path is not None and model.name not in found:
            with contextlib.suppress(ConfigError):  # of a layout that only its engine knows
                read = shapes.of_checkpoint(model, Path(model.path))
                if read != model:
                    found[model.name] = shapes.to_json(read)
    return found


def own_settings(plan: Plan) -> dict[str, dict[str, dict[str, str]]]:
    """Of models with steps or guidance of their own: field, value that cells used, and whose that is, the model's or
    the workload's: `{"z_image": {"steps": {"8": "model", "20": "workload"}}}`."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for cell in plan.cells:
        model, work = cell.config["model"], cell.config["workload"]
        for name, own in model.get("own", {}).items():  # cells of earlier versions have none
            whose = "model" if work[name] == own else "workload"
            found.setdefault(model["name"], {}).setdefault(name, {})[f"{work[name]:g}"] = whose
    return found


def _machine() -> dict[str, Any]:
    import psutil

    from sweep.machine.devices import cpu_name, describe_gpus

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        **describe_gpus(),
    }
