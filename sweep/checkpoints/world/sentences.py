"""Sentences that ask for a scene, and what a sentence asks for. Each is the other's inverse; tests hold that.

The grammar has many wordings of one wish. `read` refuses what the grammar does not cover: a model that was trained on
it does not know that either.
"""

import random
import re
from collections.abc import Callable, Sequence

from sweep.checkpoints.world import scenes
from sweep.checkpoints.world.scenes import Asked, Group, Writing

NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "2": 2, "3": 3, "4": 4}
QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("「", "」"))
OPENINGS = (
    *("", "", "", "a picture of ", "draw ", "please draw ", "an image with ", "show me ", "I would like to see "),
    *("a simple drawing of ", "there is "),
)
ENDINGS = ("", "", "", ", please", ", nice and clear", ", simple and flat", ", nothing else")
LARGE, SMALL = ("large", "big"), ("small", "little")
_SIZES = dict.fromkeys(LARGE, "large") | dict.fromkeys(SMALL, "small")
_ROWS = {"top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom"}
_PLURALS = {f"{shape}es" if shape == "cross" else f"{shape}s": shape for shape in scenes.SHAPES}
_NAMES = _PLURALS | {shape: shape for shape in scenes.SHAPES}
_COLOUR = "|".join(scenes.COLOURS)
_ROW = "top|bottom"

QUOTED = re.compile("|".join(f"{one}([^{one}{two}]*){two}" for one, two in QUOTES))
_WRITING = re.compile(
    rf"the (?:(?P<before>{_COLOUR}) )?(?:word|text|number|sign) ¶(?: in (?P<after>{_COLOUR}))? at the (?P<row>{_ROW})"
)
_GROUP = re.compile(
    rf"(?:(?P<count>{'|'.join(NUMBERS)}) )?(?P<adjectives>(?:(?:{'|'.join([*_SIZES, *scenes.TEXTURES])}) )*)"
    rf"(?P<colour>{_COLOUR}) (?P<shape>{'|'.join(sorted(_NAMES, key=len, reverse=True))})"
    rf"(?: (?:in|at) the (?P<row>{'|'.join(_ROWS)}) (?P<side>left|right)(?: corner)?)?(?![\w])"
)
_BACKGROUND = re.compile(rf"on a (?:plain )?({'|'.join(scenes.BACKGROUNDS)}) background|on (black|white)(?!\w)")
_FILLER = {
    *("a", "an", "and", "are", "clear", "draw", "drawing", "else", "flat", "i", "image", "is", "like", "me", "nice"),
    *("nothing", "of", "picture", "please", "see", "show", "simple", "there", "to", "with", "would"),
}


def write(asked: Asked, rng: random.Random) -> str:
    """One of the sentences that ask for this."""
    parts = [_group(group, rng) for group in asked.groups]
    if asked.writing:
        parts.append(_writing(asked.writing, rng))
    rng.shuffle(parts)
    last = rng.choice((" and ", ", ", " and ", " with ")) if len(parts) > 1 else ""
    said = ", ".join(parts[:-1]) + last + parts[-1]
    if asked.background == "black":
        said += rng.choice((" on a black background", " on a plain black background", " on black"))
    elif rng.random() < 0.25:
        said += rng.choice((" on a white background", " on white"))
    return rng.choice(OPENINGS) + said + rng.choice(ENDINGS)


def read(sentence: str) -> Asked | None:
    """What a sentence asks for; None where it says what this world does not have, or contradicts itself."""
    quoted = [next(text for text in found if text is not None) for found in _texts(sentence)]
    rest = re.sub(r"\s+", " ", QUOTED.sub("¶", sentence)).strip().lower()
    if len(quoted) > 1 or "¶" in sentence:
        return None
    taken: list[re.Match[str]] = []

    def take(pattern: re.Pattern[str]) -> list[re.Match[str]]:
        nonlocal rest
        found = [*pattern.finditer(rest)]
        rest = pattern.sub(" ", rest)
        taken.extend(found)
        return found

    backgrounds = {match[1] or match[2] for match in take(_BACKGROUND)}
    writings = take(_WRITING)
    groups = [_read_group(match) for match in take(_GROUP)]
    if len(backgrounds) > 1 or len(writings) != len(quoted) or None in groups or not _FILLER.issuperset(_words(rest)):
        return None
    writing = None
    if writings:
        (match,) = writings
        colour = match["before"] or match["after"]
        if bool(match["before"]) == bool(match["after"]) or not writable(quoted[0]):
            return None
        writing = Writing(quoted[0], colour, match["row"])
    asked = Asked(tuple(group for group in groups if group), writing, backgrounds.pop() if backgrounds else "white")
    return asked if (asked.groups or writing) and scenes.possible(asked) else None


def _group(group: Group, rng: random.Random) -> str:
    words: list[str] = []
    if group.count > 1:
        words.append(rng.choice([word for word, count in NUMBERS.items() if count == group.count]))
    else:
        words.append(rng.choice(("a", "a", "one", "")))
    adjectives = []
    if group.size:
        adjectives.append(rng.choice(LARGE if group.size == "large" else SMALL))
    if group.texture != "solid" or rng.random() < 0.1:
        adjectives.append(group.texture)
    rng.shuffle(adjectives)
    plural = {shape: word for word, shape in _PLURALS.items()}
    words += [*adjectives, group.colour, plural[group.shape] if group.count > 1 else group.shape]
    if words[0] == "a" and words[1][0] in "aeiou":
        words[0] = "an"
    if group.corner is not None:
        row, side = scenes.CORNERS[group.corner].split()
        other = {"top": "upper", "bottom": "lower"}[row]
        words.append(
            f"{rng.choice(('in', 'at'))} the {rng.choice((row, row, other))} {side}{rng.choice(('', ' corner'))}"
        )
    return " ".join(word for word in words if word)


def _writing(writing: Writing, rng: random.Random) -> str:
    one, two = rng.choice(QUOTES)
    kinds: Sequence[str] = (
        ("number", "number", "text") if writing.text.isdecimal() else ("word", "word", "text", "sign")
    )
    kind = rng.choice(kinds)
    place = f"at the {writing.row}"
    said: Sequence[Callable[[], str]] = (
        lambda: f"the {kind} {one}{writing.text}{two} in {writing.colour} {place}",
        lambda: f"the {writing.colour} {kind} {one}{writing.text}{two} {place}",
    )
    return rng.choice(said)()


def _texts(sentence: str) -> list[tuple[str | None, ...]]:
    return [match.groups() for match in QUOTED.finditer(sentence)]


def _read_group(match: re.Match[str]) -> Group | None:
    """None where words contradict each other: `two red circles in the top left`, `small large`, `two red circle`."""
    count = NUMBERS[match["count"] or "one"]
    adjectives = match["adjectives"].split()
    sizes = {_SIZES[word] for word in adjectives if word in _SIZES}
    textures = {word for word in adjectives if word in scenes.TEXTURES}
    plural = match["shape"] in _PLURALS
    if len(sizes) > 1 or len(textures) > 1 or plural != (count > 1) or (count > 1 and match["row"]):
        return None
    corner = scenes.CORNERS.index(f"{_ROWS[match['row']]} {match['side']}") if match["row"] else None
    texture = textures.pop() if textures else "solid"
    return Group(_NAMES[match["shape"]], match["colour"], count, texture, sizes.pop() if sizes else "", corner)


def writable(text: str) -> bool:
    """Whether the world can write this: one to four of its characters."""
    return 0 < len(text) <= scenes.LONGEST_TEXT and set(text) <= set(scenes.CHARACTERS)


def _words(text: str) -> list[str]:
    """Words and anything else that is not punctuation."""
    return re.findall(r"[^\s.,;:!]+", text)
