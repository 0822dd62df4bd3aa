"""Pictures of scenes, drawn by signed distances so that edges are smooth at every size.

A picture is 64×64 pixels or a whole multiple; all lengths here are pixels at 64×64. A corner is a cell of 32×32.
"""

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.checkpoints.world import glyphs, scenes
from sweep.checkpoints.world.scenes import Scene, Thing, Writing

if TYPE_CHECKING:
    import numpy as np

SIDE = 64
CELL = SIDE // 2
RADII = {"small": (6.0, 7.0), "large": (10.5, 12.0)}
"""Lowest and highest radius of a size; between them it is drawn at random."""

SHIFT = 3  # the furthest that a thing strays from the middle of its corner, in both directions
TEXT_SHIFT = (0, 2)  # the same for words, sideways and up or down
PERIOD = 4.0  # of stripes, and of dots in both directions


@dataclass(frozen=True)
class Placement:
    """Where things of a scene are exactly, which no sentence says. Lengths in pixels at 64×64."""

    things: tuple[tuple[float, int, int] | None, ...]  # by corner: radius, and shift from its middle across and down
    writing: tuple[int, int] = (0, 0)  # shift of the words across and down


def place(scene: Scene, rng: random.Random) -> Placement:
    """Radii and offsets at random."""
    things = tuple(
        None
        if thing is None
        else (rng.uniform(*RADII[thing.size]), rng.randint(-SHIFT, SHIFT), rng.randint(-SHIFT, SHIFT))
        for thing in scene.things
    )
    if scene.writing is None:
        return Placement(things)
    across, down = (rng.randint(-reach, reach) for reach in TEXT_SHIFT)
    return Placement(things, (across, down))


def render(scene: Scene, rng: random.Random, scale: int = 1) -> "np.ndarray":
    """(64 · scale, 64 · scale, 3) of float32 in [0, 1]: offsets and radii are drawn from `rng`."""
    return draw(scene, place(scene, rng), scale)


def draw(scene: Scene, placed: Placement, scale: int = 1) -> "np.ndarray":
    """The same with everything placed."""
    import numpy as np

    back = colour(scenes.BACKGROUNDS[scene.background])
    picture = np.broadcast_to(back, (SIDE * scale, SIDE * scale, 3)).copy()
    for corner, (thing, where) in enumerate(zip(scene.things, placed.things, strict=True)):
        if thing is not None and where is not None:
            radius, *shift = where
            y, x = (CELL * scale * place for place in divmod(corner, 2))
            covered = cover(thing, radius, (shift[0], shift[1]), scale)
            paint(picture[y : y + CELL * scale, x : x + CELL * scale], covered, thing.colour)
    if scene.writing is not None:
        top = CELL * scenes.ROWS.index(scene.writing.row) * scale
        paint(picture[top : top + CELL * scale], ink(scene.writing, *placed.writing, scale), scene.writing.colour)
    return picture


def paint(region: "np.ndarray", covered: "np.ndarray", name: str) -> None:
    """Mix a colour into a region of a picture, by how much of each pixel it covers."""
    region += covered[..., None] * (colour(scenes.COLOURS[name]) - region)


def colour(rgb: tuple[int, int, int]) -> "np.ndarray":
    """sRGB of 0 to 255 as float32 in [0, 1]."""
    import numpy as np

    return np.array(rgb, dtype=np.float32) / 255


def cover(thing: Thing, radius: float, shift: tuple[float, float], scale: int = 1) -> "np.ndarray":
    """(32 · scale, 32 · scale) of float32: how much of each pixel of its corner a thing covers."""
    line = along(0, CELL, scale)
    return cover_at(thing, radius, line[None] - shift[0], line[:, None] - shift[1], scale)


def along(first: int, end: int, scale: int = 1) -> "np.ndarray":
    """Where the middles of pixels lie, counted from the middle of a corner, from pixel `first` of it to `end`."""
    import numpy as np

    return (np.arange(first * scale, end * scale, dtype=np.float32) + 0.5) / scale - CELL / 2


def cover_at(thing: Thing, radius: float, x: "np.ndarray", y: "np.ndarray", scale: int = 1) -> "np.ndarray":
    """How much of each pixel a thing about the origin covers, for pixels in columns `x` and rows `y`."""
    import numpy as np

    inside = np.clip(0.5 - distance(thing.shape, x, y, radius) * scale, 0, 1)
    if thing.texture == "striped":
        inside = inside * np.clip(0.5 - (np.abs(_phase(y)) - PERIOD / 4) * scale, 0, 1)
    if thing.texture == "dotted":
        hole = np.sqrt(_phase(x) ** 2 + _phase(y) ** 2) - 0.36 * PERIOD
        inside = inside * np.clip(0.5 + hole * scale, 0, 1)
    return inside.astype(np.float32)


def distance(shape: str, x: "np.ndarray", y: "np.ndarray", r: float) -> "np.ndarray":
    """Signed distance to the edge of a shape of radius `r` about the origin, negative inside."""
    import numpy as np

    ax, ay = np.abs(x), np.abs(y)
    if shape == "circle":
        return np.hypot(x, y) - r
    if shape == "square":
        return np.maximum(ax, ay) - 0.86 * r
    if shape == "triangle":
        return np.maximum(y - 0.8 * r, (1.8 * ax - y - r) / math.hypot(1.8, 1))
    if shape == "cross":
        return np.minimum(np.maximum(ax - r, ay - 0.34 * r), np.maximum(ax - 0.34 * r, ay - r))
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.74 * r) - 0.26 * r
    if shape == "diamond":
        return (ax + ay - 1.15 * r) / math.sqrt(2)
    raise ValueError(f"no shape {shape!r}")


def ink(writing: Writing, across: int, down: int, scale: int = 1) -> "np.ndarray":
    """(32 · scale, 64 · scale): how much of each pixel of its row the words cover, shifted from the middle."""
    import numpy as np

    row = np.zeros((CELL, SIDE), dtype=np.float32)
    left = SIDE // 2 - len(writing.text) * glyphs.WIDTH // 2 + across
    top = (CELL - glyphs.HEIGHT) // 2 + down
    for place, character in enumerate(writing.text):
        x = left + place * glyphs.WIDTH
        row[top : top + glyphs.HEIGHT, x : x + glyphs.WIDTH] = glyphs.glyphs()[scenes.CHARACTERS.index(character)]
    return row.repeat(scale, axis=0).repeat(scale, axis=1)


def _phase(values: "np.ndarray") -> "np.ndarray":
    """Distance to the nearest multiple of PERIOD, with its sign."""
    import numpy as np

    return values - PERIOD * np.round(values / PERIOD)
