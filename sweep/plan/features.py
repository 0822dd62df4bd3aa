"""Features: read from the configuration, checked, and merged into an engine's arguments.

Pure decisions over dataclasses. Knows the keys of conf/feature/*.yaml; knows nothing of how an engine
implements a feature.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.config.feature import LOSSLESS_GATE, LOSSY_GATE, WARN_PSNR_DB, Feature, Gate
from sweep.config.model import Model
from sweep.engines import registry
from sweep.engines.feature_arguments import with_ranks
from sweep.findings import SKIP, Finding
from sweep.plan.typed import typed
from sweep.refusals import nearest, require

_FIELDS = {field.name for field in dataclasses.fields(Feature)} - {"name", "options"}


def parse_feature(name: str, body: Mapping[str, Any], engine: str = "") -> Feature:
    """One conf/feature file as a Feature: its known keys, and the rest as `options`. Raises ConfigError."""
    require(isinstance(body, Mapping), f"feature.{name}={body}: must be an object with the keys of its file")
    known = {key: value for key, value in body.items() if key in _FIELDS}
    options = {key: value for key, value in body.items() if key not in _FIELDS}
    if isinstance(known.get("evidence"), Mapping):
        rules = known["evidence"]
        known["evidence"] = rules.get(engine) or next(iter(rules.values()), "")
    gates = known.pop("gate", None) or {}
    require(isinstance(gates, Mapping), f"feature.{name}.gate={gates}: must be an object with gates by name")
    feature = typed(known, Feature, f"feature.{name}")
    usual = LOSSY_GATE if feature.lossy else LOSSLESS_GATE
    gate = typed({**usual, **gates}, Gate, f"feature.{name}.gate")
    feature = dataclasses.replace(feature, name=name, label=feature.label or name, gate=gate, options=options)
    require(feature.gpus >= 1, f"feature.{name}.gpus={feature.gpus}: must be at least 1")
    for option, bounds in feature.limits.items():
        numbers = len(bounds) == 2 and all(isinstance(bound, int | float) for bound in bounds)
        require(numbers, f"feature.{name}.limits.{option}={bounds}: must be [lowest, highest]")
        low, high = bounds
        value = options.get(option)
        require(
            isinstance(value, int | float) and not isinstance(value, bool),
            f"feature.{name}.{option}={value}: must be a number from {low:g} to {high:g}",
        )
        require(low <= value <= high, f"feature.{name}.{option}={value}: must be from {low:g} to {high:g}")
    return feature


def parse_features(bodies: Mapping[str, Mapping[str, Any]], engine: str = "") -> tuple[Feature, ...]:
    """All chosen features, sorted by name, so that a combination has one spelling."""
    return tuple(_parsed(name, bodies[name], engine) for name in sorted(bodies))


_PARSED: dict[tuple[str, str, bytes], Feature] = {}
"""By name, engine and body, as msgpack, which takes a tenth of the time of JSON."""


def _parsed(name: str, body: Any, engine: str) -> Feature:
    """`parse_feature` of a body as JSON holds it, cached: the thousands of cells of a sweep share a few."""
    import msgspec

    try:
        key = name, engine, msgspec.msgpack.encode(body, enc_hook=str)
    except (OverflowError, UnicodeEncodeError):  # an integer of more than 64 bits, a lone surrogate
        return parse_feature(name, _as_in_json(body), engine)
    if key not in _PARSED:
        _PARSED[key] = parse_feature(name, _as_in_json(body), engine)
    return _PARSED[key]


def _as_in_json(body: Any) -> Any:
    return json.loads(json.dumps(body, default=str))


def bodies_for(bodies: Mapping[str, Mapping[str, Any]], engine: str) -> dict[str, dict[str, Any]]:
    """The same bodies with only this engine's evidence rule and with every gate, so that a reader of the cell needs
    neither the engine nor today's defaults. Raises ConfigError.
    """
    made: dict[str, dict[str, Any]] = {}
    for feature in parse_features(bodies, engine):
        body = bodies[feature.name]
        own = body.get("gate") or {}
        _check_gates(feature.name, own)
        gate = dataclasses.asdict(feature.gate)
        if feature.lossy and "warn_psnr_db" not in own:
            gate["warn_psnr_db"] = WARN_PSNR_DB
        made[feature.name] = {**body, "evidence": feature.evidence, "gate": gate}
    return made


def _check_gates(name: str, gates: Mapping[str, Any]) -> None:
    """Refuse unknown gates, which would be ignored silently. Raises ConfigError."""
    known = [field.name for field in dataclasses.fields(Gate)]
    for gate, value in gates.items():
        asked = f"feature.{name}.gate.{gate}={value}"
        require(f"{gate}_db" not in known, f"{asked}: write feature.{name}.gate.{gate}_db={value}, in dB")
        close = nearest(gate, known) or f"; there are {', '.join(known)}"
        require(gate in known, f"{asked}: no such gate{close}")


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
    """Devices of a cell: the product of its features' needs. A feature that shares ranks needs only its own number."""
    own = math.prod(feature.gpus for feature in features if not feature.shares_ranks)
    return max([own, *(feature.gpus for feature in features if feature.shares_ranks)])


def unsupported(features: Sequence[Feature], engine: str, model: Model) -> Finding | None:
    """Why `engine` cannot run this combination on `model`, or None."""
    for feature in features:
        if registry.kind(engine).generates and not registry.kind(engine).attaches and engine not in feature.engines:
            return Finding("feature_not_in_engine", f"{feature.name} is not available with engine {engine}", SKIP)
        families = feature.families.get(engine)
        if families is not None and model.family not in families:
            why = _why_not(feature, engine, model.family)
            code = "feature_not_in_model" if why else "feature_without_reason"
            why = why or f"its file does not list {model.family} for engine {engine}"
            text = f"{feature.name} does not support {model.name}: {why}"
            return Finding(code, text, SKIP, short=f"{feature.name} unsupported")
    return _missing_ranks(features) or _uneven_heads(features, engine, model)


def _why_not(feature: Feature, engine: str, family: str) -> str:
    """The reason that the feature's file gives for this family; "" when it gives none."""
    why = feature.unsupported
    for key in (engine, family):
        if isinstance(why, Mapping):
            why = why.get(key, "")
    return str(why)


def _missing_ranks(features: Sequence[Feature]) -> Finding | None:
    """Why a feature lacks the features that it builds on, or gets a different number of ranks than it needs."""
    names = {feature.name for feature in features}
    brought = math.prod(feature.gpus for feature in features if not feature.shares_ranks)
    for feature in features:
        if feature.requires and not names.intersection(feature.requires):
            use = ", because it uses their ranks" if feature.shares_ranks else ""
            which = f"{'one of ' if len(feature.requires) > 1 else ''}{', '.join(feature.requires)}"
            return Finding("feature_needs_another", f"{feature.name} needs {which}{use}", SKIP)
        if feature.shares_ranks and 1 < brought < feature.gpus:
            why = f"{feature.name} needs {feature.gpus} ranks, but the other features provide {brought}"
            return Finding("ranks_do_not_match", why, SKIP)
    return None


def _uneven_heads(features: Sequence[Feature], engine: str, model: Model) -> Finding | None:
    """Why the attention heads cannot be split evenly; None when they can, or when their number is unknown."""
    splitting = [feature for feature in features if engine in feature.splits_heads]
    parts = math.prod(feature.gpus for feature in splitting)
    if model.dit is None or not model.dit.heads or model.dit.heads % parts == 0:
        return None
    names = " and ".join(feature.name for feature in splitting)
    verb = "splits" if len(splitting) == 1 else "split"
    heads = f"the {model.dit.heads} heads of {model.name}"
    why = f"{names} {verb} attention over {parts} ranks, but {heads} do not divide by {parts}"
    return Finding("heads_do_not_divide", why, SKIP)


def engine_arguments(features: Sequence[Feature], engine: str) -> dict[str, dict[str, Any]]:
    """What each feature passes to `engine`: feature name -> arguments; all options where it generates nothing."""
    if not registry.kind(engine).generates:
        return {feature.name: dict(feature.options) for feature in features}
    ranks = gpus_needed(features)
    return {feature.name: with_ranks(feature.engines.get(engine) or {}, ranks) for feature in features}
