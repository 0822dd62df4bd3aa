"""Image tokens of the world: what the AR stage writes, and what each token means. Defined here, not learnt.

An image is a preview of 16×16 tokens and then a target of (side ÷ 32)² tokens, which alone reaches the DiT. A preview
token is the colour of its cell as the scene has it on average. A target token says what is in its corner: nothing, a
thing with its shape, colour, texture and size, or half of a row of words with its length. Where exactly a thing is, how
large, and what the words say is not in it: that is left to the DiT and to the glyph encoder.

    0–19     preview: background, colour, half of each
    20–21    empty corner, by background
    22–117   words: colour, background, length, half
    118–405  a thing: shape, colour, texture and size, background
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.checkpoints.world import glyphs, pictures, scenes
from sweep.checkpoints.world.scenes import Scene, Thing, Writing

if TYPE_CHECKING:
    import numpy as np

PREVIEW_SIDE = 16  # for every square picture
PREVIEW = PREVIEW_SIDE**2
_SHAPES, _COLOURS, _BACKGROUNDS = scenes.SHAPES, tuple(scenes.COLOURS), tuple(scenes.BACKGROUNDS)
EMPTY = 2 + len(_COLOURS) + 2 * len(_COLOURS)
WORDS = EMPTY + len(_BACKGROUNDS)
THINGS = WORDS + len(_COLOURS) * len(_BACKGROUNDS) * scenes.LONGEST_TEXT * 2
COUNT = THINGS + len(_SHAPES) * len(_COLOURS) * len(scenes.LOOKS) * len(_BACKGROUNDS)
COVERED, HALF_COVERED = 0.6, 0.2  # share of a cell from which it has a thing's colour, or half of it


@dataclass(frozen=True)
class Meaning:
    """What a target token says of its corner. `kind`: preview, empty, words or thing; what does not apply is empty."""

    kind: str
    background: str = ""
    colour: str = ""
    shape: str = ""
    texture: str = ""
    size: str = ""
    length: int = 0  # characters in the row of words
    half: int = 0  # 0 its left half, 1 its right half


def encode(scene: Scene, grid: int = 2) -> list[int]:
    """All tokens of a scene, preview first: 256 + grid². `grid` is the picture's side ÷ 32; a multiple of 2."""
    return [*preview(scene), *target(scene, grid)]


def target(scene: Scene, grid: int = 2) -> list[int]:
    """The target tokens, row by row. ValueError for a grid that four corners cannot share."""
    if grid < 2 or grid % 2:
        raise ValueError(f"a grid of {grid}×{grid} tokens has no four corners")
    each = grid // 2
    corners = [_corner(scene, corner) for corner in range(4)]
    return [corners[2 * (y // each) + x // each] for y in range(grid) for x in range(grid)]


def meaning(token: int) -> Meaning:
    """What a target token says. ValueError for one that means nothing."""
    if 0 <= token < EMPTY:
        return Meaning("preview")
    if token < WORDS:
        return Meaning("empty", _BACKGROUNDS[token - EMPTY])
    if token < THINGS:
        rest, half = divmod(token - WORDS, 2)
        rest, length = divmod(rest, scenes.LONGEST_TEXT)
        colour, back = divmod(rest, len(_BACKGROUNDS))
        return Meaning("words", _BACKGROUNDS[back], _COLOURS[colour], length=length + 1, half=half)
    if token < COUNT:
        rest, back = divmod(token - THINGS, len(_BACKGROUNDS))
        rest, look = divmod(rest, len(scenes.LOOKS))
        shape, colour = divmod(rest, len(_COLOURS))
        return Meaning("thing", _BACKGROUNDS[back], _COLOURS[colour], _SHAPES[shape], *scenes.LOOKS[look])
    raise ValueError(f"token {token} means nothing: there are {COUNT}")


def preview(scene: Scene) -> list[int]:
    """The colour of each of 16×16 cells: background, a colour, or half of both."""
    import numpy as np

    back = _BACKGROUNDS.index(scene.background)
    cells = np.full((PREVIEW_SIDE, PREVIEW_SIDE), back)
    half = PREVIEW_SIDE // 2
    for corner, thing in enumerate(scene.things):
        if thing is not None:
            y, x = (half * place for place in divmod(corner, 2))
            cells[y : y + half, x : x + half] = _cells(_thing_cover(thing), thing.colour, back)
    if scene.writing is not None:
        y = half * scenes.ROWS.index(scene.writing.row)
        cells[y : y + half] = _cells(_boxes(scene.writing), scene.writing.colour, back)
    return [int(one) for one in cells.ravel()]


def _boxes(writing: Writing) -> "np.ndarray":
    """(32, 64): half of every pixel of a character's box, for any character."""
    import numpy as np

    row = np.zeros((pictures.CELL, pictures.SIDE), dtype=np.float32)
    left = (pictures.SIDE - len(writing.text) * glyphs.WIDTH) // 2
    top = (pictures.CELL - glyphs.HEIGHT) // 2
    row[top : top + glyphs.HEIGHT, left : left + len(writing.text) * glyphs.WIDTH] = (COVERED + HALF_COVERED) / 2
    return row


def _thing_cover(thing: Thing) -> "np.ndarray":
    low, high = pictures.RADII[thing.size]
    return pictures.cover(thing, (low + high) / 2, (0, 0))


def _cells(covered: "np.ndarray", colour: str, back: int) -> "np.ndarray":
    """Preview tokens of a region, from how much of each pixel is covered."""
    import numpy as np

    side = pictures.SIDE // PREVIEW_SIDE
    height, width = covered.shape
    part = covered.reshape(height // side, side, width // side, side).mean((1, 3))
    place = _COLOURS.index(colour)
    full, half = 2 + place, 2 + len(_COLOURS) * (1 + back) + place
    return np.where(part > COVERED, full, np.where(part > HALF_COVERED, half, back))


def _corner(scene: Scene, corner: int) -> int:
    back = _BACKGROUNDS.index(scene.background)
    writing, thing = scene.writing, scene.things[corner]
    if writing is not None and corner in scenes.corners_of_row(writing.row):
        row = _COLOURS.index(writing.colour) * len(_BACKGROUNDS) + back
        return WORDS + (row * scenes.LONGEST_TEXT + len(writing.text) - 1) * 2 + corner % 2
    if thing is None:
        return EMPTY + back
    look = scenes.LOOKS.index((thing.texture, thing.size))
    kind = _SHAPES.index(thing.shape) * len(_COLOURS) + _COLOURS.index(thing.colour)
    return THINGS + (kind * len(scenes.LOOKS) + look) * len(_BACKGROUNDS) + back
