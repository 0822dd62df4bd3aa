"""Whether an edited picture shows what was asked, and whether everything else is as it was.

The source scene is read from the source picture, so any picture of the world can be edited and checked.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sweep.checkpoints.world import checks, edits, pictures, scenes
from sweep.checkpoints.world.checks import Fact
from sweep.checkpoints.world.edits import Edit
from sweep.checkpoints.world.pictures import CELL
from sweep.checkpoints.world.scenes import Scene

if TYPE_CHECKING:
    import numpy as np

VERSION = 1
"""Of what is found in an edited picture; raise it, or that of `checks`, when the same picture gives other facts."""

KEPT = 0.03
"""Highest mean absolute difference, in [0, 1], of a corner or of a row of words that an edit left alone."""

REST = "rest"
"""Kind of the facts that say so of each corner and row that an edit does not name."""

AS_BEFORE, CHANGED = "as before", "changed"


def facts(source: "np.ndarray", picture: "np.ndarray", edit: Edit) -> list[Fact]:
    """Every fact of an edit. Pictures (64 · n, 64 · n, 3) in [0, 1] of one size; ValueError for others."""
    if source.shape != picture.shape:
        raise ValueError(f"an edit keeps the size of its picture: {source.shape} became {picture.shape}")
    return [*checks.facts(picture, edits.asked_of(edit.target)), *_kept(source, picture, edit)]


def read_scene(picture: "np.ndarray") -> Scene | None:
    """What a picture of the world shows, everything decided; None for one that shows anything else."""
    background = checks.background_of(picture)
    for row in (*scenes.ROWS, "") if background else ():
        seen = checks.look(picture, background, row)
        writing = seen.rows[scenes.ROWS.index(row)] if row else None
        known = all(thing is None or thing.shape for thing in seen.things)
        if known and (not row or (writing and writing.text)) and (any(seen.things) or writing):
            return Scene(seen.things, writing, background)
    return None


def _kept(source: "np.ndarray", picture: "np.ndarray", edit: Edit) -> Iterator[Fact]:
    before, after = edit.source, edit.target
    scale = source.shape[0] // pictures.SIDE
    for corner in scenes.free_corners(before.writing):
        if before.things[corner] == after.things[corner]:
            y, x = (CELL * scale * place for place in divmod(corner, 2))
            where = slice(y, y + CELL * scale), slice(x, x + CELL * scale)
            yield _same(source[where], picture[where], scenes.CORNERS[corner])
    if before.writing is not None and before.writing == after.writing:
        top = CELL * scale * scenes.ROWS.index(before.writing.row)
        yield _same(source[top : top + CELL * scale], picture[top : top + CELL * scale], before.writing.row)


def _same(one: "np.ndarray", other: "np.ndarray", place: str) -> Fact:
    import numpy as np

    return Fact(REST, place, AS_BEFORE, AS_BEFORE if float(np.abs(one - other).mean()) < KEPT else CHANGED)
