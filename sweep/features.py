"""Features: read from the configuration, checked, merged into what an engine is told.

Pure decisions over dataclasses. Knows the keys of conf/feature/*.yaml; knows nothing of how an engine
carries a feature out.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweep.config import ConfigError, Feature, Model, require

_FIELDS = {field.name for field in dataclasses.fields(Feature)} - {"name", "options"}


def parse_feature(name: str, body: Mapping[str, Any]) -> Feature:
    """One conf/feature file as a Feature: its known keys, and the rest as `options`. Raises ConfigError."""
    known = {key: value for key, value in body.items() if key in _FIELDS}
    options = {key: value for key, value in body.items() if key not in _FIELDS}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Feature), known)
    except OmegaConfBaseException as error:
        raise ConfigError(f"feature.{name}: {str(error).splitlines()[0]}") from error
    feature = OmegaConf.to_object(merged)
    assert isinstance(feature, Feature)
    feature = dataclasses.replace(feature, name=name, label=feature.label or name, options=options)
    require(feature.gpus >= 1, f"feature.{name}.gpus={feature.gpus}: must be at least 1")
    for option, (low, high) in feature.limits.items():
        value = options.get(option)
        require(
            isinstance(value, int | float) and not isinstance(value, bool),
            f"feature.{name}.{option}={value}: must be a number from {low:g} to {high:g}",
        )
        require(low <= value <= high, f"feature.{name}.{option}={value}: must be from {low:g} to {high:g}")
    return feature


def parse_features(bodies: Mapping[str, Mapping[str, Any]]) -> tuple[Feature, ...]:
    """All chosen features, sorted by name, so that a combination has one spelling."""
    return tuple(_parse(name, json.dumps(bodies[name], default=str)) for name in sorted(bodies))


@functools.lru_cache(maxsize=1024)
def _parse(name: str, body: str) -> Feature:
    """`parse_feature` of a body as JSON: the thousands of cells of a sweep share a few bodies."""
    return parse_feature(name, json.loads(body))


def combination_name(names: Sequence[str]) -> str:
    """`cfg_parallel+teacache`; empty for the baseline."""
    return "+".join(sorted(names))


def find_conflict(features: Sequence[Feature]) -> tuple[str, str] | None:
    """The first two features of the list that exclude each other, or None."""
    for index, one in enumerate(features):
        for other in features[index + 1 :]:
            if other.name in one.conflicts or one.name in other.conflicts:
                return one.name, other.name
    return None


def gpus_needed(features: Sequence[Feature]) -> int:
    """Devices of a cell: the product of its features' needs."""
    return math.prod(feature.gpus for feature in features)


def unsupported_reason(features: Sequence[Feature], engine: str, model: Model) -> str | None:
    """Why `engine` cannot run this combination on `model`, or None."""
    for feature in features:
        if engine != "noop" and engine not in feature.engines:
            return f"{feature.name} is not available with engine {engine}"
        families = feature.families.get(engine)
        if families is not None and model.family not in families:
            return f"{feature.name} does not support {model.name}: {feature.unsupported}"
    return None


def engine_arguments(features: Sequence[Feature], engine: str) -> dict[str, dict[str, Any]]:
    """What each feature tells `engine`: feature name -> arguments. `noop` is told all options."""
    if engine == "noop":
        return {feature.name: dict(feature.options) for feature in features}
    return {feature.name: dict(feature.engines.get(engine) or {}) for feature in features}
