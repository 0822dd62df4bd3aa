"""What a cell was measured with, in the names of the configuration, as far as it can change a result.

These are the fields that a cell's key hashes (`cells.build_cell`), as plan.json has them: with secrets masked, and
without the contents of checkpoints, traces and masks, which only the key covers. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweep.config.model import TEXT
from sweep.engines import registry
from sweep.plan.building import (
    IF_SAID,
    KEY_FIELDS,
    NOT_GENERATED,
    NOT_SENT,
    NOT_UNDER_LOAD,
    ONLY_OF_IMAGES,
    ONLY_OF_TEXTS,
)
from sweep.plan.cells import Cell

FEATURES, PROMPTS, DEVICE = "features", "workload.content", "device"
"""Settings that are not fields: the names of a cell's features, a hash of its prompts and images, cpu or cuda."""

Settings = dict[str, Any]


def settings_of(cell: Cell) -> Settings:
    """Each setting by its name, such as `engine.args.enforce_eager` or `feature.teacache.rel_l1_thresh`."""
    config = cell.config
    engine, work, model = config["engine"], config["workload"], config["model"]
    kind = registry.find(engine["name"])
    of_engine = (*KEY_FIELDS, "warmup", *(kind.key_fields if kind else ("args",)))
    left_out = NOT_GENERATED + (NOT_UNDER_LOAD if cell.under_load else ())
    left_out += ONLY_OF_IMAGES if work.get("task") == TEXT else ONLY_OF_TEXTS
    nested = {
        "engine": {name: engine.get(name) for name in of_engine},
        "model": {name: model.get(name) for name in ("name", "family", "path", "embedded", "weights")}
        | ({"stages": stages} if (stages := _given(model.get("stages"))) else {}),
        "parallel": {"gpus": config["parallel"].get("gpus")},
        "workload": {
            name: value
            for name, value in work.items()
            if name not in left_out and (value is not None or name not in IF_SAID)
        },
        "load": {k: v for k, v in config["load"].items() if k not in NOT_SENT} if cell.under_load else {},
        "feature": {one.name: {"gpus": one.gpus, **one.options} for one in cell.chosen},
    }
    plain = {DEVICE: cell.device, "batch": config["batch"], "seed": config["seed"], "profile": cell.profile or "off"}
    plain[FEATURES] = "+".join(cell.features)
    if cell.inputs:
        plain[PROMPTS] = cell.inputs.content
    return plain | dict(_flat(nested, ""))


def _given(values: Any) -> Any:
    """Values of a nested mapping except None; {} for a plan from before there were any."""
    if not isinstance(values, Mapping):
        return values or {}
    nested = {name: _given(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    return {name: value for name, value in nested.items() if value not in (None, {})}


def shared(cells: Sequence[Settings]) -> Settings:
    """The settings that all cells have alike."""
    if not cells:
        return {}
    first, *others = cells
    return {name: value for name, value in first.items() if all(_has(one, name, value) for one in others)}


def _has(one: Settings, name: str, value: Any) -> bool:
    return name in one and one[name] == value and type(one[name]) is type(value)


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
