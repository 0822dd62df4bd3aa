"""What a name that does not exist may have meant: fields of a run, groups, and the choices in conf/.

Reads conf/ when something is wrong, never before. Knows no arguments.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from sweep.config.feature import Feature, Gate
from sweep.config.run import ADD_ONS, CONF, field_names
from sweep.places import machine_conf
from sweep.refusals import nearest

HYDRAS = ("hydra.sweep.dir", "hydra.run.dir", "hydra.launcher.n_jobs")
"""Hydra's fields that our documentation names."""

SHOWN = 4
"""The most features that are named for what several have in common."""

MEANT = {"resume": "hydra.sweep.dir", "output": "hydra.sweep.dir", "out": "hydra.sweep.dir", "gpu": "parallel.gpus"}
"""Names that people use for fields with another name."""


def groups() -> tuple[str, ...]:
    """Groups of conf/, as `feature` and `study`."""
    return tuple(sorted(path.name for path in CONF.iterdir() if path.is_dir()))


def choices(group: str) -> list[str]:
    """The choices of a group that come with this package, and hardware that was measured on this machine."""
    places = (CONF, machine_conf()) if group == "hardware" else (CONF,)
    return sorted({path.stem for place in places for path in (place / group).glob("*.yaml")})


def groups_of(choice: str) -> list[str]:
    """The groups that have a choice of this name."""
    return [group for group in groups() if choice in choices(group)]


@functools.cache
def hub_ids() -> dict[str, str]:
    """The choices of `model` that have a published checkpoint, by its Hub id."""
    import yaml

    bodies = ((name, yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text("utf-8"))) for name in choices("model"))
    return {body["repo"]: name for name, body in bodies if body.get("repo")}


@functools.cache
def feature_fields() -> tuple[str, ...]:
    """What can be set of each feature: its options and its gate, as `feature.teacache.rel_l1_thresh`."""
    import yaml

    found: list[str] = []
    own = {field.name for field in dataclasses.fields(Feature)}
    for name in choices("feature"):
        data = yaml.safe_load((CONF / "feature" / f"{name}.yaml").read_text(encoding="utf-8"))
        body = {key: value for key, value in data[name].items() if key not in own}
        gate = {field.name: None for field in dataclasses.fields(Gate)} | data[name].get("gate", {})
        found += _leaves({**body, "gate": gate}, f"feature.{name}")
    return tuple(found)


def _leaves(body: Mapping[str, Any], prefix: str) -> Iterable[str]:
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}"


def full_names(name: str) -> list[str]:
    """Fields that end in this name, those nearer to the top first: `num_prompts` is `workload.num_prompts`."""
    if "." not in name and name in MEANT:
        return [MEANT[name]]
    found = [full for full in (*field_names(), *feature_fields()) if full.endswith(f".{name}")]
    return sorted(found, key=lambda full: full.count("."))


def unknown_field(name: str, siblings: Iterable[str] = ()) -> str:
    """One line about a field that does not exist: its full name, what else it is, or the nearest."""
    asked = f"unknown field '{name}'"
    if full := _shortened(full_names(name)):
        return f"{asked}; {'its full name is' if len(full) == 1 else 'write'} {' or '.join(full)}"
    if name in feature_fields():  # one that its file leaves out
        return f"{name} is not there yet; add it with +{name}=…"
    if owners := groups_of(name):
        return f"{asked}; {name} is a choice of a group, so write {' or '.join(choosing(name, owners))}"
    leaf = name.rpartition(".")[2]
    near = nearest(name, [*HYDRAS, *ADD_ONS, *field_names(), *siblings, *feature_fields()])
    if not near and leaf == name:
        leaves = {full.rpartition(".")[2]: full for full in reversed((*field_names(), *feature_fields()))}
        near = nearest(name, leaves)
        near = next((f"; did you mean '{full}'?" for one, full in leaves.items() if f"'{one}'" in near), near)
    return asked + near


def _shortened(full: list[str]) -> list[str]:
    """What several features have in common as `feature.NAME.gate.fail_mean_diff`, with a name for an example."""
    alike: dict[str, list[str]] = {}
    for one in full:
        _, name, rest = [*one.split(".", 2), "", ""][:3]
        alike.setdefault(f"feature.NAME.{rest}" if one.startswith("feature.") else one, []).append(name)
    return [
        one
        if not one.startswith("feature.")
        else one.replace("NAME", names[0])
        if len(names) == 1
        else f"{one} (NAME: {', '.join(names[:SHOWN])}{', …' * (len(names) > SHOWN)})"
        for one, names in alike.items()
    ]


def choosing(choice: str, owners: Iterable[str]) -> list[str]:
    """How a choice is written on the command line."""
    return [f"-m +{group}={choice}" if group == "study" else f"{group}={choice}" for group in owners]
