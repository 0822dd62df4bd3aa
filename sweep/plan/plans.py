"""The plan of a sweep: its cells in order, and the groups of them that share one engine.

Pure: cells in, a Plan out. A Plan round-trips through JSON (`plan.json`), which tells a launched job what to run.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.cached import cached_property
from sweep.plan.cells import AA, BASELINE, FEATURE, REPEAT, Cell, again, from_json, model_and_engine, to_json
from sweep.plan.interleaving import lacks_room
from sweep.workload.inputs import Inputs


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
        """Notes on the prompts, each once for all cells that it applies to, and on baselines without a GPU."""
        found = [note.text for cell in self.cells if cell.inputs for note in cell.inputs.notes]
        alone = sum(lacks_room(cell) for cell in self.cells if cell.baseline_key in self.by_key)
        if alone:
            cells = "1 cell is" if alone == 1 else f"{alone} cells are"
            few = "there are too few GPUs for both engines"
            found.append(f"interleave=true: {cells} measured without an interleaved baseline, because {few}")
        return tuple(dict.fromkeys(found))

    def to_json(self) -> dict[str, Any]:
        """Plain values for plan.json. What cells read from files is stored once, with the keys of those cells."""
        shared: dict[Inputs, list[str]] = {}
        for cell in self.cells:
            if cell.inputs:
                shared.setdefault(cell.inputs, []).append(cell.key)
        return {
            "cells": [to_json(c) for c in self.cells],
            "groups": [dataclasses.asdict(g) for g in self.groups],
            "inputs": [{**dataclasses.asdict(inputs), "cells": keys} for inputs, keys in shared.items()],
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Plan":
        """Inverse of `to_json`."""
        inputs: dict[str, Inputs] = {}
        for stored in data.get("inputs", ()):  # plans of earlier versions have none
            shared = Inputs.from_json({name: value for name, value in stored.items() if name != "cells"})
            inputs |= dict.fromkeys(stored["cells"], shared)
        cells = tuple(from_json(cell, inputs.get(cell["key"])) for cell in data["cells"])
        groups = tuple(Group(**{**g, "cells": tuple(g["cells"])}) for g in data["groups"])
        return Plan(cells, groups)


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


def outdated(earlier: Plan, plan: Plan) -> list[Cell]:
    """Cells of an earlier plan in the same folder that this plan measures anew, because files that they read changed.

    Such a cell has the configuration of a new one, in the fields that both have, but another key: its checkpoint or
    prompts had other contents. Its further starts are outdated as well.
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
