"""Choices of a sweep except features, as columns: `option.teacache.rel_l1_thresh`, `option.workload.guidance_scale`.

Every option of every feature has a column in the rows of cells with that feature, varied or not, so that sweeps can be
combined. Any other field has one where the sweep varies it and `columns` has no column for it. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from profiling.printing import clean
from sweep.plan.cells import Cell

PREFIX = "option."
"""What the names of these columns begin with; the rest is the field as the command line names it, without `feature.`"""

MEANINGS = {
    f"{PREFIX}FEATURE.NAME": "an option of a feature, e.g. option.teacache.rel_l1_thresh; empty in cells without it",
    f"{PREFIX}FIELD": "another field that the sweep varies and that has no column above, e.g. option.seed",
}

_HAVE_COLUMNS = (
    *("batch", "feature", "model", "engine", "parallel", "profile", "load", "load.max_concurrency"),
    *("load.request_rate", "load.part", "workload.steps", "workload.width", "workload.height"),
)
"""Fields that have a column of their own."""

Option = bool | int | float | str


def of_cells(cells: Sequence[Cell]) -> dict[str, dict[str, Option]]:
    """Column name -> value of every cell, by cell key."""
    varied = _varied(cells)
    return {cell.key: _of_features(cell) | _named(cell.config, varied) for cell in cells}


def names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The option columns that any of these rows has, sorted."""
    return sorted({name for row in rows for name in row if name.startswith(PREFIX)})


def without_prefix(row: Mapping[str, Any]) -> dict[str, Option]:
    """The options of a row by their name: `teacache.rel_l1_thresh`."""
    return {name.removeprefix(PREFIX): value for name, value in row.items() if name.startswith(PREFIX)}


def _of_features(cell: Cell) -> dict[str, Option]:
    return {
        f"{PREFIX}{clean(feature.name)}.{clean(name)}": plain
        for feature in cell.chosen
        for name, value in feature.options.items()
        if (plain := _plain(value)) is not None
    }


def _varied(cells: Sequence[Cell]) -> list[str]:
    """Fields that the command line or the study set, with more than one value among the cells."""
    given = {override.lstrip("+").partition("=")[0] for cell in cells for override in cell.overrides if "=" in override}
    left = sorted(name for name in given if name not in _HAVE_COLUMNS and not name.startswith("feature."))
    return [name for name in left if len({_plain(_at(cell.config, name)) for cell in cells}) > 1]


def _named(config: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Option]:
    found = {f"{PREFIX}{clean(name)}": _plain(_at(config, name)) for name in fields}
    return {name: value for name, value in found.items() if value is not None}


def _at(config: Mapping[str, Any], field: str) -> Any:
    """The value of a field like `workload.guidance_scale`; a group such as `hardware` is its name."""
    value: Any = config
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value.get("name") if isinstance(value, Mapping) else value


def _plain(value: Any) -> Option | None:
    """A value that fits a field of a table; a list as its values with spaces between, None for anything else."""
    if isinstance(value, list | tuple) and value:
        return " ".join(map(str, value))
    return value if isinstance(value, bool | int | float | str) and value != "" else None
