"""Whether image tokens say what a sentence asks for, fact by fact: what the AR stage wrote, before any DiT drew it.

Facts are those of pictures (`checks`), except for words: tokens give their number of characters, not the characters.
Any arrangement that answers the sentence is right.
"""

from collections.abc import Sequence

from sweep.checkpoints.world import codes, scenes
from sweep.checkpoints.world.checks import Fact, of_things
from sweep.checkpoints.world.codes import Meaning
from sweep.checkpoints.world.scenes import Asked, Thing

VERSION = 1
"""Version of what is found in tokens; raise it when the same tokens give other facts."""

BLOT = Thing("", "", "", "")
"""The thing in a corner whose tokens mean nothing that can be there."""


def facts(target: Sequence[int], asked: Asked) -> list[Fact]:
    """Every fact of a wish, for the target tokens of a picture, row by row. ValueError for a number that is no grid."""
    corners = _corners(target)
    backgrounds = {one.background for one in corners}
    found = [Fact("background", "", asked.background, backgrounds.pop() if len(backgrounds) == 1 else "")]
    if asked.writing:
        halves = [corners[corner] for corner in scenes.corners_of_row(asked.writing.row)]
        found += _of_words(asked.writing.row, len(asked.writing.text), asked.writing.colour, halves)
    return found + of_things(tuple(map(_thing, corners)), asked)


def _corners(target: Sequence[int]) -> list[Meaning]:
    """What the tokens say about each corner; `preview`, which nothing can be, if they contradict each other."""
    grid = round(len(target) ** 0.5)
    if grid**2 != len(target) or grid < 2 or grid % 2:
        raise ValueError(f"{len(target)} target tokens are no grid that four corners share")
    said: list[set[int]] = [set() for _ in scenes.CORNERS]
    for place, token in enumerate(target):
        row, column = divmod(place, grid)
        said[2 * (row // (grid // 2)) + column // (grid // 2)].add(token)
    return [_meaning(tokens.pop()) if len(tokens) == 1 else Meaning("preview") for tokens in said]


def _meaning(token: int) -> Meaning:
    return codes.meaning(token) if 0 <= token < codes.COUNT else Meaning("preview")


def _of_words(row: str, length: int, colour: str, halves: Sequence[Meaning]) -> list[Fact]:
    whole = [one.kind for one in halves] == ["words", "words"] and [one.half for one in halves] == [0, 1]
    lengths, colours = {one.length for one in halves}, {one.colour for one in halves}
    seen = str(lengths.pop()) if whole and len(lengths) == 1 else ""
    return [
        Fact("length", row, str(length), seen),
        Fact("words_colour", row, colour, colours.pop() if whole and len(colours) == 1 else ""),
    ]


def _thing(said: Meaning) -> Thing | None:
    if said.kind == "empty":
        return None
    return Thing(said.shape, said.colour, said.texture, said.size) if said.kind == "thing" else BLOT
