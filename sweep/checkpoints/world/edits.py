"""Edits: a scene, an instruction, and the scene that it asks for.

Four kinds: recolour, move, remove, replace the words. Everything else must stay as it was.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sweep.checkpoints.world import scenes
from sweep.checkpoints.world.pictures import Placement
from sweep.checkpoints.world.scenes import Asked, Group, Scene, Thing, Writing
from sweep.checkpoints.world.sentences import QUOTED, QUOTES, writable

_NAME = rf"the (?P<colour>{'|'.join(scenes.COLOURS)}) (?P<shape>{'|'.join(scenes.SHAPES)})"
_TO = rf"(?P<to>{'|'.join(scenes.COLOURS)})"
_CORNER = rf"(?P<corner>{'|'.join(scenes.CORNERS)})"
_READ = {
    "recolour": (rf"(?:make|paint) {_NAME} {_TO}", rf"change the colour of {_NAME} to {_TO}"),
    "move": (rf"move {_NAME} to the {_CORNER}", rf"put {_NAME} in the {_CORNER} corner"),
    "remove": (rf"remove {_NAME}", rf"take {_NAME} away"),
    "rewrite": ("change the word to ¶", "let the text be ¶"),
}
_READ_PATTERNS = [(kind, re.compile(rf"(?:please )?{one}[.]?")) for kind, ways in _READ.items() for one in ways]


@dataclass(frozen=True)
class Edit:
    """An instruction about a source scene."""

    kind: str  # recolour, move, remove, rewrite
    source: Scene
    instruction: str
    target: Scene


EXAMPLE = Scene(
    (Thing("ring", "orange", "solid", "large"), None, None, None), Writing("GO", "purple", "bottom"), "white"
)
"""A scene that allows every kind. The shipped instructions, `workload.prompt_set=world_edits`, are about it."""


def draw_edit(source: Scene, rng: random.Random) -> Edit | None:
    """An edit that this scene allows, at random; None for a scene that allows none."""
    kinds: list[Callable[[Scene, random.Random], str]] = [_recolour, _move, _remove, _rewrite]
    rng.shuffle(kinds)
    said = next(filter(None, (kind(source, rng) for kind in kinds)), "")
    edit = read(said, source)
    if edit is None or rng.random() < 0.75:
        return edit
    return dataclasses.replace(edit, instruction=f"please {edit.instruction}")


def examples(seed: int, held: bool) -> Iterator[Edit]:
    """Endless edits of scenes that training sees, or that are held out; the same for the same seed."""
    rng = random.Random(seed)
    for asked in scenes.wishes(seed, held):
        if (edit := draw_edit(scenes.arrange(asked, rng), rng)) is not None:
            yield edit


def read(instruction: str, source: Scene) -> Edit | None:
    """The edit that an instruction asks for; None if it says what this world does not have or this scene not allow."""
    quoted = [next(text for text in found.groups() if text is not None) for found in QUOTED.finditer(instruction)]
    said = re.sub(r"\s+", " ", QUOTED.sub("¶", instruction)).strip().lower()
    for kind, pattern in _READ_PATTERNS:
        if (match := pattern.fullmatch(said)) and len(quoted) == (kind == "rewrite"):
            target = _written(source, quoted[0]) if quoted else _changed(source, kind, match.groupdict())
            return Edit(kind, source, instruction, target) if target is not None and target != source else None
    return None


def placed(edit: Edit, source: Placement) -> Placement:
    """Where things of the edited scene are: where they were, a moved one as in the corner that it comes from."""
    left = [corner for corner, thing in enumerate(edit.target.things) if thing is None and edit.source.things[corner]]
    things = tuple(
        None if thing is None else source.things[corner] if edit.source.things[corner] else source.things[left[0]]
        for corner, thing in enumerate(edit.target.things)
    )
    return Placement(things, source.writing)


def asked_of(scene: Scene) -> Asked:
    """A scene with everything decided, as a wish: what an edited picture is checked against."""
    groups = tuple(
        Group(thing.shape, thing.colour, 1, thing.texture, thing.size, corner)
        for corner, thing in enumerate(scene.things)
        if thing is not None
    )
    return Asked(groups, scene.writing, scene.background)


def _recolour(source: Scene, rng: random.Random) -> str:
    """An instruction; "" where the scene allows none of this kind."""
    if (named := _named(source, rng)) is None:
        return ""
    thing, name = named
    colour = rng.choice([other for other in scenes.COLOURS if other != thing.colour])
    return rng.choice((f"make {name} {colour}", f"paint {name} {colour}", f"change the colour of {name} to {colour}"))


def _move(source: Scene, rng: random.Random) -> str:
    named = _named(source, rng)
    empty = [corner for corner in scenes.free_corners(source.writing) if source.things[corner] is None]
    if named is None or not empty:
        return ""
    name, place = named[1], scenes.CORNERS[rng.choice(empty)]
    return rng.choice((f"move {name} to the {place}", f"put {name} in the {place} corner"))


def _remove(source: Scene, rng: random.Random) -> str:
    named = _named(source, rng)
    alone = sum(thing is not None for thing in source.things) == 1 and not source.writing
    if named is None or alone:
        return ""
    return rng.choice((f"remove {named[1]}", f"take {named[1]} away"))


def _rewrite(source: Scene, rng: random.Random) -> str:
    if source.writing is None:
        return ""
    old = source.writing
    alphabet = scenes.CHINESE if old.text[0] in scenes.CHINESE else scenes.LATIN
    text = "".join(rng.choice(alphabet) for _ in old.text)
    if text == old.text:
        return ""
    one, two = rng.choice(QUOTES)
    return rng.choice((f"change the word to {one}{text}{two}", f"let the text be {one}{text}{two}"))


def _named(source: Scene, rng: random.Random) -> tuple[Thing, str] | None:
    """A thing that its colour and shape identify, with its name."""
    there = [thing for thing in source.things if thing is not None]
    looks = [(thing.colour, thing.shape) for thing in there]
    alone = [thing for thing, look in zip(there, looks, strict=True) if looks.count(look) == 1]
    if not alone:
        return None
    thing = rng.choice(alone)
    return thing, f"the {thing.colour} {thing.shape}"


def _changed(source: Scene, kind: str, said: dict[str, str | None]) -> Scene | None:
    """None where no single thing has that name, the place is taken or nothing would be left."""
    named = [
        (corner, thing)
        for corner, thing in enumerate(source.things)
        if thing is not None and (thing.colour, thing.shape) == (said["colour"], said["shape"])
    ]
    if len(named) != 1:
        return None
    (corner, thing), *_ = named
    if kind == "recolour":
        return _with(source, {corner: dataclasses.replace(thing, colour=said["to"] or "")})
    if kind == "remove":
        target = _with(source, {corner: None})
        return target if any(target.things) or target.writing else None
    place = scenes.CORNERS.index(said["corner"] or "")
    if place not in scenes.free_corners(source.writing) or source.things[place] is not None:
        return None
    return _with(source, {corner: None, place: thing})


def _written(source: Scene, text: str) -> Scene | None:
    """None where there are no words, or the new ones cannot be written or are not as long."""
    old = source.writing
    if old is None or not writable(text) or len(text) != len(old.text):
        return None
    return dataclasses.replace(source, writing=Writing(text, old.colour, old.row))


def _with(scene: Scene, changed: dict[int, Thing | None]) -> Scene:
    return dataclasses.replace(scene, things=tuple(changed.get(place, one) for place, one in enumerate(scene.things)))
