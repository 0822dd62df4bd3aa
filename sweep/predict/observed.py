"""What sweeps measured, with the points to predict for each cell. Reads report.json, manifest.json, plan.json.

A published sweep has no plan: its cells are then read from report.json, the depth of its random weights
from manifest.json, and whether blocks were compiled from the evidence of the ranks.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.config.hardware import AUTO
from sweep.config.model import EDITS, Model
from sweep.config.run import RunConfig
from sweep.config.stages import PREFIX
from sweep.config.workload import Workload
from sweep.plan.features import gpus_needed
from sweep.plan.typed import typed
from sweep.predict import executed, shapes, vision
from sweep.predict.effects import merged
from sweep.predict.executed import Executed
from sweep.predict.feature_files import feature_named
from sweep.predict.point import (
    GLYPHS,
    TEMPLATE,
    TOKENS_OF_A_PROMPT,
    Point,
    check_stages,
    picture_tokens,
    point_of,
)
from sweep.refusals import ConfigError

MEASURED = ("text_encode", "image_encode", "ar_prefill", "ar_decode", "denoise_step", "vae_decode", "other")
"""Phases that are compared; a hand-over takes a millisecond."""


@dataclass(frozen=True)
class Observed:
    """One cell that was measured offline."""

    sweep: str
    cell: str
    key: str
    status: str
    point: Point  # with the share of blocks that were skipped
    phases_s: Mapping[str, float]
    latency_s: float
    peak_memory_bytes: float | None
    psnr_db: float | None
    parts_bytes: Mapping[str, float]  # memory by component, where the workers recorded it
    device: str  # as the driver reports it; "" on a CPU
    random_weights: bool


def observed(folder: Path, profiled: bool = False) -> list[Observed]:
    """The cells of a sweep that finished offline and unprofiled, or those that were `profiled`.

    Raises ConfigError for a folder that is not a sweep's.
    """
    report = _json(folder / "report.json")
    try:
        manifest = _json(folder / "manifest.json")
    except ConfigError:
        manifest = {}  # the earliest published one has none
    plan = _json(folder / "plan.json") if (folder / "plan.json").is_file() else {}
    runs = {cell["key"]: cell["config"] for cell in plan.get("cells", ())}
    try:
        return list(_cells(folder.name, report, manifest, runs, profiled))
    except (KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"{folder}: report.json is not a sweep's ({type(error).__name__}: {error})") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the folder of a sweep") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not a sweep's")
    return found


def _cells(
    name: str, report: Mapping[str, Any], manifest: Mapping[str, Any], runs: Mapping[str, Any], profiled: bool
) -> Iterator[Observed]:
    gpus, shared = report["sweep"]["machine"]["gpus"], report.get("settings") or {}
    for cell in report["cells"]:
        latency = cell["metrics"].get("latency_mean_s")
        if not latency or cell.get("load") or bool(cell.get("profiled")) != profiled:
            continue
        random, stored = ((manifest.get(name) or {}).get(cell["model"]) or {} for name in ("random_weights", "shapes"))
        did = _executed(cell["evidence"]["ranks"])
        try:
            point = _of_run(cell, runs[cell["cell_key"]]) if cell["cell_key"] in runs else _of_row(cell, shared)
            point = _as_it_ran(point, did, random, stored)
        except ConfigError:
            continue  # a model of unknown shape
        yield Observed(
            sweep=name,
            cell=cell["cell"],
            key=cell["cell_key"],
            status=cell["status"],
            point=point,
            phases_s={phase: ms / 1e3 for phase, ms in cell["phases_ms"].items() if phase in MEASURED},
            latency_s=latency,
            peak_memory_bytes=_times(cell["metrics"].get("peak_memory_gb"), 1e9),
            psnr_db=cell["quality"]["psnr_db"],
            parts_bytes=did.parts_bytes,
            device=gpus[0] if gpus else "",
            random_weights=bool(random),
        )


def _times(value: float | None, by: float) -> float | None:
    return None if value is None else value * by


def _of_run(cell: Mapping[str, Any], config: Mapping[str, Any]) -> Point:
    run = typed(config, RunConfig, "plan.json")
    device = "cuda" if cell["evidence"]["ranks"] and cell["engine"] == "vllm_omni" else run.engine.device
    return point_of(run, "cpu" if device == AUTO else device)


def _of_row(cell: Mapping[str, Any], shared: Mapping[str, Any]) -> Point:
    """From a row and the settings of the report: `shared` by all cells, and its own. Early reports have none."""
    said = {**shared, **(cell.get("settings") or {})}
    model = _with_stages(shapes.named(cell["model"]), said)
    check_stages(model)
    chosen = [feature_named(name, cell["engine"], _options(name, cell)) for name in cell["features"]]
    edits = model.tasks == [EDITS]
    source = vision.scaled(model, *_input_size(cell, said)) if edits else (0, 0)
    usual = TOKENS_OF_A_PROMPT[said.get("workload.prompt_set") or "short"]
    words = int(said.get("workload.prompt_tokens") or _said("prompt_tokens", cell["cell"]) or usual)
    prompt = words + picture_tokens(model, source)
    effects = merged(chosen)
    split = model.ar is not None and cell["gpus"] > gpus_needed(chosen)
    return Point(
        model=model,
        engine=cell["engine"],
        device="cuda",
        dtype="bfloat16",
        batch=cell["batch"],
        width=cell["width"],
        height=cell["height"],
        steps=cell["steps"],
        branches=1 if (model.dit is not None and model.dit.distilled) or said.get(GUIDANCE, 2.0) <= 1 else 2,
        text_tokens=GLYPHS if model.ar is not None else prompt,
        prompt_tokens=prompt + TEMPLATE.get(model.family, 0),
        effects=effects,
        ranks=cell["gpus"] - int(split),
        stage_devices=int(split),
        edits=edits,
        source=source,
        features=tuple(cell["features"]),
    )


GUIDANCE = "workload.guidance_scale"


def _with_stages(model: Model, said: Mapping[str, Any]) -> Model:
    """The model with what `said` sets of its AR stage."""
    begin = f"{PREFIX}ar."
    given = {name.removeprefix(begin): value for name, value in said.items() if name.startswith(begin)}
    ar = dataclasses.replace(model.stages.ar, **given)
    return dataclasses.replace(model, stages=dataclasses.replace(model.stages, ar=ar)) if given else model


def _input_size(cell: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[int, int]:
    """Size of the picture to edit, as Workload.input_size has it: without either side, the result's."""
    width, height = (said.get(f"workload.input_{side}") for side in ("width", "height"))
    sized = Workload(task=EDITS, width=cell["width"], height=cell["height"], input_width=width, input_height=height)
    return sized.input_size or (cell["width"], cell["height"])


def _said(name: str, label: str) -> str:
    """The value of `name=value` in a cell's label; "" where it is not varied."""
    found = [word.partition("=")[2] for word in label.split() if word.startswith(f"{name}=")]
    return found[0] if found else ""


def _options(feature: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    """The feature's own options, as a report's settings have them; for an early one, as the label says."""
    begin = f"feature.{feature}."
    settings = cell.get("settings") or {}
    found = {name.removeprefix(begin): value for name, value in settings.items() if name.startswith(begin)}
    said = _said("backend", cell["cell"]) if feature == "attention" else ""
    return {name: value for name, value in found.items() if name != "gpus"} | ({"backend": said} if said else {})


def _as_it_ran(point: Point, did: Executed, random: Mapping[str, Any], stored: Mapping[str, Any]) -> Point:
    """The point with the depth of its weights, skipped blocks, and compiled or not, as the ranks report."""
    model = executed.model_that_ran(point.model, random, stored, did)
    executed.check_size(model, point.effects, did)
    ran = dataclasses.replace(point, model=model)
    return executed.with_skips(executed.with_compiling(ran, did), did)


def _executed(ranks: Sequence[Mapping[str, Any]]) -> Executed:
    return Executed(
        sum(rank["blocks_run"] for rank in ranks),
        sum(rank["blocks_skipped"] for rank in ranks),
        ranks[0]["settings"] if ranks else {},
        tuple(rank.get("counts") or {} for rank in ranks),
        ranks[0].get("dit_parameters") or 0 if ranks else 0,
    )
