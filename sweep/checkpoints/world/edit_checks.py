"""Whether an edited picture shows what was asked, and whether everything else is as it was.

The source scene is read from the source picture, so any picture of the world can be edited and checked.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sweep.checkpoints.world import checks, edits, pictures, scenes
from sweep.checkpoints.world.checks import Fact
from sweep.checkpoints.world.edits import Edit
from sweep.checkpoints.world.pictures import CELL
from sweep.checkpoints.world.scenes import Scene

if TYPE_CHECKING:
    import numpy as np

VERSION = 1
"""Version of what is found in an edited picture; raise it, or that of `checks`, when equal pictures give new facts."""

KEPT = 0.03
"""Highest mean absolute difference, in [0, 1], of a corner or of a row of words that an edit left alone."""

REST = "rest"
"""Kind of the facts about each corner and row that an edit does not name."""

AS_BEFORE, CHANGED = "as before", "changed"


def facts(source: "np.ndarray", picture: "np.ndarray", edit: Edit) -> list[Fact]:
    """Every fact of an edit. Pictures (64 · n, 64 · n, 3) in [0, 1] of one size; ValueError for others.

    For a later turn, `source` is the previous turn's picture, which may show something other than the edit's source.
    """
    _check_sizes(source, picture)
    return [*checks.facts(picture, edits.asked_of(edit.target)), *_kept(source, picture, edit)]


def drift(source: "np.ndarray", picture: "np.ndarray", done: Sequence[Edit]) -> float | None:
    """How much the edits in `done`, one after the other, have changed what none of them names.

    Mean absolute difference from the first source, in [0, 1], of the corner or row of words where it is largest; None
    where they have named everything. Sizes as for `facts`.
    """
    _check_sizes(source, picture)
    first, last = done[0].source, done[-1].target
    named = {corner for edit in done for corner in range(4) if edit.source.things[corner] != edit.target.things[corner]}
    words = all(edit.source.writing == edit.target.writing for edit in done)
    left = [where for where, corner in _corners(source, first) if corner not in named]
    left += [_row(source, first)] if first.writing is not None and words and first.writing == last.writing else []
    return max((_difference(source[where], picture[where]) for where in left), default=None)


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


def _check_sizes(source: "np.ndarray", picture: "np.ndarray") -> None:
    if source.shape != picture.shape:
        raise ValueError(f"an edit keeps the size of its picture: {source.shape} became {picture.shape}")


def _kept(source: "np.ndarray", picture: "np.ndarray", edit: Edit) -> Iterator[Fact]:
    before, after = edit.source, edit.target
    for where, corner in _corners(source, before):
        if before.things[corner] == after.things[corner]:
            yield _same(source[where], picture[where], scenes.CORNERS[corner])
    if before.writing is not None and before.writing == after.writing:
        where = _row(source, before)
        yield _same(source[where], picture[where], before.writing.row)


def _corners(source: "np.ndarray", scene: Scene) -> Iterator[tuple[tuple[slice, ...], int]]:
    """Where in a picture each corner is that things can be in."""
    side = CELL * (source.shape[0] // pictures.SIDE)
    for corner in scenes.free_corners(scene.writing):
        y, x = (side * place for place in divmod(corner, 2))
        yield (slice(y, y + side), slice(x, x + side)), corner


def _row(source: "np.ndarray", scene: Scene) -> tuple[slice, ...]:
    """Where the words are."""
    assert scene.writing is not None
    side = CELL * (source.shape[0] // pictures.SIDE)
    top = side * scenes.ROWS.index(scene.writing.row)
    return (slice(top, top + side),)


def _same(one: "np.ndarray", other: "np.ndarray", place: str) -> Fact:
    return Fact(REST, place, AS_BEFORE, AS_BEFORE if _difference(one, other) < KEPT else CHANGED)


def _difference(one: "np.ndarray", other: "np.ndarray") -> float:
    import numpy as np

    return float(np.abs(one - other).mean())
