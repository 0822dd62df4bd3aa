"""The configurations that the overrides of a sweep ask for, without planning or running any of them.

A sweep composes each cell with Hydra, 60 ms each. Here Hydra composes once for each choice of files (model, workload,
hardware, …); differences in features or plain numbers are filled in afterwards, so that thousands take a second.
"""

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sweep.arguments import forced, prepared
from sweep.config.run import CONF, RunConfig, register
from sweep.engines import registry
from sweep.findings import SKIP, Finding
from sweep.plan import features as feature_rules
from sweep.plan import fields
from sweep.plan.add_ons import ADD, BASE, add_ons
from sweep.plan.axes import feature_names, pairs_and_more, short_name, values_of
from sweep.plan.building import unusable
from sweep.plan.rules import check_run
from sweep.refusals import ConfigError

PLAIN = {
    "batch": int,
    "seed": int,
    "workload.steps": int,
    "workload.width": int,
    "workload.height": int,
    "workload.guidance_scale": float,
    "workload.num_prompts": int,
    "workload.prompt_tokens": int,
    "workload.repeats": int,
    "workload.seeds_per_prompt": int,
}
"""Fields that are filled in without Hydra, and their types."""


@dataclass(frozen=True)
class Asked:
    """One configuration, and how it differs from the others."""

    run: RunConfig
    features: tuple[str, ...]
    varied: tuple[tuple[str, str], ...]  # overrides with several values, and this one's
    skip: Finding | None  # why a sweep would not run it

    @property
    def label(self) -> str:
        """`cfg_parallel+teacache b2 steps=40`, as a sweep would name it."""
        name = feature_rules.combination_name(self.features) or "baseline"
        more = [f"{short_name(key)}={value}" for key, value in self.varied if key not in ("batch", "feature")]
        return " ".join([f"{name} b{self.run.batch}", *more])


def asked(overrides: Sequence[str]) -> Iterator[Asked]:
    """All configurations of the product, baselines among them as in a sweep. Raises ConfigError."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from sweep.composing import compose_less

    register()
    compose_less()
    typed = prepared(["-m", *(one for one in overrides if one not in ("-m", "--multirun"))])[1:]
    GlobalHydra.instance().clear()  # a program may ask twice
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        parser = OverridesParser.create(config_loader=loader)
        single = [one for one in typed if one.startswith("+study=")]
        params = compose("config", overrides=single, return_hydra_config=True).hydra.sweeper.params or {}
        given = [f"{key}={value}" for key, value in params.items()]
        parsed = parser.parse_overrides([*given, *(one for one in typed if one not in single)])
        axes = {override.get_key_element(): values_of(override) for override in parsed}
        on_line = {override.get_key_element() for override in parser.parse_overrides(typed)}

        def composed(overrides: Sequence[str]) -> DictConfig:
            made = compose("config", overrides=[*single, *map(forced, overrides)])
            OmegaConf.set_struct(made, False)
            return made

        yield from _product(axes, composed, "feature" in on_line)


def _product(axes: Mapping[str, list[str]], composed: Any, with_features: bool) -> Iterator[Asked]:
    rest = dict(axes)
    feature_axis = [feature_names(value) for value in rest.pop("feature", ["[]"])]
    words = {word: [feature_names(value) for value in rest.pop(word, ())] for word in (BASE, ADD)}
    adding = add_ons(words, with_features=with_features)
    plain = {key: rest.pop(key) for key in list(rest) if key in PLAIN and len(rest[key]) > 1}
    varying = [key for key, values in rest.items() if len(values) > 1]
    named = sorted({name for names in (*feature_axis, *itertools.chain(*words.values())) for name in names})
    numbers = [[(key, value) for value in values] for key, values in plain.items()]
    for product in itertools.product(*([(key, value) for value in values] for key, values in rest.items())):
        overrides = [f"{key}={value}" for key, value in product]
        cfg = composed([*overrides, f"feature=[{','.join(named)}]"])
        fields.refuse_unknown(cfg)
        run = OmegaConf.to_object(cfg)
        assert isinstance(run, RunConfig)
        sets = adding.combinations(run.combine) if adding else pairs_and_more(feature_axis, run.combine)
        if run.baselines and () not in sets:
            sets = [(), *sets]
        bodies = feature_rules.bodies_for(run.feature, run.engine.name)
        chosen = {names: {name: bodies[name] for name in names} for names in sets}
        whys: dict[tuple[str, ...], Finding | None] = {}  # of features, which depends on no number
        own = tuple(one for one in product if one[0] in varying and one[0] != "hardware")
        for values in itertools.product(*numbers):
            changed = with_numbers(run, values)
            check_run(changed)
            too_long = registry.long_prompt(changed)
            for names in sets:
                mine = copy.copy(changed)
                mine.feature = chosen[names]
                if names not in whys:
                    whys[names] = skipped(mine)
                yield Asked(mine, names, (*own, *values), whys[names] or too_long)


def with_numbers(run: RunConfig, values: Sequence[tuple[str, str]]) -> RunConfig:
    """The same configuration with other values of PLAIN fields. Raises ConfigError as a sweep would."""
    own: dict[str, Any] = {}
    work: dict[str, Any] = {}
    for key, text in values:
        kind = PLAIN[key]
        try:
            value = None if text == "null" else kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{key}={text}: must be {what}") from None
        group, _, name = key.rpartition(".")
        (work if group else own)[name] = value
    workload = dataclasses.replace(run.workload, **work) if work else run.workload
    return dataclasses.replace(run, workload=workload, **own)


def skipped(run: RunConfig) -> Finding | None:
    """Why no machine could run it: conflicts, or an engine that lacks a feature or model."""
    chosen = feature_rules.parse_features(run.feature, run.engine.name)
    if reason := unusable(chosen, run):
        return reason
    need = feature_rules.gpus_needed(chosen) + registry.kind(run.engine.name).stage_devices(run)
    most = run.parallel.gpus
    if most is not None and need > most:
        why = f"needs {need} devices, parallel={run.parallel.name} allows {most}"
        return Finding("too_few_devices_allowed", why, SKIP)
    return None
