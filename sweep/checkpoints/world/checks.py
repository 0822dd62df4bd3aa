"""Whether a picture shows what a sentence asks for, fact by fact, by image analysis that knows nothing of models.

Things are found by the best of all their possible pictures (template matching), words by the best line of characters.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.checkpoints.world import glyphs, pictures, scenes
from sweep.checkpoints.world.pictures import CELL, SIDE
from sweep.checkpoints.world.scenes import Asked, Group, Thing, Writing

if TYPE_CHECKING:
    import numpy as np

VERSION = 3
"""Version of what is found in a picture; raise it when the same picture gives other facts."""

LIMIT = 0.5
"""Highest squared error of a thing or word, relative to its own ink, at which it still counts; above, it is a blot."""

LEAST_STRENGTH = 0.25  # distance in RGB from which a pixel differs from the background
LEAST_AREA = 24  # such pixels in a corner that make a thing; the smallest has 60
FURTHEST_BACKGROUND = 0.3  # in RGB
STRAY = 1  # pixels by which things may stray further than they are drawn
CANDIDATES = 400  # best poses examined, of about 7,000
DOUBT = 0.15  # things whose errors differ by less are compared again, by steps of half a pixel
FINER = 0.5  # pixels
TIE = 0.03
"""Things whose errors differ by less look alike: a picture gets the benefit of the doubt, so that an invisible
difference breaks no fact."""


@dataclass(frozen=True)
class _Pose:
    """A thing without its colour, as it is drawn at one place."""

    thing: Thing
    radius: float
    shift: tuple[float, float]


@dataclass(frozen=True)
class Fact:
    """One thing that a sentence asks for, or that follows from it, and what the picture has instead."""

    kind: str  # background, presence, shape, colour, texture, size, count, words, words_colour, empty
    place: str  # `top left`, `top`, or "" for the whole picture
    asked: str
    seen: str

    @property
    def right(self) -> bool:
        """Whether the picture has it."""
        return self.asked == self.seen


@dataclass(frozen=True)
class Seen:
    """What a picture shows."""

    background: str  # "" when it is not a known one
    things: tuple[Thing | None, ...]  # by corner; a shape of "" is a blot
    rows: tuple[Writing | None, ...]  # words at the top and at the bottom; a text of "" cannot be read


def facts(picture: "np.ndarray", asked: Asked) -> list[Fact]:
    """Every fact of a wish. `picture`: (64 · n, 64 · n, 3) in [0, 1]; ValueError for other shapes."""
    seen = look(picture, asked.background, asked.writing.row if asked.writing else "", asked.groups)
    found = [Fact("background", "", asked.background, seen.background)]
    if asked.writing:
        written = seen.rows[scenes.ROWS.index(asked.writing.row)] or Writing("", "", asked.writing.row)
        found.append(Fact("words", asked.writing.row, asked.writing.text, written.text))
        found.append(Fact("words_colour", asked.writing.row, asked.writing.colour, written.colour))
    return found + of_things(seen.things, asked)


def of_things(things: tuple[Thing | None, ...], asked: Asked) -> list[Fact]:
    """The facts of a wish that are about things, for what is in each corner; a shape of "" is a blot."""
    found: list[Fact] = []
    corners = {group.corner: group for group in asked.groups if group.corner is not None}
    for corner, group in sorted(corners.items()):
        found += _of_thing(group, things[corner], scenes.CORNERS[corner])
    left = [corner for corner in scenes.free_corners(asked.writing) if corner not in corners]
    anywhere = [group for group in asked.groups if group.corner is None]
    if anywhere:
        found += _anywhere(anywhere, {corner: things[corner] for corner in left})
    else:
        for corner in left:
            thing = things[corner]
            found.append(Fact("empty", scenes.CORNERS[corner], "nothing", _described(thing) if thing else "nothing"))
    return found


def _anywhere(groups: list[Group], things: dict[int, Thing | None]) -> Iterator[Fact]:
    """Facts of things whose corners are open: how many there are, and what each is."""
    there = [thing for thing in things.values() if thing is not None]
    yield Fact("count", "", str(sum(group.count for group in groups)), str(len(there)))
    wanted = [dataclasses.replace(group, count=1) for group in groups for _ in range(group.count)]
    for group in wanted:
        best = max(there, key=lambda thing: sum(_agreement(group, thing)), default=None)
        if best is not None:
            there.remove(best)
        yield from _of_thing(group, best, "")


def _of_thing(group: Group, thing: Thing | None, place: str) -> Iterator[Fact]:
    yield Fact("presence", place, "a thing", "a thing" if thing else "nothing")
    seen = thing or Thing("", "", "", "")
    yield Fact("shape", place, group.shape, seen.shape)
    yield Fact("colour", place, group.colour, seen.colour)
    yield Fact("texture", place, group.texture, seen.texture)
    if group.size:
        yield Fact("size", place, group.size, seen.size)


def _agreement(group: Group, thing: Thing) -> tuple[bool, ...]:
    same_size = not group.size or group.size == thing.size
    return group.shape == thing.shape, group.colour == thing.colour, group.texture == thing.texture, same_size


def _described(thing: Thing) -> str:
    return " ".join(filter(None, (thing.size, thing.texture, thing.colour, thing.shape or "blot")))


def look(picture: "np.ndarray", background: str, writing_row: str, groups: Sequence[Group] = ()) -> Seen:
    """What a picture shows, if it is on this background and has words in this row at most ("" for none).

    If several things look alike in a corner, it shows one of `groups`, if that may be there.
    """
    picture = _at_64(picture)
    back = pictures.colour(scenes.BACKGROUNDS[background])
    rows = tuple(
        read_row(picture[CELL * place : CELL * (place + 1)], back, row) if row == writing_row else None
        for place, row in enumerate(scenes.ROWS)
    )
    taken = scenes.corners_of_row(writing_row) if writing_row else ()
    things = tuple(
        None if corner in taken else read_corner(picture[y : y + CELL, x : x + CELL], back, _possible(groups, corner))
        for corner, (y, x) in enumerate(itertools.product((0, CELL), repeat=2))
    )
    return Seen(_background(picture), things, rows)


def background_of(picture: "np.ndarray") -> str:
    """The background of a picture, "" when it is not a known one; ValueError if this is not a picture of the world."""
    return _background(_at_64(picture))


def _possible(groups: Sequence[Group], corner: int) -> list[Group]:
    """Groups that ask for this corner; without any, groups that ask for no corner."""
    here = [group for group in groups if group.corner == corner]
    return here or [group for group in groups if group.corner is None]


def read_corner(cell: "np.ndarray", back: "np.ndarray", possible: Sequence[Group] = ()) -> Thing | None:
    """The thing in a corner (32, 32, 3); None for nothing, a shape of "" for anything that is not a thing.

    If several things look alike (TIE), it is one of `possible`.
    """
    colour, covered, area = _ink(cell, back)
    if area < LEAST_AREA:
        return None
    made, poses, energy = _templates()
    flat = covered.ravel()
    error = (float(flat @ flat) - 2 * (made @ flat) + energy) / energy
    best: dict[tuple[str, str, str], tuple[float, _Pose]] = {}
    for place in error.argsort()[:CANDIDATES]:
        pose = poses[place]
        best.setdefault((pose.thing.shape, pose.thing.texture, pose.thing.size), (float(error[place]), pose))
    nearest = min(found for found, _ in best.values())
    close = [one for one in best.values() if one[0] < nearest + DOUBT]
    if len(close) > 1:
        close = [(_finer(flat, pose), pose) for _, pose in close]
    least, pose = min(close, key=lambda one: one[0])
    if least >= LIMIT:
        return Thing("", colour, "", "")
    alike = [other.thing for error, other in close if error < least + TIE and _is_one_of(other.thing, possible)]
    return dataclasses.replace(alike[0] if alike else pose.thing, colour=colour)


def _is_one_of(thing: Thing, groups: Sequence[Group]) -> bool:
    """Ignores its colour."""
    return any(
        (thing.shape, thing.texture) == (group.shape, group.texture) and group.size in ("", thing.size)
        for group in groups
    )


def _finer(flat: "np.ndarray", pose: "_Pose") -> float:
    """The least squared error of a thing near this pose, by steps of half a pixel: models draw between pixels."""
    import numpy as np

    low, high = pictures.RADII[pose.thing.size]
    least = np.inf
    for radius in (pose.radius - FINER, pose.radius, pose.radius + FINER):
        for across, down in itertools.product((-FINER, 0.0, FINER), repeat=2):
            shift = pose.shift[0] + across, pose.shift[1] + down
            made = pictures.cover(pose.thing, min(max(radius, low - FINER), high + FINER), shift).ravel()
            energy = float(made @ made)
            least = min(least, float(flat @ flat - 2 * (made @ flat) + energy) / energy)
    return float(least)


def read_row(band: "np.ndarray", back: "np.ndarray", row: str) -> Writing | None:
    """The words in a row (32, 64, 3); None for nothing, a text of "" for what cannot be read."""
    import numpy as np

    colour, covered, area = _ink(band, back)
    if area < LEAST_AREA // 2:
        return None
    known = glyphs.glyphs()
    windows = np.lib.stride_tricks.sliding_window_view(covered, (glyphs.HEIGHT, glyphs.WIDTH))
    fit = np.tensordot(windows, known, axes=((2, 3), (1, 2)))
    worth = (known * known).sum((1, 2)) - 2 * fit  # what a character here adds to the squared error
    which, gain = worth.argmin(-1), worth.min(-1)
    across, down = (reach + STRAY for reach in pictures.TEXT_SHIFT)
    best: tuple[float, list[int]] | None = None
    for length, dx, dy in itertools.product(
        range(1, scenes.LONGEST_TEXT + 1), range(-across, across + 1), range(-down, down + 1)
    ):
        y, left = (CELL - glyphs.HEIGHT) // 2 + dy, SIDE // 2 - length * glyphs.WIDTH // 2 + dx
        places = [left + place * glyphs.WIDTH for place in range(length)]
        if places[0] < 0 or places[-1] > SIDE - glyphs.WIDTH:
            continue
        value = float(sum(gain[y, x] for x in places))
        if best is None or value < best[0]:
            best = value, [int(which[y, x]) for x in places]
    assert best is not None
    error = (float((covered * covered).sum()) + best[0]) / float(sum((known[one] ** 2).sum() for one in best[1]))
    return Writing("".join(scenes.CHARACTERS[one] for one in best[1]) if error < LIMIT else "", colour, row)


def _ink(region: "np.ndarray", back: "np.ndarray") -> tuple[str, "np.ndarray", int]:
    """The colour that explains best what differs from the background, how much of it each pixel holds, and where."""
    import numpy as np

    differs = region - back
    area = int((np.sqrt((differs**2).sum(-1)) > LEAST_STRENGTH).sum())
    best: tuple[float, str, np.ndarray] | None = None
    for name, rgb in scenes.COLOURS.items():
        axis = pictures.colour(rgb) - back
        part = np.clip(differs @ axis / (axis @ axis), 0, 1)
        left = float(((differs - part[..., None] * axis) ** 2).sum())
        if best is None or left < best[0]:
            best = left, name, part
    assert best is not None
    return best[1], best[2], area


def _background(picture: "np.ndarray") -> str:
    """The background whose colour the edge has; "" when its colour is not a known one."""
    import numpy as np

    edge = np.concatenate([picture[:2].reshape(-1, 3), picture[-2:].reshape(-1, 3)])
    edge = np.concatenate([edge, picture[:, :2].reshape(-1, 3), picture[:, -2:].reshape(-1, 3)])
    middle = np.median(edge, axis=0)
    far = {name: float(np.linalg.norm(pictures.colour(rgb) - middle)) for name, rgb in scenes.BACKGROUNDS.items()}
    nearest = min(far, key=far.__getitem__)
    return nearest if far[nearest] < FURTHEST_BACKGROUND else ""


def _at_64(picture: "np.ndarray") -> "np.ndarray":
    """Averaged down to 64×64."""
    height, width, channels = picture.shape
    if height != width or height % SIDE or channels != 3:
        raise ValueError(f"a picture of the world is 64×64 or a multiple of it in 3 channels, not {picture.shape}")
    scale = height // SIDE
    return picture.reshape(SIDE, scale, SIDE, scale, 3).mean((1, 3))


@functools.cache
def _templates() -> tuple["np.ndarray", list["_Pose"], "np.ndarray"]:
    """Every picture that a thing can be, as rows of 1024 pixels; what each shows; its energy.

    Each is drawn once with room around it: a shift by whole pixels is another part of that.
    """
    import numpy as np

    made, poses = [], []
    reach = pictures.SHIFT + STRAY
    shifts = [(x, y) for x in range(-reach, reach + 1) for y in range(-reach, reach + 1)]
    line = pictures.along(-reach, CELL + reach)
    for shape, (texture, size) in itertools.product(scenes.SHAPES, scenes.LOOKS):
        low, high = pictures.RADII[size]
        for radius in np.linspace(low, high, 3 if size == "small" else 4):
            thing = Thing(shape, "", texture, size)
            whole = pictures.cover_at(thing, float(radius), line[None], line[:, None])
            for x, y in shifts:
                made.append(whole[reach - y : reach - y + CELL, reach - x : reach - x + CELL].ravel())
                poses.append(_Pose(thing, float(radius), (x, y)))
    table = np.stack(made)
    return table, poses, (table * table).sum(1)
