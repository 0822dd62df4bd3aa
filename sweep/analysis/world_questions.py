"""What a request asks of a model that learnt the world: the facts that its picture must show.

A sentence asks for a scene. An instruction asks for what its source picture shows, changed: that scene is read from the
picture itself, so that any picture of the world can be edited and checked.
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.checkpoints.world import checks, edit_checks, edits, sentences
from sweep.checkpoints.world.checks import Fact
from sweep.checkpoints.world.scenes import Asked, Scene
from sweep.config import TASKS
from sweep.engines.images import read_picture
from sweep.plan.cells import Cell
from sweep.results.folder import SweepFolder
from sweep.results.records import RequestRow, RunResult

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Question:
    """What one request asks for."""

    text: str  # equal for equal questions, whatever the seed
    asked: Asked  # what the picture must show
    facts: "Callable[[np.ndarray], list[Fact]]"
    """Every fact of it, for a picture (64 · n, 64 · n, 3) in [0, 1]; ValueError for other shapes."""


def of(folder: SweepFolder, cell: Cell, result: RunResult, request: RequestRow) -> Question | None:
    """None where the model knows nothing of what is asked."""
    index = request.prompt_index
    prompt = result.prompts[index] if index < len(result.prompts) else ""
    source = source_path(folder, cell, request.seed)
    return _of_edit(source, _size(cell), prompt) if source else _of_sentence(prompt)


def source_path(folder: SweepFolder, cell: Cell, seed: int) -> Path | None:
    """The picture that a cell edits with this seed; None where it draws from text alone."""
    if cell.config["workload"].get("task", TASKS[0]) == TASKS[0]:
        return None
    return folder.input_image(cell) or folder.made_input(cell, seed)


def source_picture(folder: SweepFolder, cell: Cell, seed: int) -> "np.ndarray | None":
    """The same as (height, width, 3) of uint8, as engines edit it; also None where it cannot be read."""
    import numpy as np

    try:
        path = source_path(folder, cell, seed)
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


@functools.lru_cache(maxsize=4096)
def _of_edit(source: Path, size: tuple[int, int], instruction: str) -> Question | None:
    """None also for a source that cannot be read, or that shows anything but the world."""
    try:
        picture, scene, digest = _source(source, size)
    except (OSError, ValueError):
        return None
    edit = edits.read(instruction, scene) if scene else None
    if edit is None:
        return None
    facts = functools.partial(edit_checks.facts, picture, edit=edit)
    return Question(f"{edit_checks.VERSION} {digest} {instruction}", edits.asked_of(edit.target), facts)


@functools.lru_cache(maxsize=64)
def _source(path: Path, size: tuple[int, int]) -> "tuple[np.ndarray, Scene | None, str]":
    """The picture as engines edit it, what it shows, and a hash of its pixels. OSError, ValueError: not to be read."""
    import numpy as np

    pixels = np.asarray(read_picture(path, size))
    picture = pixels.astype(np.float32) / 255
    return picture, edit_checks.read_scene(picture), hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
