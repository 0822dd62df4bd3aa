"""A cell: one fully resolved configuration of a sweep, its keys, and the same cell again or under another load.

Pure. `building` makes cells of what was composed, `plans` puts them into a plan.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from sweep import legacy
from sweep.cached import cached_property
from sweep.config.feature import Feature
from sweep.config.run import RunConfig
from sweep.findings import Finding
from sweep.plan import features as feature_rules
from sweep.plan.rules import OFFLINE
from sweep.plan.typed import typed
from sweep.workload.inputs import Inputs

BASELINE, FEATURE, AA, REPEAT = "baseline", "feature", "aa", "repeat"
"""Roles of a cell. An A/A cell is a baseline measured again, in a fresh engine, after the others. A repeat is a
feature's cell measured again. It has no row of its own: its samples join those of its origin."""

_NOT_IN_NAMES = re.compile(r"[^\w+=.,-]")
"""What `_` replaces in a cell's folder name: all but letters and digits of any script, and a few signs."""


@dataclass(frozen=True)
class Cell:
    """One fully resolved configuration of a sweep."""

    key: str  # content hash of everything that can change its result
    engine_key: str  # hash of what needs an engine restart
    baseline_key: str  # the cell that it is compared with; for a baseline its own key
    label: str  # for the reader: features, batch and everything else that the sweep varies
    role: str
    features: tuple[str, ...]
    gpus: int
    skip: Finding | None  # why it does not run; None when it runs
    config: dict[str, Any]  # RunConfig as plain values
    overrides: tuple[str, ...] = ()  # what the command line or the study set for it
    suffix: str = ""  # the part of the label that is neither features nor batch
    device: str = "cpu"  # cpu or cuda
    repeat: int = 0  # number of the engine start; 0 is the first
    origin: str = ""  # key of the cell that it measures again; for a first start its own
    root: str = ""  # key of the cell whose search added it; "" for cells that were requested
    interleaved: str = ""  # key of the baseline interleaved with it, batch by batch; "" when there is none
    base_key: str = ""  # key of the cell that it adds features to (base=… add=…); "" without a base
    inputs: Inputs | None = None  # prompts and image as they were when it was planned; None in earlier plans

    @cached_property
    def folder(self) -> str:
        """Name of its folder inside the sweep's."""
        text = self.label.replace("A/A", "aa").replace(" ", "-")
        readable = _NOT_IN_NAMES.sub("_", text)
        return f"{readable[:80]}-{self.key[:8]}"

    @cached_property
    def profile(self) -> str:
        """What records its requests: nsys or torch; "" when nothing does."""
        asked = str(self.config.get("profile", "off"))  # plans of earlier versions have none
        return "" if asked == "off" else asked

    @cached_property
    def under_load(self) -> bool:
        """Whether its engine is served over HTTP."""
        return bool(self.config.get("load", {}).get("name", OFFLINE) != OFFLINE)  # plans of earlier versions have none

    @cached_property
    def chosen(self) -> tuple[Feature, ...]:
        """Its features, sorted by name."""
        return feature_rules.parse_features(self.config["feature"])

    @cached_property
    def run_config(self) -> RunConfig:
        """The typed configuration."""
        return typed(self.config, RunConfig, f"configuration of {self.label}")


def at_level(root: Cell, level: float) -> Cell:
    """The same cell under a heavier or lighter load: with so many requests in flight, or so many per second."""
    load = root.run_config.load
    if load.search == "soak":
        changed = dataclasses.replace(load, part=int(level))
    elif load.name == "closed":
        changed = dataclasses.replace(load, max_concurrency=int(level))
    else:
        changed = dataclasses.replace(load, request_rate=level)
    suffix = root.suffix.replace(load.level, changed.level)
    key = hashed({"at": root.key, "level": changed.level})
    return dataclasses.replace(
        root,
        key=key,
        baseline_key=hashed({"at": root.baseline_key, "level": changed.level}),
        base_key=root.base_key and hashed({"at": root.base_key, "level": changed.level}),
        label=f"{root.label.removesuffix(root.suffix)}{suffix}",
        suffix=suffix,
        origin=key,
        root=root.key,
        config={**root.config, "load": dataclasses.asdict(changed)},
    )


def again(cell: Cell, start: int) -> Cell:
    """The same cell, measured again in a fresh engine, its `start`-th further one; for a baseline, an A/A cell."""
    if cell.role == BASELINE:
        label = f"{cell.label}{f' #{start}' if start > 1 else ''} A/A"
    else:
        label = f"{cell.label} start {start + 1}"
    return dataclasses.replace(
        cell,
        key=hashed({"again": cell.key, "start": start}),
        engine_key=hashed({"again": cell.engine_key, "start": start}),
        label=label,
        role=AA if cell.role == BASELINE else REPEAT,
        repeat=start,
        origin=cell.key,
    )


def model_and_engine(cell: Cell) -> tuple[str, str]:
    """What noise is estimated for: a model and an engine, separately offline and under load."""
    return cell.config["model"]["name"], noise_engine(cell.config["engine"]["name"], cell.under_load)


def noise_engine(engine: str, under_load: bool) -> str:
    """How noise names an engine."""
    return f"{engine} under load" if under_load else engine


def to_json(cell: Cell) -> dict[str, Any]:
    """Plain values of a cell without `inputs`, which the plan keeps for all cells."""
    plain = dataclasses.asdict(dataclasses.replace(cell, inputs=None))
    del plain["inputs"]
    return plain


def from_json(data: dict[str, Any], inputs: Inputs | None) -> Cell:
    """Inverse of `to_json`, with what the plan kept."""
    if "beside" in data:  # as plans of sweep 0.1.0 call it
        data = {**{name: value for name, value in data.items() if name != "beside"}, "interleaved": data["beside"]}
    stored = data["skip"]
    skip = legacy.skip(stored) if isinstance(stored, str) else stored and Finding(**stored)
    lists = {name: tuple(data[name]) for name in ("features", "overrides")}
    return Cell(**{**data, **lists, "skip": skip, "inputs": inputs})


def hashed(value: Any) -> str:
    """The key of plain values: 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
