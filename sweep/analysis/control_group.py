"""The control group: how an engine compares with the native diffusers pipeline on the same work.

`speedup` is always against a baseline of the same engine, so it does not compare engines. This module pairs cells that
agree in everything but the engine. Pure: it takes measurements and a function that compares the images of two cells,
reads nothing, and assigns no status.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from profiling.phases import EXCLUSIVE_PHASES, OTHER
from sweep.analysis import engine_starts, paired
from sweep.analysis.engine_starts import Floor, Measured
from sweep.analysis.image_metrics import ImageDifference
from sweep.config.engine import resolved_dtype
from sweep.engines import registry
from sweep.findings import LOST
from sweep.plan.cells import BASELINE, FEATURE, Cell, model_and_engine
from sweep.plan.plans import Plan

CONTROL = registry.control()
"""The engine that the others are compared with."""

PHASES = ("request", *EXCLUSIVE_PHASES, "dit_forward", OTHER)

Row = Mapping[str, Any]
"""A cell's row of the summary."""

CompareImages = Callable[[Measured, Measured], ImageDifference | None]
"""Differences between the images of two cells; None when neither stored one. Raises ValueError or OSError."""


@dataclass(frozen=True)
class Side:
    """What was measured for one of the two cells; None for unknown values."""

    key: str
    label: str
    engine: str
    latency_mean_s: float | None = None  # seconds, of one batch
    peak_memory_gb: float | None = None  # GB (10^9 bytes)
    energy_j_per_image: float | None = None  # joules
    load_s: float | None = None  # seconds until the engine could take requests
    phases_ms: Mapping[str, float] = field(default_factory=dict)  # milliseconds of one batch, by phase (PHASES)


@dataclass(frozen=True)
class Comparison:
    """A cell against the control: same model, features, workload, batch, seed and size, another engine."""

    name: str  # the cell's label without its engine
    model: str
    cell: Side
    control: Side
    ratio: paired.Ratio  # latency of the control ÷ the cell's, above 1: the cell is faster
    images: ImageDifference | None = None
    images_problem: str = ""  # why the images could not be compared although they exist
    doubts: tuple[str, ...] = ()  # why the two may not be comparable, one sentence each


@dataclass(frozen=True)
class Missing:
    """A pair that was planned but has no numbers on one side or both."""

    name: str
    model: str
    cell: Side
    control: Side
    reason: str


@dataclass(frozen=True)
class ControlGroup:
    """All comparisons of a sweep, in its plan's order; empty when no cell has a control."""

    compared: tuple[Comparison, ...] = ()
    missing: tuple[Missing, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.compared or self.missing)


def compare(
    plan: Plan,
    rows: Sequence[Row],
    measured: Mapping[str, Measured],
    floors: Mapping[tuple[str, str], Floor],
    compare_images: CompareImages,
) -> ControlGroup:
    """Compare every cell of another engine with its control. `measured` by cell key, `floors` by model and engine."""
    pairs = match(plan.cells)
    if not pairs:
        return ControlGroup()
    by_key = {str(row["cell_key"]): row for row in rows}
    baselines = engine_starts.baselines(measured)
    compared: list[Comparison] = []
    missing: list[Missing] = []
    for both in pairs:
        cell, control = both
        name, model = name_of(cell), str(cell.config["model"]["name"])
        sides = _side(cell, by_key[cell.key]), _side(control, by_key[control.key])
        found = tuple(_finished(one, measured) for one in both)
        mine, theirs = found
        if mine is None or theirs is None:
            reasons = [_unfinished(by_key[one.key]) for one, has in zip(both, found, strict=True) if has is None]
            missing.append(Missing(name, model, *sides, "; ".join(reasons)))
            continue
        if mine.results[0].prompts != theirs.results[0].prompts:
            missing.append(Missing(name, model, *sides, "the two cells have different prompts"))
            continue
        ratio = paired.compare(
            _starts(theirs, baselines),
            _starts(mine, baselines),
            floors.get(model_and_engine(control), Floor()).alone,
            floors.get(model_and_engine(cell), Floor()).alone,
        )
        if ratio.ratio is None:
            missing.append(Missing(name, model, *sides, "no batch was measured on both engines"))
            continue
        images, problem = _images(mine, theirs, compare_images)
        doubts = _doubts(cell, control, by_key)
        compared.append(Comparison(name, model, *sides, ratio, images, problem, doubts))
    return ControlGroup(tuple(compared), tuple(missing))


def match(cells: Iterable[Cell]) -> list[tuple[Cell, Cell]]:
    """(cell, its control), in order. A/A cells and repeats have none: their samples count with the cells they repeat.
    Profiled cells are not compared.

    Of several controls that agree in all but the engine, it takes the one whose engine settings agree most.
    """
    firsts = [cell for cell in cells if cell.role in (BASELINE, FEATURE) and not cell.profile]
    others = [cell for cell in firsts if _engine(cell) != CONTROL]
    if not others or len(others) == len(firsts):
        return []
    controls: dict[str, list[Cell]] = {}
    for cell in firsts:
        if _engine(cell) == CONTROL:
            controls.setdefault(_all_but_engine(cell), []).append(cell)
    pairs = []
    for cell in others:
        found = controls.get(_all_but_engine(cell), ())
        if found:
            same = _settings(cell)
            pairs.append((cell, max(found, key=lambda one: sum(same[name] == v for name, v in _settings(one).items()))))
    return pairs


def name_of(cell: Cell) -> str:
    """A cell's label without the engine: the common name of both cells of a pair."""
    return " ".join(word for word in cell.label.split() if not word.startswith("engine="))


def _engine(cell: Cell) -> str:
    return str(cell.config["engine"]["name"])


def _all_but_engine(cell: Cell) -> str:
    """What has to be the same: model, features with their options, workload with size and steps, batch, seed."""
    config = cell.config
    names = ("model", "feature", "workload", "batch", "seed")
    return json.dumps([*(config[name] for name in names), config["parallel"]["gpus"]], sort_keys=True, default=str)


def _settings(cell: Cell) -> dict[str, object]:
    """Engine settings that can change what is measured, as resolved."""
    engine = cell.config["engine"]
    return {
        "device": cell.device,
        "dtype": resolved_dtype(engine["dtype"], cell.device),
        "devices": cell.gpus,
        "threads per rank": engine["threads_per_rank"] if cell.device == "cpu" else None,
    }


def _finished(cell: Cell, measured: Mapping[str, Measured]) -> Measured | None:
    """The measurements of a cell whose own start finished."""
    found = measured.get(cell.key)
    return found if found is not None and found.results[0].key == cell.key else None


def _unfinished(row: Row) -> str:
    return f"{row['engine']}: {row['status']}, {row['reason']}"


def _starts(one: Measured, baselines: Mapping[str, Sequence[Measured]]) -> list[paired.Start]:
    """All starts of a cell; for a baseline including its A/A runs."""
    if one.cell.role == BASELINE:
        return [start for each in baselines[one.cell.origin] for start in each.starts]
    return one.starts


def _side(cell: Cell, row: Row) -> Side:
    phases = {name: row[f"{name}_ms"] for name in PHASES if row.get(f"{name}_ms") is not None}
    return Side(
        key=cell.key,
        label=cell.label,
        engine=_engine(cell),
        latency_mean_s=row.get("latency_mean_s"),
        peak_memory_gb=row.get("peak_memory_gb"),
        energy_j_per_image=row.get("energy_j_per_image"),
        load_s=row.get("load_s"),
        phases_ms=phases,
    )


def _images(mine: Measured, theirs: Measured, compare_images: CompareImages) -> tuple[ImageDifference | None, str]:
    try:
        return compare_images(mine, theirs), ""
    except (ValueError, OSError) as error:
        return None, str(error)


def _doubts(cell: Cell, control: Cell, rows: Mapping[str, Row]) -> tuple[str, ...]:
    """Settings other than the name in which the engines differ, and doubts and failures of either row."""
    said = [
        f"{name}: {value} here, {other} on {CONTROL}"
        for (name, value), other in zip(_settings(cell).items(), _settings(control).values(), strict=True)
        if value is not None and other is not None and value != other
    ]
    for row in (rows[cell.key], rows[control.key]):
        if row["status"] in LOST:
            said.append(_unfinished(row))
        if row.get("invalid_reason"):
            said.append(f"{row['engine']}: {row['invalid_reason']}")
    return tuple(said)
