"""What a result was measured with: this tool, its commit, and the packages that engines are made of.

Kept with every result, so that results of several versions in one folder can be distinguished.
"""

import functools
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sweep import __version__
from sweep.engines import registry

COMMIT, KEPT = "git_commit", "kept_of_other_versions"
"""Keys of manifest.json."""


@functools.cache
def versions() -> Mapping[str, str]:
    """Of this tool, Python, and every package of engines that is installed."""
    found = {"sweep": __version__, "python": platform.python_version()}
    engines = [name for kind in map(registry.kind, registry.names()) for name in kind.distributions]
    for name in dict.fromkeys((*engines, "hydra-core", "nvtx")):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout that this code runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def measured_with() -> dict[str, str]:
    """The versions, and the commit where there is one."""
    commit = git_commit()
    return {**versions(), **({COMMIT: commit} if commit else {})}


def told_by(manifest: Mapping[str, Any], label: str) -> dict[str, str]:
    """The same of a cell whose result does not say it, from the manifest of the folder's last run; {} if unknown."""
    versions, commit = manifest.get("versions"), manifest.get(COMMIT)
    found = {str(name): str(value) for name, value in versions.items()} if isinstance(versions, Mapping) else {}
    found |= {COMMIT: str(commit)} if commit else {}
    for one in manifest.get(KEPT, ()):  # measured even before
        if label in one["cells"]:
            found |= {name: then for name, then, _ in one["changed"]}
    return found


@dataclass(frozen=True)
class Older:
    """Cells that were kept although they were measured with something else; `changed` says with what, by name."""

    cells: tuple[str, ...]  # labels
    changed: tuple[tuple[str, str, str], ...]  # name, then, now; "" where there was or is none


def older(kept: Iterable[tuple[str, Mapping[str, str]]], now: Mapping[str, str]) -> list[Older]:
    """Kept cells, given as (label, what they were measured with), by what differs from `now`.

    Packages that are only on one side do not count: another engine's may be installed or not. The commit does, where
    both are known. A cell without known versions is not listed.
    """
    found: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
    for label, then in kept:
        changed = tuple((name, then[name], now[name]) for name in now if name in then and then[name] != now[name])
        if changed:
            found.setdefault(changed, []).append(label)
    return [Older(tuple(labels), changed) for changed, labels in found.items()]


def sentence(found: Iterable[Older]) -> str:
    """One line about kept cells of other versions; "" when there are none."""
    groups = list(found)
    if not groups:
        return ""
    count = sum(len(one.cells) for one in groups)
    changes = dict.fromkeys(
        f"{'commit' if name == COMMIT else name} {then}, now {now}" for one in groups for name, then, now in one.changed
    )
    cells, they = ("1 kept cell was", "it") if count == 1 else (f"{count} kept cells were", "them")
    again = f"to measure {they} again, choose another folder with hydra.sweep.dir=DIR"
    return f"{cells} measured with other versions ({'; '.join(changes)}); {again}"
