"""Finds cells by the names that people use: `outputs/mine teacache` for the folder `outputs/mine/teacache-b1-1a2b3c4d`.

A cell is named by its label or folder, or by the beginning of one. Reads plan.json for the labels; knows nothing of
what a cell holds.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from profiling.errors import Refusal
from profiling.printing import clean

PLAN = "plan.json"
SHOWN = 8
"""How many cells an error lists when a name matches none or several."""

_HASH = re.compile(r"-[0-9a-f]{8}$")


def cell_folders(arguments: Sequence[Path]) -> list[Path]:
    """The arguments, with cell names (each after the folder of its sweep) replaced by paths.

    Several names may follow one sweep; `outputs/mine/teacache` is a name, too. Other arguments stay unchanged. Raises
    Refusal when a name matches no cell, or several.
    """
    found: list[Path] = []
    sweep: Path | None = None
    named = True
    for argument in arguments:
        if is_sweep(argument):
            found += [sweep] if sweep and not named else []
            sweep, named = argument, False
        elif argument.exists() and (sweep is None or len(argument.parts) > 1):
            found.append(argument)
        elif is_sweep(argument.parent) and (sweep is None or len(argument.parts) > 1):
            found.append(_named(argument.parent, argument.name))
        elif sweep is not None:
            found.append(_named(sweep, str(argument)))
            named = True
        else:
            found.append(argument)
    return found + ([sweep] if sweep and not named else [])


def is_sweep(folder: Path) -> bool:
    """Whether it is a sweep's folder."""
    return (folder / PLAN).is_file()


def _named(sweep: Path, name: str) -> Path:
    labels = _labels(sweep)
    found = matches(labels, name)
    if len(found) == 1:
        return sweep / found[0]
    of, said = clean(str(sweep)), clean(name)
    if found:
        cells = _listed([labels[folder] for folder in found])
        raise Refusal(f"{of} has {len(found)} cells whose names begin with '{said}': {cells}; give more of it", "names")
    near = difflib.get_close_matches(name, labels.values(), n=1)
    cells = f"did you mean '{clean(near[0])}'?" if near else f"it has {_listed([*labels.values()])}"
    raise Refusal(f"{of} has no cell '{said}'; {cells if labels else 'none was measured'}", "no_such_name")


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return f"{', '.join(map(clean, labels[:SHOWN]))}{more}"


def matches(labels: Mapping[str, str], name: str) -> list[str]:
    """Folders of the cells that a name may mean, given their `labels`. The narrowest reading that matches a cell wins.

    `teacache` is `teacache b1`, not `teacache+tp b1`, and `baseline` is `baseline b1`, not `baseline b1 A/A`.
    """
    readings = (
        lambda label, folder: name in (label, folder, _HASH.sub("", folder)),
        lambda label, folder: label.startswith(f"{name} ") or folder.startswith(f"{name}-"),
        lambda label, folder: label.startswith(name) or folder.startswith(name),
    )
    for reading in readings:
        if found := [folder for folder, label in labels.items() if reading(label, folder)]:
            first = [one for one in found if all(_begins(labels[one], labels[other]) for other in found)]
            return first if len(first) == 1 else found
    return []


def _begins(label: str, other: str) -> bool:
    return other == label or other.startswith(f"{label} ")


def _labels(sweep: Path) -> dict[str, str]:
    """Label of each cell that has a folder, by the folder's name; without a readable plan, folders name themselves."""
    labels: dict[str, str] = {}
    try:
        cells = json.loads((sweep / PLAN).read_bytes())["cells"]
        labels = {str(cell["key"])[:8]: str(cell["label"]) for cell in cells}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    folders = sorted(path.name for path in sweep.iterdir() if _HASH.search(path.name) and path.is_dir())
    return {folder: labels.get(folder[-8:], _HASH.sub("", folder)) for folder in folders}
