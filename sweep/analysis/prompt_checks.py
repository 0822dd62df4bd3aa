"""Whether pictures show what their prompts ask for, fact by fact, for models that learnt a world whose truth is known.

A fact is a shape, a colour, a place, a count, a word; `sweep.checkpoints.world` reads it from the picture without any
model. What was found is stored in the cells' quality.json, by picture and prompt.
"""

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.analysis import image_metrics, image_pairs
from sweep.checkpoints.world import checks, pictures, sentences
from sweep.checkpoints.world.scenes import Asked
from sweep.checkpoints.world.shares import wilson
from sweep.config import TASKS, Feature
from sweep.findings import FAIL, WARN, Finding
from sweep.plan.cells import Cell, Plan
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult

if TYPE_CHECKING:
    import numpy as np

OUTSIDE = "outside_world"
"""Code of the note that a model knows nothing of a prompt."""

BREAKS = "breaks_facts"
"""Code of the finding that a feature breaks what the baseline gets right."""

FEWEST_BROKEN = 2
"""A single picture that a feature breaks makes no FAIL, however few there are: one may be a matter of opinion."""

SHOWN = 2  # broken facts that a finding names


@dataclass(frozen=True)
class Wrong:
    """A fact that a picture breaks."""

    kind: str  # shape, colour, words, …
    place: str  # top left, bottom, …; "" for the whole picture
    asked: str
    seen: str

    @property
    def text(self) -> str:
        """For people: `top left: shape is ring, not circle`."""
        where = f"{self.place}: " if self.place else ""
        if self.kind == "presence":
            return f"{where}nothing is there"
        if self.kind == "empty":
            return f"{where}{self.seen} is there"
        name = {"words": "text", "words_colour": "colour of the text"}.get(self.kind, self.kind)
        seen = self.seen or ("unreadable" if self.kind == "words" else "none of the known")
        return f"{where}{name} is {seen}, not {self.asked}"


@dataclass(frozen=True)
class Checked:
    """One picture."""

    facts: int
    wrong: tuple[Wrong, ...]


Key = tuple[int, int]
"""prompt_index, seed."""


@dataclass(frozen=True)
class Checks:
    """The pictures of a cell: what could be checked, and how many have a prompt that the model does not know."""

    pictures: Mapping[Key, Checked]
    outside: int = 0

    @property
    def exact(self) -> frozenset[Key]:
        """Pictures with every fact right."""
        return frozenset(key for key, one in self.pictures.items() if not one.wrong)


def apply_to(cell: Cell) -> bool:
    """Whether the pictures of this cell can be checked: its model learnt the world, and such pictures."""
    wanted = cell.config["model"].get("weights") and cell.config["workload"].get("checks")
    return bool(wanted) and untrained(cell) is None


def untrained(cell: Cell) -> Finding | None:
    """What a model that learnt the world was not trained for although this cell asks for it; None for other models."""
    model, workload = cell.config["model"], cell.config["workload"]
    if not model.get("weights"):
        return None
    nothing = "so what its images show means nothing"
    if workload.get("task", TASKS[0]) != TASKS[0]:
        return Finding(OUTSIDE, f"this model has not learnt edits, {nothing}")
    if (workload["width"], workload["height"]) != (pictures.SIDE, pictures.SIDE):
        return Finding(OUTSIDE, f"this model was trained at {pictures.SIDE}×{pictures.SIDE} alone, {nothing}")
    return None


def measure(folder: SweepFolder, plan: Plan, results: Mapping[str, RunResult | None]) -> None:
    """Check all pictures that were not checked yet and store what is found."""
    tasks = [
        (cell, name, path, digest, prompt)
        for cell in plan.cells
        if apply_to(cell) and (result := results.get(cell.key)) is not None
        for name, path, digest, prompt in _missing(folder, cell, result)
    ]
    if not tasks:
        return
    found: dict[str, dict[str, Any]] = {}
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            answers = pool.map(lambda task: _check(*task[2:]), tasks)
            for (cell, name, *_), answer in zip(tasks, answers, strict=True):
                if answer is not None:
                    found.setdefault(cell.key, {})[name] = answer
    finally:  # an interrupted one keeps what it has
        image_pairs.save(folder, plan, found)


def of(folder: SweepFolder, cell: Cell, result: RunResult) -> Checks | None:
    """What `measure` found of the first start of a cell; None where its pictures cannot be checked."""
    if not apply_to(cell):
        return None
    stored = image_pairs.stored_images(result)
    names = {key: _name(digest, prompt) for key, (_, digest, prompt) in _with_prompts(stored, result)}
    known = folder.load_quality(cell) if names else {}
    found = {key: known[name] for key, name in names.items() if name in known}
    checked = {key: Checked(one["facts"], tuple(Wrong(*fact) for fact in one["wrong"])) for key, one in found.items()}
    return Checks(checked, outside=len(stored) - len(names))


def columns(mine: Checks) -> dict[str, float | int]:
    """The row's columns, shares in [0, 1]; {} where no picture was checked."""
    count = len(mine.pictures)
    if not count:
        return {}
    facts = sum(one.facts for one in mine.pictures.values())
    wrong = sum(len(one.wrong) for one in mine.pictures.values())
    low, high = wilson(len(mine.exact), count)
    return {
        "pictures_checked": count,
        "exact_rate": len(mine.exact) / count,
        "exact_low": low,
        "exact_high": high,
        "facts_right": 1 - wrong / facts,
    }


def notes(mine: Checks) -> list[Finding]:
    """What a reader should know of the prompts."""
    if not mine.outside:
        return []
    whole = mine.outside + len(mine.pictures)
    which = f"{mine.outside} of {whole} prompts are" if whole > 1 else "the prompt is"
    return [Finding(OUTSIDE, f"{which} outside what this model knows, so what it shows there means nothing")]


def judge(features: Sequence[Feature], mine: Checks | None, baseline: Checks | None) -> list[Finding]:
    """What a feature breaks of the pictures that the baseline gets right, less what it mends.

    FAIL for several that are more than the gate of its most tolerant feature allows, WARN for any; [] for none.
    """
    if mine is None or baseline is None or not features:
        return []
    shared = mine.pictures.keys() & baseline.pictures.keys()
    broken = sorted((baseline.exact & shared) - mine.exact)
    mended = (mine.exact & shared) - baseline.exact
    lost = len(broken) - len(mended)
    if lost <= 0:
        return []
    allowed = max(feature.gate.fail_broken for feature in features)
    named = [wrong.text for key in broken for wrong in mine.pictures[key].wrong[:1]][:SHOWN]
    more = ", …" if len(broken) > SHOWN else ""
    show = "no longer shows" if lost == 1 else "no longer show"
    share = f"{lost} of {len(shared)} pictures {show} what was asked"
    grave = lost >= FEWEST_BROKEN and lost > allowed * len(shared)
    return [Finding(BREAKS, f"{share} ({'; '.join(named)}{more})", FAIL if grave else WARN)]


def _missing(folder: SweepFolder, cell: Cell, result: RunResult) -> Iterator[tuple[str, Path, str, str]]:
    known: Mapping[str, Any] | None = None
    for _, (file, digest, prompt) in _with_prompts(image_pairs.stored_images(result), result):
        known = folder.load_quality(cell) if known is None else known
        name = _name(digest, prompt)
        if name not in known:
            try:
                yield name, folder.image_path(cell, file), digest, prompt
            except ValueError:  # outside the folder: `image_pairs` says so
                continue


def _with_prompts(
    stored: Mapping[Key, tuple[str, str]], result: RunResult
) -> Iterator[tuple[Key, tuple[str, str, str]]]:
    """File, pixel hash and prompt of the stored images whose prompt the model knows."""
    for key, (file, digest) in stored.items():
        prompt = result.prompts[key[0]] if key[0] < len(result.prompts) else ""
        if _asked(prompt) is not None:
            yield key, (file, digest, prompt)


@functools.lru_cache(maxsize=4096)
def _asked(prompt: str) -> Asked | None:
    """What it asks for; None where the model knows nothing of it."""
    return sentences.read(prompt)


def _check(path: Path, digest: str, prompt: str) -> dict[str, Any] | None:
    """As quality.json holds it; None for a picture that cannot be read, which others report."""
    asked = _asked(prompt)
    assert asked is not None
    try:
        found = checks.facts(_picture(path, digest), asked)
    except (ValueError, OSError):
        return None
    wrong = [[fact.kind, fact.place, fact.asked, fact.seen] for fact in found if not fact.right]
    return {"facts": len(found), "wrong": wrong}


def _picture(path: Path, digest: str) -> "np.ndarray":
    """(height, width, 3) in [0, 1]. Raises as `image_metrics.read`."""
    import numpy as np

    image = image_metrics.read(path, digest)
    return np.asarray(image.values, dtype=np.float32) / image_metrics.FULL_SCALE[image.mode]


def _name(digest: str, prompt: str) -> str:
    asked = hashlib.sha256(f"{checks.VERSION} {prompt}".encode()).hexdigest()[:16]
    return f"facts:{digest}:{asked}"
