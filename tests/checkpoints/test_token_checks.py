"""Image tokens that answer a sentence are right whatever the arrangement; others are wrong, fact by fact."""

import random

import pytest

from sweep.checkpoints.world import codes, scenes, sentences, token_checks
from sweep.checkpoints.world.scenes import Asked

ABSENT = {"presence", "shape", "colour", "texture"}
NO_WORDS = {"length", "words_colour"}
WISHES = [scenes.draw_asked(random.Random(seed)) for seed in range(400)]


def tokens_of(asked: Asked, seed: int, grid: int = 2) -> list[int]:
    return codes.target(scenes.arrange(asked, random.Random(seed)), grid)


def right(target: list[int], asked: Asked) -> bool:
    return all(fact.right for fact in token_checks.facts(target, asked))


@pytest.mark.parametrize("grid", [2, 4])
def test_every_arrangement_that_answers_is_right(grid: int) -> None:
    for seed, asked in enumerate(WISHES):
        for again in range(3):
            assert right(tokens_of(asked, seed + 1000 * again, grid), asked), asked


def test_tokens_of_other_sentences_are_wrong() -> None:
    told = [tokens_of(asked, seed) for seed, asked in enumerate(WISHES)]
    others = sum(right(told[place - 1], asked) for place, asked in enumerate(WISHES))
    assert others < 0.02 * len(WISHES)
    alone = [place for place, asked in enumerate(WISHES) if len(set(told[place])) == 4 and not asked.groups[1:]]
    assert not any(right(told[place][::-1], WISHES[place]) for place in alone if WISHES[place].groups[0].corner)


@pytest.mark.parametrize(
    ("asked", "written", "kinds"),
    [
        ("a red circle in the top left", "a red ring in the top left", {"shape"}),
        ("a red circle in the top left", "a red circle in the top left on black", {"background"}),
        ("a red circle in the top left", "a red circle in the top right", ABSENT | {"empty"}),
        ("a big red circle in the top left", "a small blue circle in the top left", {"size", "colour"}),
        ("two red circles", "three red circles", {"count"}),
        ("the word 'AB' in blue at the top", "the word 'AC' in blue at the top", set()),
        ("the word 'AB' in blue at the top", "the word 'ABC' in blue at the top", {"length"}),
        ("the word 'AB' in blue at the top", "the word 'AB' in red at the top", {"words_colour"}),
        ("the word 'AB' in blue at the top", "the word 'AB' in blue at the bottom", NO_WORDS | {"empty"}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(asked: str, written: str, kinds: set[str]) -> None:
    wish, other = sentences.read(asked), sentences.read(written)
    assert wish is not None
    assert other is not None
    found = token_checks.facts(tokens_of(other, 1), wish)
    assert {fact.kind for fact in found if not fact.right} == kinds


def test_tokens_that_say_nothing_of_a_corner_are_wrong() -> None:
    asked = sentences.read("a red circle in the top left")
    assert asked is not None
    target = tokens_of(asked, 1)
    for nonsense in (0, codes.COUNT, 1023, -1):
        assert not right([*target[:3], nonsense], asked)
        assert not right([nonsense, *target[1:]], asked)
    finer = tokens_of(asked, 1, 4)
    assert not right([*finer[:5], finer[-1], *finer[6:]], asked), "one corner says two things"
    halves = tokens_of(wish := sentences.read("the word 'AB' in blue at the top"), 1)  # type: ignore[arg-type]
    assert not right([halves[1], halves[0], *halves[2:]], wish), "the halves of the words are swapped"


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_tokens_of_no_grid_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="no grid"):
        token_checks.facts([20] * count, WISHES[0])
