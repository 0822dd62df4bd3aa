"""Edits: a scene, an instruction, and the scene that it asks for.

Four kinds: recolour, move, remove, replace the words. Everything else must stay as it was.
"""

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass

from sweep.checkpoints.world import scenes
from sweep.checkpoints.world.scenes import Asked, Group, Scene, Thing, Writing
from sweep.checkpoints.world.sentences import QUOTES


@dataclass(frozen=True)
class Edit:
    """An instruction about a source scene."""

    kind: str  # recolour, move, remove, rewrite
    source: Scene
    instruction: str
    target: Scene


def draw_edit(source: Scene, rng: random.Random) -> Edit | None:
    """An edit that this scene allows, at random; None for a scene that allows none."""
    kinds: list[Callable[[Scene, random.Random], Edit | None]] = [_recolour, _move, _remove, _rewrite]
    rng.shuffle(kinds)
    return next((edit for kind in kinds if (edit := kind(source, rng)) is not None), None)


def asked_of(scene: Scene) -> Asked:
    """A scene with everything decided, as a wish: what an edited picture is checked against."""
    groups = tuple(
        Group(thing.shape, thing.colour, 1, thing.texture, thing.size, corner)
        for corner, thing in enumerate(scene.things)
        if thing is not None
    )
    return Asked(groups, scene.writing, scene.background)


def _recolour(source: Scene, rng: random.Random) -> Edit | None:
    if (named := _named(source, rng)) is None:
        return None
    corner, thing, name = named
    colour = rng.choice([other for other in scenes.COLOURS if other != thing.colour])
    said = rng.choice((f"make {name} {colour}", f"paint {name} {colour}", f"change the colour of {name} to {colour}"))
    return Edit("recolour", source, said, _with(source, {corner: dataclasses.replace(thing, colour=colour)}))


def _move(source: Scene, rng: random.Random) -> Edit | None:
    named = _named(source, rng)
    empty = [corner for corner in scenes.free_corners(source.writing) if source.things[corner] is None]
    if named is None or not empty:
        return None
    corner, thing, name = named
    place = rng.choice(empty)
    said = rng.choice(
        (f"move {name} to the {scenes.CORNERS[place]}", f"put {name} in the {scenes.CORNERS[place]} corner")
    )
    return Edit("move", source, said, _with(source, {corner: None, place: thing}))


def _remove(source: Scene, rng: random.Random) -> Edit | None:
    if (named := _named(source, rng)) is None or sum(thing is not None for thing in source.things) < 2:
        return None
    corner, _, name = named
    return Edit("remove", source, rng.choice((f"remove {name}", f"take {name} away")), _with(source, {corner: None}))


def _rewrite(source: Scene, rng: random.Random) -> Edit | None:
    if source.writing is None:
        return None
    old = source.writing
    alphabet = scenes.CHINESE if old.text[0] in scenes.CHINESE else scenes.LATIN
    text = "".join(rng.choice(alphabet) for _ in old.text)
    if text == old.text:
        return None
    one, two = rng.choice(QUOTES)
    said = rng.choice((f"change the word to {one}{text}{two}", f"let the text be {one}{text}{two}"))
    return Edit("rewrite", source, said, dataclasses.replace(source, writing=Writing(text, old.colour, old.row)))


def _named(source: Scene, rng: random.Random) -> tuple[int, Thing, str] | None:
    """A thing that its colour and shape tell from the others, with its name."""
    there = [(corner, thing) for corner, thing in enumerate(source.things) if thing is not None]
    looks = [(thing.colour, thing.shape) for _, thing in there]
    alone = [one for one, look in zip(there, looks, strict=True) if looks.count(look) == 1]
    if not alone:
        return None
    corner, thing = rng.choice(alone)
    return corner, thing, f"the {thing.colour} {thing.shape}"


def _with(scene: Scene, changed: dict[int, Thing | None]) -> Scene:
    return dataclasses.replace(scene, things=tuple(changed.get(place, one) for place, one in enumerate(scene.things)))
