"""What a request asks of a model that learnt the world: the facts that its picture must show.

A sentence describes a scene. An instruction changes what its source picture shows: that scene is read from the picture
itself, so any picture of the world can be edited and checked. With several turns, the first source and all instructions
so far say what must be seen; the previous turn's picture says which places must be as they were.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.checkpoints.world import checks, edit_checks, edits, sentences
from sweep.checkpoints.world.checks import Fact
from sweep.checkpoints.world.edits import Edit
from sweep.checkpoints.world.scenes import Asked, Scene
from sweep.config.model import TASKS
from sweep.engines.images import read_picture
from sweep.plan.cells import Cell
from sweep.results.files import Unfit
from sweep.results.folder import SweepFolder
from sweep.results.records import RequestRow, RunResult
from sweep.workload.edit_files import EditTurn

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Question:
    """What one request asks for."""

    text: str  # equal for equal questions, regardless of the seed
    asked: Asked  # what the picture must show
    facts: "Callable[[np.ndarray], list[Fact]]"
    """Every fact of it, for a picture (64 · n, 64 · n, 3) in [0, 1]; ValueError for other shapes."""

    drift: "Callable[[np.ndarray], float | None] | None" = None
    """For a later turn: how far its chain has changed what no turn named (`edit_checks.drift`)."""


def of(folder: SweepFolder, cell: Cell, result: RunResult, request: RequestRow) -> Question | None:
    """The question of a request; None where the model does not know what it asks."""
    index = request.prompt_index
    prompt = result.prompts[index] if index < len(result.prompts) else ""
    if not edits_in(cell):
        source = source_path(folder, cell, result, request)
        return _of_edit(source, _size(cell), prompt) if source else _of_sentence(prompt)
    turns = turns_until(cell, index)
    source, given = first_source(folder, cell, index), source_path(folder, cell, result, request)
    if source is None or given is None or any(turn.count > 1 or turn.mask for turn in turns):
        return None
    return _of_turns(source, given, _size(cell), tuple(turn.instruction for turn in turns))


def edits_in(cell: Cell) -> tuple[EditTurn, ...]:
    """The edits of a cell that come with their pictures, by prompt_index; () where there are none."""
    return cell.inputs.edits if cell.inputs else ()


def turns_until(cell: Cell, index: int) -> tuple[EditTurn, ...]:
    """The turn with this prompt_index and those of its line before it, in order; () for another index."""
    edits = edits_in(cell)
    return edits[index - edits[index].turn + 1 : index + 1] if index < len(edits) else ()


def first_source(folder: SweepFolder, cell: Cell, index: int) -> Path | None:
    """The picture that the line of this prompt_index starts from."""
    for turn in turns_until(cell, index)[:1]:
        return folder.kept_picture(turn.pictures[0].file, turn.pictures[0].sha256)
    return None


def source_path(folder: SweepFolder, cell: Cell, result: RunResult, request: RequestRow) -> Path | None:
    """The picture that a request edits; None where it draws from text alone, or where that is unknown."""
    if cell.config["workload"].get("task", TASKS[0]) == TASKS[0]:
        return None
    if not edits_in(cell):
        return folder.input_image(cell) or folder.made_input(cell, request.seed)
    index = request.prompt_index
    if request.turn <= 1:
        return first_source(folder, cell, index)
    made = (*result.requests, *result.alone)
    before = (one for one in made if (one.prompt_index, one.seed) == (index - 1, request.seed) and one.image)
    with contextlib.suppress(Unfit):
        return next((folder.image_path(cell, one.image) for one in before), None)
    return None


def source_picture(folder: SweepFolder, cell: Cell, result: RunResult, request: RequestRow) -> "np.ndarray | None":
    """The same as (height, width, 3) of uint8, as large as the result; also None where it cannot be read."""
    import numpy as np

    try:
        path = source_path(folder, cell, result, request)
        return np.asarray(read_picture(path, _size(cell))) if path else None
    except (OSError, ValueError):
        return None


def _size(cell: Cell) -> tuple[int, int]:
    return cell.config["workload"]["width"], cell.config["workload"]["height"]


@functools.lru_cache(maxsize=4096)
def _of_sentence(prompt: str) -> Question | None:
    asked = sentences.read(prompt)
    if asked is None:
        return None
    return Question(f"{checks.VERSION} {prompt}", asked, functools.partial(checks.facts, asked=asked))


def _of_edit(source: Path, size: tuple[int, int], instruction: str) -> Question | None:
    """None also for a source that cannot be read, or that shows anything but the world."""
    return _of_turns(source, source, size, (instruction,))


@functools.lru_cache(maxsize=4096)
def _of_turns(source: Path, given: Path, size: tuple[int, int], said: tuple[str, ...]) -> Question | None:
    """The last of several instructions, one after the other, about `source`; the last one edits `given`.

    What must be seen follows from all of them, so a picture answers for what earlier turns of its chain broke.
    """
    try:
        first, scene, digest = _source(source, size)
        picture, _, given_digest = _source(given, size)
    except (OSError, ValueError):
        return None
    done: list[Edit] = []
    for instruction in said:
        edit = edits.read(instruction, scene) if scene else None
        if edit is None:
            return None
        done.append(edit)
        scene = edit.target
    facts = functools.partial(edit_checks.facts, picture, edit=done[-1])
    text = f"{edit_checks.VERSION} {digest} {'; '.join(said)}" + (f" {given_digest}" if len(said) > 1 else "")
    drift = functools.partial(edit_checks.drift, first, done=done) if len(said) > 1 else None
    return Question(text, edits.asked_of(done[-1].target), facts, drift)


@functools.lru_cache(maxsize=64)
def _source(path: Path, size: tuple[int, int]) -> "tuple[np.ndarray, Scene | None, str]":
    """The picture as engines edit it, what it shows, and a hash of its pixels. OSError, ValueError: not to be read."""
    import numpy as np

    pixels = np.asarray(read_picture(path, size))
    picture = pixels.astype(np.float32) / 255
    return picture, edit_checks.read_scene(picture), hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
