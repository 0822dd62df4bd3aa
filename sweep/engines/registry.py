"""What the rest of the project knows about an engine: one EngineKind each, in the `kind.py` of the engine's folder.

Nothing else branches on an engine's name. Imports little, because planning and help read it. The engine itself is given
as "module:Class" and imported only in its own process. Adding an engine: CONTRIBUTING.md.
"""

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.config.feature import Feature
from sweep.config.model import TEXT
from sweep.config.run import RunConfig
from sweep.config.stages import PREFIX, SAMPLING
from sweep.findings import SKIP, Finding
from sweep.refusals import ConfigError, require

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Preflight:
    """What an engine reports about a cell before anything is loaded."""

    skip: Finding | None = None  # why it cannot run the cell on any machine
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EditInputs:
    """What a model takes to edit in one request."""

    most: int | None = 1  # pictures; None: any number
    mask: bool = False  # a picture that says where it may change


def _nothing_to_add(run: RunConfig, features: Sequence[Feature]) -> Preflight:
    return Preflight()


@dataclass(frozen=True)
class EngineKind:
    """What an engine needs and can do. `engine` is "module:Class" of what implements `engines.protocol.Engine`."""

    engine: str
    packages: tuple[str, ...] = ()  # imported in its process; before anything starts, only their presence is checked
    distributions: tuple[str, ...] = ()  # whose versions the manifest of a sweep records
    families: tuple[str, ...] | None = None  # of models that it has an adapter for; None: any, or `lacks` decides
    index: tuple[str, ...] = ("model_index.json",)  # a checkpoint that it loads has one of these files
    preload: Mapping[str, str] = field(default_factory=dict)  # device -> module that its processes are forked from
    key_fields: tuple[str, ...] = ()  # further fields of EngineConfig whose change needs another engine start
    options: Callable[[Sequence[Feature], int], dict[str, Any]] | None = None
    """(features, ranks) -> its own options as the features set them, which engine.args overrides; None: it has none.
    Raises ConfigError when two features contradict each other."""

    preflight: Callable[[RunConfig, Sequence[Feature]], Preflight] = _nothing_to_add
    """Called once the packages are found. Raises ConfigError for bad input."""

    lacks: Callable[[RunConfig], Finding | None] = lambda run: None
    """What it lacks for a model or task, on any machine."""

    edit_inputs: Callable[[RunConfig], EditInputs] = lambda run: EditInputs()
    """What its model takes as input to edit, if it edits at all."""

    prompt_tokens: Mapping[str, int] = field(default_factory=dict)
    """By model family, how many tokens of a prompt it reads; families that are not there have no limit."""

    stage_devices: Callable[[RunConfig], int] = lambda run: 0
    """Devices beyond those of the features, for stages with devices of their own."""

    unplaced: Callable[[RunConfig, int], Finding | None] = lambda run, ranks: None
    """Why it cannot place the model's stages as configured when features need this many devices."""

    stage_fields: tuple[str, ...] | None = ()
    """Fields of model.stages that it takes, as `ar.temperature`; None: all."""

    max_batch: Callable[[RunConfig], int | None] = lambda run: None
    """Largest batch, which engine.max_num_seqs raises; None: any size."""

    torch_profile: Callable[[RunConfig], str] | None = None
    """Why profile=torch cannot record it as configured, or ""; None: it never can."""

    serves: bool = False  # it can be served over HTTP, which a load needs
    server: str = ""  # "module:Class" of the engine under load, if it differs from the one above
    serve: Callable[[RunConfig], dict[str, Any]] = lambda run: {}
    """How that one is started for a load; any difference needs another start."""

    request_fields: Mapping[str, Any] = field(default_factory=dict)  # that its server takes in addition to OpenAI's
    guidance: Callable[[str, float], float] = lambda family, scale: scale
    """(family, guidance_scale) -> what its server is sent as guidance_scale."""

    attaches: bool = False  # it is an already running server: what it runs is neither chosen nor known here
    generates: bool = True  # False: it only measures the framework, and accepts every model, feature and setting
    embedded: bool = True  # it runs the embedded models
    on_cpu: bool = False  # it also runs real models on a CPU, slowly
    control: bool = False  # the engine that others are compared with


def kind(name: str) -> EngineKind:
    """The engine of this name. Raises ConfigError."""
    found = find(name)
    if found is None:
        raise ConfigError(f"engine.name={name}: no such engine; choose from {', '.join(names())}")
    return found


@functools.cache
def find(name: str) -> EngineKind | None:
    """The same; None for a name that this version does not know, which a stored sweep may have."""
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


def served(run: RunConfig) -> dict[str, Any]:
    """How the engine is started for the cell's load; {} offline, and where the same engine does both."""
    chosen = kind(run.engine.name)
    return chosen.serve(run) if chosen.server and run.load.name != "offline" else {}


def check(run: RunConfig) -> None:
    """Check that the settings suit the engine. Raises ConfigError with one line for the user."""
    name, engine = run.engine.name, kind(run.engine.name)
    require(
        not run.engine.args or engine.options is not None,
        f"engine.args={run.engine.args}: engine {name} takes no further arguments; {_takers()} them",
    )
    _check_stages(run, engine)
    most = engine.max_batch(run)
    require(
        most is None or run.batch <= most,
        f"batch={run.batch}: {name} runs at most {most} requests as one batch; "
        f"raise the limit with engine.max_num_seqs={run.batch}",
    )
    if run.load.name != "offline":
        serving = [other for other in names() if kind(other).serves]
        require(engine.serves, f"load={run.load.name}: engine {name} cannot be served yet; {' and '.join(serving)} can")
        require(run.profile == "off", f"profile={run.profile} with load={run.load.name}: profile the cell offline")
    if run.profile == "torch":
        require(
            engine.torch_profile is not None,
            f"profile=torch does not support engine={name}; profile=nsys records every engine",
        )
        wrong = engine.torch_profile(run) if engine.torch_profile else ""
        require(not wrong, wrong)


def _check_stages(run: RunConfig, engine: EngineKind) -> None:
    """Check that the engine has the options set in model.stages."""
    name, model = run.engine.name, run.model
    for field_name, value in model.stages.fields().items():
        asked = f"{field_name}={str(value).lower() if isinstance(value, bool) else value}"
        require(model.ar is not None, f"{asked}: {model.name} has no stages of its own (no AR stage before its DiT)")
        require(not engine.attaches, f"{asked}: the server at engine.url was started with stages of its own")
        short, takes = field_name.removeprefix(PREFIX), engine.stage_fields
        some = f"of model.stages only {', '.join(takes)}" if takes else "no fields of model.stages"
        require(
            takes is None or short in takes or not engine.generates,
            f"{asked}: engine {name} runs all stages in one process and takes {some}",
        )
        texts = run.workload.task == TEXT and short.removeprefix("ar.") in SAMPLING
        require(not texts, f"{asked}: is how an image's tokens are drawn; texts have workload.temperature")


def _takers() -> str:
    """`only vllm_omni takes`: engines that have options."""
    having = [name for name in names() if kind(name).options is not None]
    return f"only {' and '.join(having)} {'takes' if len(having) == 1 else 'take'}"


def no_adapter(engine: str, run: RunConfig) -> Finding:
    """The engine cannot run models of this family."""
    why = f"engine {engine} has no adapter for {run.model.name} (model family '{run.model.family}')"
    return Finding("model_not_in_engine", why, SKIP)


def long_prompt(run: RunConfig) -> Finding | None:
    """The engine reads fewer tokens of a prompt than workload.prompt_tokens asks for."""
    engine, model, asked = run.engine.name, run.model, run.workload.prompt_tokens
    most = kind(engine).prompt_tokens.get(model.family)
    if most is None or asked is None or asked <= most:
        return None
    why = f"engine {engine} reads at most {most:,} tokens of a prompt of {model.name}"
    return Finding("prompt_too_long", f"workload.prompt_tokens={asked}: {why}", SKIP, short="prompt too long")
