"""What a sentence asks for, and scenes that answer it."""

import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (240, 215, 50),
    "green": (40, 160, 70),
    "blue": (40, 90, 220),
    "purple": (150, 60, 190),
}
"""Name → sRGB."""

BACKGROUNDS = {"white": (255, 255, 255), "black": (15, 15, 20)}
TEXTURES = ("solid", "striped", "dotted")
SIZES = ("small", "large")
LOOKS = (("solid", "small"), ("solid", "large"), ("striped", "large"), ("dotted", "large"))
"""Texture and size of a thing. On a small one, stripes and dots could not be distinguished from the shape."""

ROWS = ("top", "bottom")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
LATIN = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHINESE = "一人力十口土大女子小山工中天日月木水火手王心白石"
CHARACTERS = LATIN + CHINESE
"""Every character that can be written."""

LONGEST_TEXT = 4  # characters


@dataclass(frozen=True)
class Group:
    """Equal things that a sentence names together. `size` "" and `corner` None leave those open."""

    shape: str
    colour: str
    count: int = 1
    texture: str = "solid"
    size: str = ""
    corner: int | None = None  # index into CORNERS; only for a single thing


@dataclass(frozen=True)
class Writing:
    """One to four characters in a row of the picture."""

    text: str
    colour: str
    row: str  # top or bottom


@dataclass(frozen=True)
class Asked:
    """What a sentence asks for."""

    groups: tuple[Group, ...] = ()
    writing: Writing | None = None
    background: str = "white"


@dataclass(frozen=True)
class Thing:
    """One shape in a corner."""

    shape: str
    colour: str
    texture: str
    size: str


@dataclass(frozen=True)
class Scene:
    """A decided scene: what is in each corner, in the order of CORNERS."""

    things: tuple[Thing | None, ...]
    writing: Writing | None
    background: str


def corners_of_row(row: str) -> tuple[int, int]:
    """The corners that writing in this row takes."""
    return (0, 1) if row == "top" else (2, 3)


def free_corners(writing: Writing | None) -> tuple[int, ...]:
    """Corners where things can be."""
    taken = corners_of_row(writing.row) if writing else ()
    return tuple(corner for corner in range(4) if corner not in taken)


def draw_asked(rng: random.Random) -> Asked:
    """A wish at random: words in half of them, several equal things in about 2 of 10."""
    background = "black" if rng.random() < 0.35 else "white"
    writing = _draw_writing(rng) if rng.random() < 0.5 else None
    free = free_corners(writing)
    least = 0 if writing else 1
    things = rng.randint(least, len(free))
    if things > 1 and rng.random() < 0.35:
        count = rng.randint(2, things)
        together = _draw_group(rng, count, None)
        placed = rng.sample(free, things - count)
        others = [group for corner in placed if not _alike(group := _draw_group(rng, 1, corner), together)]
        return Asked((together, *others), writing, background)
    if things == 1 and rng.random() < 0.15:
        return Asked((_draw_group(rng, 1, None),), writing, background)
    groups = tuple(_draw_group(rng, 1, corner) for corner in rng.sample(free, things))
    return Asked(groups, writing, background)


def arrange(asked: Asked, rng: random.Random) -> Scene:
    """A scene that answers, with what is left open decided at random. ValueError or KeyError if it is not possible."""
    things: list[Thing | None] = [None] * 4
    free = set(free_corners(asked.writing))
    for group in sorted(asked.groups, key=lambda group: group.corner is None):
        places = [group.corner] if group.corner is not None else rng.sample(sorted(free), group.count)
        for place in places:
            free.remove(place)
            things[place] = Thing(
                group.shape, group.colour, group.texture, group.size or rng.choice(_sizes(group.texture))
            )
    return Scene(tuple(things), asked.writing, asked.background)


def possible(asked: Asked) -> bool:
    """Whether some scene answers: enough corners, none requested twice or under the writing, no small thing striped."""
    if any(group.size and group.size not in _sizes(group.texture) for group in asked.groups):
        return False
    free = free_corners(asked.writing)
    placed = [group.corner for group in asked.groups if group.corner is not None]
    things = sum(group.count for group in asked.groups)
    return len(set(placed)) == len(placed) and set(placed) <= set(free) and things <= len(free)


def held_out(asked: Asked) -> bool:
    """Whether training never sees it: 1 in 8 combinations of things, and 1 in 8 of the longer words."""
    if asked.writing and len(asked.writing.text) > 1 and _one_in_eight(asked.writing.text):
        return True
    return sum(group.count for group in asked.groups) > 1 and _one_in_eight(repr(asked.groups))


def wishes(seed: int, held: bool) -> Iterator[Asked]:
    """An endless stream of either part, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        asked = draw_asked(rng)
        if held_out(asked) == held:
            yield asked


def _draw_writing(rng: random.Random) -> Writing:
    kind: Sequence[str] = rng.choice((LATIN, LATIN, CHINESE, CHINESE, LATIN[:10]))
    length = rng.choice((1, 2, 2, 3, 3, 4))
    return Writing("".join(rng.choice(kind) for _ in range(length)), rng.choice([*COLOURS]), rng.choice(ROWS))


def _draw_group(rng: random.Random, count: int, corner: int | None) -> Group:
    texture = rng.choice(("solid", "solid", "striped", "dotted"))
    size = rng.choice(("", rng.choice(_sizes(texture))))
    return Group(rng.choice(SHAPES), rng.choice([*COLOURS]), count, texture, size, corner)


def _sizes(texture: str) -> tuple[str, ...]:
    """The sizes that a thing of this texture can have."""
    return tuple(size for kind, size in LOOKS if kind == texture)


def _alike(one: Group, other: Group) -> bool:
    return (one.shape, one.colour, one.texture) == (other.shape, other.colour, other.texture)


def _one_in_eight(text: str) -> bool:
    return zlib.crc32(text.encode()) % 8 == 0
