"""The cells of a sweep: their keys, baselines, A/A runs, skips, and groups that share one engine.

Pure: configurations in, a Plan out. Runs nothing, reads no outputs. A Plan round-trips through JSON
(`plan.json`), which tells a launched job what to run.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sweep import legacy
from sweep.cached import cached_property
from sweep.config import TEXT, Feature, RunConfig, Workload
from sweep.engines import registry
from sweep.findings import SKIP, Finding
from sweep.machine.devices import Devices
from sweep.masking import masked_text
from sweep.plan import features as feature_rules
from sweep.plan import fields
from sweep.plan.rules import OFFLINE, check_run
from sweep.plan.typed import typed
from sweep.workload.arrivals import recorded
from sweep.workload.inputs import Inputs

BASELINE, FEATURE, AA, REPEAT = "baseline", "feature", "aa", "repeat"
"""Roles of a cell. An A/A cell is a baseline measured again, in a fresh engine, after the others. A repeat is a
feature's cell measured again. It has no row of its own: its samples join those of its origin."""


KEY_FIELDS = ("name", "device", "dtype", "threads_per_rank")
"""Fields of EngineConfig whose change needs another engine start, whatever the engine."""

NOT_GENERATED = ("name", "prompts", "prompts_column", "input_image", "edits", "checks", "shipped_prompts")
"""Fields of Workload that change nothing of what is generated: where its content is, which has a hash of its own, what
is looked at afterwards, and what `num_prompts` is where it is not said."""

IF_SAID = ("input_width", "input_height")
"""Fields of Workload that are part of a key where they are not None, as they are newer than many stored sweeps."""

NOT_SENT = ("slo", "trace", "attain", "search", "precision", "most", "parts")
"""Fields of Load that change nothing of what is sent: what users were promised, what is measured besides; and a trace,
whose times are in the key."""

NOT_UNDER_LOAD = ("num_prompts", "seeds_per_prompt", "repeats")
"""Fields of Workload that a load has its own number of requests for. `num_prompts` is in what its prompts hash to."""

ONLY_OF_TEXTS = ("input_len", "output_len", "prompt_ids", "temperature")
ONLY_OF_IMAGES = ("prompt_set", "prompt_tokens", "negative_prompt", "width", "height", "steps", "guidance_scale")
"""Fields of Workload that change nothing of the other kind of work."""

_NOT_IN_NAMES = re.compile(r"[^\w+=.,-]")
"""What a cell's folder has `_` for: all but letters and digits of any script, and a few signs."""

CONFLICT = "conflict"
"""Code of a skip: two features exclude each other."""


@dataclass(frozen=True)
class Cell:
    """One fully resolved configuration of a sweep."""

    key: str  # content hash of everything that can change its result
    engine_key: str  # hash of what needs an engine restart
    baseline_key: str  # the cell that it is compared with; for a baseline its own key
    label: str  # for the reader: features, batch and whatever else the sweep varies
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
    root: str = ""  # key of the cell whose search added it; "" for what was asked for
    interleaved: str = ""  # key of the baseline interleaved with it, batch by batch; "" when there is none
    base_key: str = ""  # key of the cell that it adds features to (base=… add=…); "" where that is not asked
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


@dataclass(frozen=True)
class Group:
    """Cells that share one loaded engine; the unit that Hydra launches."""

    number: int
    engine_key: str
    gpus: int
    cells: tuple[str, ...]  # cell keys, in running order


@dataclass(frozen=True)
class Plan:
    """All cells of a sweep and their groups."""

    cells: tuple[Cell, ...]
    groups: tuple[Group, ...]

    def cell(self, key: str) -> Cell:
        """The cell with this key."""
        return self.by_key[key]

    @cached_property
    def by_key(self) -> dict[str, Cell]:
        """Cells by their key."""
        return {cell.key: cell for cell in self.cells}

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said of the prompts, once however many cells it applies to, and of baselines that find no GPU."""
        found = [note.text for cell in self.cells if cell.inputs for note in cell.inputs.notes]
        alone = sum(_lacks_room(cell) for cell in self.cells if cell.baseline_key in self.by_key)
        if alone:
            cells = "1 cell is" if alone == 1 else f"{alone} cells are"
            few = "there are too few GPUs for both engines"
            found.append(f"interleave=true: {cells} measured without an interleaved baseline, because {few}")
        return tuple(dict.fromkeys(found))

    def to_json(self) -> dict[str, Any]:
        """Plain values for plan.json. What cells read from files is there once, with the keys of those cells."""
        shared: dict[Inputs, list[str]] = {}
        for cell in self.cells:
            if cell.inputs:
                shared.setdefault(cell.inputs, []).append(cell.key)
        return {
            "cells": [_cell_to_json(c) for c in self.cells],
            "groups": [dataclasses.asdict(g) for g in self.groups],
            "inputs": [{**dataclasses.asdict(inputs), "cells": keys} for inputs, keys in shared.items()],
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Plan":
        """Inverse of `to_json`."""
        inputs: dict[str, Inputs] = {}
        for told in data.get("inputs", ()):  # plans of earlier versions have none
            shared = Inputs.from_json({name: value for name, value in told.items() if name != "cells"})
            inputs |= dict.fromkeys(told["cells"], shared)
        cells = tuple(_cell_from_json(cell, inputs.get(cell["key"])) for cell in data["cells"])
        groups = tuple(Group(**{**g, "cells": tuple(g["cells"])}) for g in data["groups"])
        return Plan(cells, groups)


def _cell_to_json(cell: Cell) -> dict[str, Any]:
    """Without `inputs`, which the plan keeps for all cells."""
    plain = dataclasses.asdict(dataclasses.replace(cell, inputs=None))
    del plain["inputs"]
    return plain


def _cell_from_json(data: dict[str, Any], inputs: Inputs | None) -> Cell:
    if "beside" in data:  # as plans of sweep 0.1.0 call it
        data = {**{name: value for name, value in data.items() if name != "beside"}, "interleaved": data["beside"]}
    told = data["skip"]
    skip = legacy.skip(told) if isinstance(told, str) else told and Finding(**told)
    lists = {name: tuple(data[name]) for name in ("features", "overrides")}
    return Cell(**{**data, **lists, "skip": skip, "inputs": inputs})


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build_cell(
    config: DictConfig,
    devices: Callable[[RunConfig], Devices],
    content: Callable[[RunConfig], str],
    runnable: Callable[[RunConfig, Devices], Finding | None],
    overrides: Sequence[str] = (),
    suffix: str = "",
    files: Callable[[RunConfig], Mapping[str, str]] = lambda run: {},
    prompts: Callable[[Workload], int] = lambda workload: workload.number_of(0),
    of_features: Callable[[RunConfig], Mapping[str, str]] = lambda run: {},
) -> Cell:
    """One composed configuration as a Cell.

    `devices` returns what the machine has, `content` hashes the prompts and images that the workload names,
    `runnable` returns why this engine or machine cannot run the model (None when it can), `files` returns fingerprints
    of the checkpoint and of other files that the engine reads, by path, `prompts` how many prompts are generated
    where the workload does not say, and `of_features` fingerprints of files that features read, by feature.
    Raises ConfigError. A declared conflict, an unsupported feature or too few devices make a SKIP instead.
    """
    fields.refuse_unknown(config)
    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    fields.refuse_not_finite(dataclasses.asdict(run))
    if run.workload.num_prompts is None:
        run.workload.num_prompts = prompts(run.workload)
    fields.refuse_too_many(run)
    check_run(run)
    run.feature = feature_rules.bodies_for(run.feature, run.engine.name)
    chosen = feature_rules.parse_features(run.feature)
    names = tuple(feature.name for feature in chosen)
    found = devices(run)
    ranks = feature_rules.gpus_needed(chosen)
    engine = registry.kind(run.engine.name)
    need = ranks + engine.stage_devices(run)
    skip = engine.unplaced(run, ranks) or _skip(chosen, run, found, need)
    plain = dataclasses.asdict(run)  # what is resolved stays: OmegaConf would take an escaped ${…} for an interpolation

    engine_part: dict[str, Any] = {
        "engine": {k: plain["engine"][k] for k in (*KEY_FIELDS, *engine.key_fields)},
        "device": found.kind,
        "model": {k: plain["model"][k] for k in ("name", "family", "path", "embedded")},
        "parallel": plain["parallel"]["gpus"],
    }
    if run.model.weights:  # likewise not part of the key of a model without
        engine_part["weights"] = run.model.weights
    if stages := run.model.stages.given():  # nor where they are as the engine has them by default
        engine_part["stages"] = stages
    if read := files(run):  # not part of the key where there are none, as for embedded models
        engine_part["files"] = dict(read)
    if run.profile != "off":
        engine_part["profile"] = run.profile
    if serve := registry.served(run):
        engine_part["serve"] = serve
    if engine.options and not skip:
        engine.options(chosen, ranks)  # refuses two values for one argument
    loaded = run.load.name != OFFLINE
    left_out = NOT_GENERATED + (NOT_UNDER_LOAD if loaded else ())
    left_out += ONLY_OF_IMAGES if run.workload.task == TEXT else ONLY_OF_TEXTS
    work_part = {
        "workload": {
            k: v for k, v in plain["workload"].items() if k not in left_out and (v is not None or k not in IF_SAID)
        },
        "content": content(run),
        "batch": run.batch,
        "seed": run.seed,
        "warmup": run.engine.warmup,
    }
    if loaded:  # what was promised to users changes nothing of what is measured
        work_part["load"] = {k: v for k, v in plain["load"].items() if k not in NOT_SENT}
        work_part["arrivals"] = recorded(Path(run.load.trace)) if run.load.trace else []
        work_part["mask"] = (
            hashlib.sha256(Path(run.load.mix.mask).read_bytes()).hexdigest() if run.load.mix.mask else ""
        )
    arguments = feature_rules.engine_arguments(chosen, run.engine.name)
    own = {"features": arguments, **({"feature_files": dict(read)} if (read := of_features(run)) else {})}
    engine_key = _hash({**engine_part, **own})
    key = _hash({**engine_part, **work_part, **own})
    baseline_key = _hash({**engine_part, **work_part, "features": {}})

    if loaded and run.load.level not in suffix:
        suffix = f"{suffix} {run.load.level}".strip()
    label = f"{feature_rules.combination_name(names) or BASELINE} b{run.batch}"
    label += f" {suffix}" if suffix else ""
    return Cell(
        key=key,
        engine_key=engine_key,
        baseline_key=baseline_key,
        label=label,
        role=FEATURE if names else BASELINE,
        features=names,
        gpus=need,
        skip=skip or runnable(run, found),
        config={**plain, "group": None},
        overrides=tuple(sorted(masked_text(o) for o in overrides if not o.startswith("hydra"))),
        suffix=suffix,
        device=found.kind,
        origin=key,
        interleaved="" if not names or not _interleaved(run, found, need) else baseline_key,
    )


def at_level(root: Cell, level: float) -> Cell:
    """The same cell under a heavier or lighter load: with so many requests in flight, or so many a second."""
    load = root.run_config.load
    if load.search == "soak":
        changed = dataclasses.replace(load, part=int(level))
    elif load.name == "closed":
        changed = dataclasses.replace(load, max_concurrency=int(level))
    else:
        changed = dataclasses.replace(load, request_rate=level)
    suffix = root.suffix.replace(load.level, changed.level)
    key = _hash({"at": root.key, "level": changed.level})
    return dataclasses.replace(
        root,
        key=key,
        baseline_key=_hash({"at": root.baseline_key, "level": changed.level}),
        base_key=root.base_key and _hash({"at": root.base_key, "level": changed.level}),
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
        key=_hash({"again": cell.key, "start": start}),
        engine_key=_hash({"again": cell.engine_key, "start": start}),
        label=label,
        role=AA if cell.role == BASELINE else REPEAT,
        repeat=start,
        origin=cell.key,
    )


def _interleaved(run: RunConfig, found: Devices, need: int) -> bool:
    """Whether the baseline is interleaved with a cell that needs `need` devices.

    On a CPU, an engine that waits costs only memory. On GPUs, each of the two engines needs its own devices.
    """
    if not _may_interleave(run):
        return False
    if found.kind == "cpu":
        return True
    own = feature_rules.gpus_needed(()) + registry.kind(run.engine.name).stage_devices(run)
    return run.interleave == "true" and need + own <= found.count


def _may_interleave(run: RunConfig) -> bool:
    """Whether the baseline is interleaved with such a cell if there is room for it."""
    if run.profile != "off" or run.load.name != OFFLINE:
        return False  # recording slows the cell down, so its speed is not compared; a load is a whole by itself
    return run.interleave != "false" and registry.kind(run.engine.name).generates and run.baselines


def _lacks_room(cell: Cell) -> bool:
    """Whether a cell was to be interleaved with its baseline and is not, for lack of GPUs."""
    if cell.role != FEATURE or cell.skip or cell.interleaved or cell.device != "cuda":
        return False
    return cell.run_config.interleave == "true" and _may_interleave(cell.run_config)


def unusable(chosen: Sequence[Feature], run: RunConfig) -> Finding | None:
    """Why no machine runs these features together: a conflict, or an engine that lacks one of them or the model."""
    if conflict := feature_rules.find_conflict(chosen):
        return Finding(CONFLICT, f"{conflict[0]} conflicts with {conflict[1]}", SKIP, short="conflict")
    return feature_rules.unsupported(chosen, run.engine.name, run.model)


def _skip(chosen: Sequence[Any], run: RunConfig, found: Devices, need: int) -> Finding | None:
    if reason := unusable(chosen, run):
        return reason
    if found.kind == "cuda" and found.count == 0:
        return None  # `runnable` gives a better reason
    short, asked = f"needs {found.describe(need)}", f"requires {found.describe(need)}"
    if need > found.count:
        return Finding("too_few_devices", f"{asked}, only {found.count} available", SKIP, short)
    if run.parallel.gpus is not None and need > run.parallel.gpus:
        why = f"{asked}, but parallel={run.parallel.name} allows only {run.parallel.gpus}"
        return Finding("too_few_devices_allowed", why, SKIP, short)
    return None


def build_plan(cells: Sequence[Cell]) -> Plan:
    """Deduplicate, order and group cells. The result does not depend on the order in which the cells were named.

    Groups of baselines run first, then features by number and name, then A/A runs, then further engine starts; inside
    a group cells are ordered by label. On GPUs small groups come before large ones, so that a launcher that runs
    several at once fills the machine. A cell whose baseline is not in the plan runs alone.
    """
    unique = {cell.key: cell for cell in sorted(cells, key=_cell_order)}
    ordered = tuple(
        cell if not cell.interleaved or cell.interleaved in unique else dataclasses.replace(cell, interleaved="")
        for cell in unique.values()
    )
    by_engine: dict[str, list[Cell]] = {}
    for cell in ordered:
        if not cell.skip:
            by_engine.setdefault(cell.engine_key, []).append(cell)
    devices = {key: _devices_of(members, unique) for key, members in by_engine.items()}

    def order(members: Sequence[Cell]) -> tuple[int, int, int]:
        """Sort key: groups of one kind and size keep the order of their cells."""
        later, role = _cell_order(members[0])[:2]
        return later, role, devices[members[0].engine_key] if members[0].device == "cuda" else 0

    groups = tuple(
        Group(number, members[0].engine_key, devices[members[0].engine_key], tuple(cell.key for cell in members))
        for number, members in enumerate(sorted(by_engine.values(), key=order))
    )
    return Plan(ordered, groups)


def _devices_of(members: Sequence[Cell], cells: Mapping[str, Cell]) -> int:
    """Devices that a group leases: those of its cells, and on GPUs those of the interleaved baseline."""
    baselines = [cells[cell.interleaved].gpus for cell in members if cell.interleaved and members[0].device == "cuda"]
    return members[0].gpus + max(baselines, default=0)


def _cell_order(cell: Cell) -> tuple[Any, ...]:
    role = (BASELINE, FEATURE, AA, REPEAT).index(cell.role)
    config = cell.config
    name, features = config["model"]["name"], (len(cell.features), *cell.features)
    later = cell.repeat - (cell.role == AA)  # the first A/A belongs to the first starts
    load = config["load"] if cell.under_load else {}
    level = load.get("max_concurrency") or 0, load.get("request_rate") or 0.0, load.get("part", 0)
    return (later, role, name, features, config["batch"], level, cell.label, cell.key)


def repeats_of_baselines(cells: Sequence[Cell]) -> list[Cell]:
    """The A/A cells of a sweep: for each model and engine, `aa` further runs of its first baseline."""
    if not any(cell.role == FEATURE for cell in cells):
        return []
    firsts: dict[tuple[str, str], Cell] = {}
    for cell in sorted(cells, key=lambda c: (c.config["batch"], c.label)):
        if cell.role == BASELINE and not cell.skip and not cell.profile:
            firsts.setdefault(model_and_engine(cell), cell)
    made = []
    for cell in firsts.values():
        family = [c for c in cells if model_and_engine(c) == model_and_engine(cell)]
        interleaved = any(c.interleaved for c in family)
        repeated = [again(cell, start) for start in range(1, cell.config["aa"] + 1)]
        made += [dataclasses.replace(one, interleaved=cell.key if interleaved else "") for one in repeated]
    return made


def model_and_engine(cell: Cell) -> tuple[str, str]:
    """What noise is estimated for: a model and an engine, offline and under load apart."""
    return cell.config["model"]["name"], noise_engine(cell.config["engine"]["name"], cell.under_load)


def noise_engine(engine: str, under_load: bool) -> str:
    """How noise names an engine."""
    return f"{engine} under load" if under_load else engine


def pairs_and_more(choices: Sequence[tuple[str, ...]], size: int) -> list[tuple[str, ...]]:
    """The choices, then all combinations of up to `size` of the single features among them."""
    import itertools

    singles = sorted({choice[0] for choice in choices if len(choice) == 1})
    result = list(dict.fromkeys(tuple(sorted(choice)) for choice in choices))
    for count in range(2, min(size, len(singles)) + 1):
        result += [combo for combo in itertools.combinations(singles, count) if combo not in result]
    return result


def outdated(earlier: Plan, plan: Plan) -> list[Cell]:
    """Cells of an earlier plan in the same folder that this plan measures anew, because files that they read changed.

    Such a cell has the configuration of a new one, as far as both have its fields, and another key: its checkpoint or
    prompts had other contents. Its further starts go with it.
    """
    by_name: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in plan.cells:
        by_name.setdefault((cell.label, cell.role, cell.repeat), []).append(cell)
    others = [cell for cell in earlier.cells if cell.key not in plan.by_key]
    found = [
        cell
        for cell in others
        if any(
            cell.device == new.device and _alike(cell.config, new.config)
            for new in by_name.get((cell.label, cell.role, cell.repeat), ())
        )
    ]
    gone = {cell.key for cell in found}
    return found + [cell for cell in others if cell.key not in gone and cell.origin in gone]


def _alike(one: Any, other: Any, depth: int = 2) -> bool:
    """Whether two configurations are equal, apart from sections and fields that only one of them has.

    Below those (`depth`), such as within engine.args, everything counts.
    """
    if depth and isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_alike(one[key], other[key], depth - 1) for key in one.keys() & other.keys())
    return bool(one == other)
