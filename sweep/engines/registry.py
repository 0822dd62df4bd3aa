"""What the rest of the project knows of an engine: one EngineKind each, in the `kind.py` of the engine's folder.

Nothing else branches on an engine's name. Import-light: planning and help read it; the engine itself is named as
"module:Class" and imported in its own process alone. Adding an engine: CONTRIBUTING.md.
"""

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.config import ConfigError, Feature, RunConfig, require
from sweep.findings import SKIP, Finding

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Preflight:
    """What an engine says of a cell before anything is loaded."""

    skip: Finding | None = None  # why it cannot run the cell, on whatever machine
    warnings: tuple[str, ...] = ()


def _nothing_to_add(run: RunConfig, features: Sequence[Feature]) -> Preflight:
    return Preflight()


@dataclass(frozen=True)
class EngineKind:
    """What an engine needs and can do. `engine` is "module:Class" of what implements `engines.base.Engine`."""

    engine: str
    packages: tuple[str, ...] = ()  # imported in its process; looked for, not imported, before anything starts
    distributions: tuple[str, ...] = ()  # whose versions a sweep's manifest keeps
    families: tuple[str, ...] | None = None  # of models that it has an adapter for; None: it says itself, or any
    index: tuple[str, ...] = ("model_index.json",)  # one of these is in a checkpoint that it loads
    preload: Mapping[str, str] = field(default_factory=dict)  # device -> module that its processes are forked from
    key_fields: tuple[str, ...] = ()  # fields of EngineConfig, besides every engine's, that take another engine start
    options: Callable[[Sequence[Feature], int], dict[str, Any]] | None = None
    """(features, ranks) -> what the features make of its own options, over which engine.args goes; None: it has none.
    Raises ConfigError where two features contradict each other."""

    preflight: Callable[[RunConfig, Sequence[Feature]], Preflight] = _nothing_to_add
    """Asked once the packages are there. Raises ConfigError for bad input."""

    lacks: Callable[[RunConfig], Finding | None] = lambda run: None
    """What of a model or task it lacks, on whatever machine."""

    stage_devices: Callable[[RunConfig], int] = lambda run: 0
    """Devices beyond those of the features, for stages of their own."""

    max_batch: Callable[[RunConfig], int | None] = lambda run: None
    """Most requests of a batch, and engine.max_num_seqs raises it; None: any number."""

    torch_profile: Callable[[RunConfig], str] | None = None
    """Why profile=torch cannot record it as configured, or ""; None: it records nothing of it."""

    generates: bool = True  # False: it only measures the framework, with every model, feature and setting
    embedded: bool = True  # it runs the embedded models
    on_cpu: bool = False  # it runs real models on a CPU too, if slowly
    control: bool = False  # the engine that others are compared with


def kind(name: str) -> EngineKind:
    """The engine of this name. Raises ConfigError."""
    found = find(name)
    if found is None:
        raise ConfigError(f"engine.name={name}: no such engine; choose from {', '.join(names())}")
    return found


@functools.cache
def find(name: str) -> EngineKind | None:
    """The same; None for a name that this version does not know, as a stored sweep may have."""
    if name not in names():
        return None
    found: EngineKind = importlib.import_module(f"sweep.engines.{name}.kind").KIND
    return found


@functools.cache
def names() -> tuple[str, ...]:
    """All engines, sorted."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/kind.py")))


@functools.cache
def control() -> str:
    """Name of the engine that others are compared with."""
    return next(name for name in names() if kind(name).control)


def check(run: RunConfig) -> None:
    """See that the settings of the engine fit it. Raises ConfigError with one line for people."""
    name, engine = run.engine.name, kind(run.engine.name)
    require(
        not run.engine.args or engine.options is not None,
        f"engine.args={run.engine.args}: {_who('options')} further arguments, not {name}",
    )
    most = engine.max_batch(run)
    require(
        most is None or run.batch <= most,
        f"batch={run.batch}: {name} runs at most {most} requests as one batch; "
        f"raise it with engine.max_num_seqs={run.batch}",
    )
    if run.profile == "torch":
        require(
            engine.torch_profile is not None,
            f"profile=torch is not for engine={name}; profile=nsys records every engine",
        )
        wrong = engine.torch_profile(run) if engine.torch_profile else ""
        require(not wrong, wrong)


def _who(field_name: str) -> str:
    """`only engine vllm_omni takes`: engines that have this."""
    having = [name for name in names() if getattr(kind(name), field_name) is not None]
    return f"only engine {' and '.join(having)} {'takes' if len(having) == 1 else 'take'}"


def no_adapter(engine: str, run: RunConfig) -> Finding:
    """The engine cannot run models of this family."""
    why = f"engine {engine} has no adapter for the family '{run.model.family}' of {run.model.name}"
    return Finding("model_not_in_engine", why, SKIP)
