"""A composed configuration as a cell: what its keys depend on, which devices it needs, and why it is skipped. Pure."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sweep.config.feature import Feature
from sweep.config.model import TEXT
from sweep.config.run import RunConfig
from sweep.config.workload import Workload
from sweep.engines import registry
from sweep.findings import SKIP, Finding
from sweep.machine.devices import Devices
from sweep.masking import masked_text
from sweep.plan import features as feature_rules
from sweep.plan import fields
from sweep.plan.cells import BASELINE, FEATURE, Cell, hashed
from sweep.plan.interleaving import is_interleaved
from sweep.plan.rules import OFFLINE, check_run
from sweep.workload.arrivals import recorded

KEY_FIELDS = ("name", "device", "dtype", "threads_per_rank")
"""Fields of EngineConfig whose change needs another engine start with any engine."""

NOT_GENERATED = ("name", "prompts", "prompts_column", "input_image", "edits", "checks", "shipped_prompts")
"""Fields of Workload that do not change what is generated: where its content is (which has its own hash), what is
checked afterwards, and the default of `num_prompts`."""

IF_SAID = ("input_width", "input_height")
"""Fields of Workload that are part of a key where they are not None, as they are newer than many stored sweeps."""

NOT_SENT = ("slo", "trace", "attain", "search", "precision", "most", "parts")
"""Fields of Load that do not change what is sent: the SLO, what else is measured, and a trace, whose times are in the
key."""

NOT_UNDER_LOAD = ("num_prompts", "seeds_per_prompt", "repeats")
"""Fields of Workload that a load's own number of requests replaces. The hash of its prompts covers `num_prompts`."""

ONLY_OF_TEXTS = ("input_len", "output_len", "prompt_ids", "temperature")

ONLY_OF_IMAGES = ("prompt_set", "prompt_tokens", "negative_prompt", "width", "height", "steps", "guidance_scale")
"""Fields of Workload that do not affect the other kind of work."""

CONFLICT = "conflict"
"""Code of a skip: two features exclude each other."""


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
    plain = dataclasses.asdict(run)  # keeps resolved values: OmegaConf would read an escaped ${…} as an interpolation

    engine_part: dict[str, Any] = {
        "engine": {k: plain["engine"][k] for k in (*KEY_FIELDS, *engine.key_fields)},
        "device": found.kind,
        "model": {k: plain["model"][k] for k in ("name", "family", "path", "embedded")},
        "parallel": plain["parallel"]["gpus"],
    }
    if run.model.weights:  # likewise not part of the key of a model without weights
        engine_part["weights"] = run.model.weights
    if stages := run.model.stages.given():  # nor where stages have the engine's defaults
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
    if loaded:  # an SLO does not change what is measured
        work_part["load"] = {k: v for k, v in plain["load"].items() if k not in NOT_SENT}
        work_part["arrivals"] = recorded(Path(run.load.trace)) if run.load.trace else []
        work_part["mask"] = (
            hashlib.sha256(Path(run.load.mix.mask).read_bytes()).hexdigest() if run.load.mix.mask else ""
        )
    arguments = feature_rules.engine_arguments(chosen, run.engine.name)
    own = {"features": arguments, **({"feature_files": dict(read)} if (read := of_features(run)) else {})}
    engine_key = hashed({**engine_part, **own})
    key = hashed({**engine_part, **work_part, **own})
    baseline_key = hashed({**engine_part, **work_part, "features": {}})

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
        interleaved="" if not names or not is_interleaved(run, found, need) else baseline_key,
    )


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
