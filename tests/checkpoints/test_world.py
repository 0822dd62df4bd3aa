"""The world: sentences, scenes and pictures agree, and what a picture shows is read back without a model."""

import itertools
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from sweep.checkpoints.world import checks, edit_checks, edits, glyphs, pictures, scenes, sentences
from sweep.checkpoints.world.scenes import Asked, Group, Scene, Writing
from tests.conftest import ROOT

SEEDS = range(400)


def wish(seed: int) -> tuple[Asked, random.Random]:
    rng = random.Random(seed)
    return scenes.draw_asked(rng), rng


def picture_of(asked: Asked, rng: random.Random, scale: int = 1) -> np.ndarray:
    return pictures.render(scenes.arrange(asked, rng), rng, scale)


def meaning(asked: Asked | None) -> tuple[Counter[Group], Writing | None, str] | None:
    """Without the order in which things are named."""
    return asked and (Counter(asked.groups), asked.writing, asked.background)


def test_a_sentence_says_what_was_asked_in_many_wordings() -> None:
    said = set()
    for seed in SEEDS:
        asked, rng = wish(seed)
        sentence = sentences.write(asked, rng)
        assert meaning(sentences.read(sentence)) == meaning(asked), sentence
        said |= {sentences.write(asked, rng) for _ in range(3)}
    assert len(said) > 2 * len(SEEDS)


@pytest.mark.parametrize(
    ("sentence", "asked"),
    [
        ("a red circle in the top left", Asked((Group("circle", "red", corner=0),))),
        (
            "Draw two big green crosses on black, please",
            Asked((Group("cross", "green", 2, size="large"),), None, "black"),
        ),
        (
            'the purple word "火山" at the bottom and a striped blue ring at the upper right corner',
            Asked((Group("ring", "blue", texture="striped", corner=1),), Writing("火山", "purple", "bottom")),
        ),
        ("the number '42' in orange at the top", Asked((), Writing("42", "orange", "top"))),
    ],
)
def test_sentences_of_people(sentence: str, asked: Asked) -> None:
    assert sentences.read(sentence) == asked


@pytest.mark.parametrize(
    "sentence",
    [
        *("", "a cat", "a red circle and a cat", "two red circle", "a red circles", "two red circles in the top left"),
        *("a small striped red ring", "a small large red ring", "a red circle on a green background"),
        "a red circle in the top left and a blue ring in the top left",
        'the word "AB" in red at the top and a blue ring at the top left',
        *('the word "ABCDE" in red at the top', 'the word "ab" in red at the top', 'the word "AB" at the top'),
        'the red word "AB" in blue at the top',
        'a red circle and "AB"',
        "a red circle on white on a black background",
        "five red circles",
    ],
)
def test_what_the_world_does_not_have_is_not_understood(sentence: str) -> None:
    assert sentences.read(sentence) is None


@pytest.mark.parametrize("scale", [1, 2])
def test_every_fact_of_a_true_picture_is_right(scale: int) -> None:
    kinds = Counter()
    for seed in SEEDS[: 120 // scale]:
        asked, rng = wish(seed)
        found = checks.facts(picture_of(asked, rng, scale), asked)
        assert [fact for fact in found if not fact.right] == [], (seed, asked)
        kinds.update(fact.kind for fact in found)
    assert set(kinds) == {
        *("background", "presence", "shape", "colour", "texture", "size", "count", "empty", "words", "words_colour")
    }


def test_what_a_picture_is_compared_with_is_what_is_drawn() -> None:
    made, poses, energy = checks._templates()
    assert len(made) == len(poses) > 5_000
    for row, pose in zip(made[::7], poses[::7], strict=True):
        assert np.array_equal(row, pictures.cover(pose.thing, pose.radius, pose.shift).ravel()), pose
    assert np.array_equal(energy, (made * made).sum(1))


def test_facts_of_another_sentence_are_right_by_chance_only() -> None:
    right, of = Counter[str](), Counter[str]()
    exact = 0
    for seed in SEEDS[:60]:
        (asked, rng), (other, _) = wish(seed), wish(seed + 1000)
        found = checks.facts(picture_of(asked, rng), other)
        exact += all(fact.right for fact in found)
        of.update(fact.kind for fact in found)
        right.update(fact.kind for fact in found if fact.right)
    share = {kind: right[kind] / of[kind] for kind in of}
    assert exact == 0
    assert share["words"] == 0
    assert max(share["shape"], share["colour"]) < 0.3
    assert share["background"] < 0.75, "two of three are white"


def test_noise_and_blank_pictures_show_nothing() -> None:
    asked = Asked((Group("circle", "red", corner=0),), Writing("AB", "blue", "bottom"))
    noise = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    for picture in (noise, np.ones((64, 64, 3), np.float32), np.zeros((64, 64, 3), np.float32)):
        facts = {(fact.kind, fact.place): fact.right for fact in checks.facts(picture, asked)}
        assert not facts["shape", "top left"]
        assert not facts["words", "bottom"]


def test_the_fact_that_broke_is_named() -> None:
    asked = Asked((Group("circle", "red", corner=0), Group("ring", "blue", size="large", corner=3)))
    wrong = Asked((Group("square", "red", corner=0), Group("ring", "green", size="small", corner=3)))
    found = checks.facts(picture_of(wrong, random.Random(0)), asked)
    assert [(fact.kind, fact.place, fact.asked, fact.seen) for fact in found if not fact.right] == [
        ("shape", "top left", "circle", "square"),
        ("colour", "bottom right", "blue", "green"),
        ("size", "bottom right", "large", "small"),
    ]


def test_things_may_be_anywhere_where_no_corner_is_asked_for() -> None:
    asked = Asked((Group("cross", "green", 2),))
    for one, two in itertools.combinations(range(4), 2):
        placed = Asked((Group("cross", "green", corner=one), Group("cross", "green", corner=two)))
        assert all(fact.right for fact in checks.facts(picture_of(placed, random.Random(one)), asked))
    three = checks.facts(picture_of(Asked((Group("cross", "green", 3),)), random.Random(0)), asked)
    assert [(fact.kind, fact.asked, fact.seen) for fact in three if not fact.right] == [("count", "2", "3")]


def test_pictures_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="64×64"):
        checks.facts(np.zeros((96, 64, 3), np.float32), Asked((Group("circle", "red"),)))


def test_the_same_seed_is_the_same_picture_and_larger_ones_show_the_same() -> None:
    asked, _ = wish(5)
    one, again, large = (picture_of(asked, random.Random(1), scale) for scale in (1, 1, 2))
    assert np.array_equal(one, again)
    assert large.shape == (128, 128, 3)
    assert np.abs(large.reshape(64, 2, 64, 2, 3).mean((1, 3)) - one).mean() < 0.02


def test_what_is_held_out_is_never_in_the_other_part() -> None:
    parts = {held: {*itertools.islice(scenes.wishes(1, held), 200)} for held in (True, False)}
    assert not parts[True] & parts[False]
    assert all(scenes.held_out(asked) == held for held, part in parts.items() for asked in part)


def test_an_edit_changes_what_it_names_and_nothing_else() -> None:
    kinds = Counter()
    for seed in SEEDS:
        asked, rng = wish(seed)
        source = scenes.arrange(asked, rng)
        edit = edits.draw_edit(source, rng)
        if edit is None:
            continue
        kinds[edit.kind] += 1
        changed = sum(one != other for one, other in zip(source.things, edit.target.things, strict=True))
        assert (changed, source.writing != edit.target.writing) == {
            **{"recolour": (1, False), "move": (2, False), "remove": (1, False), "rewrite": (0, True)}
        }[edit.kind], edit
        assert source.background == edit.target.background
        assert scenes.possible(edits.asked_of(edit.target))
    assert min(kinds[kind] for kind in ("recolour", "move", "remove", "rewrite")) > 20


def test_an_edited_picture_is_checked_like_any_other() -> None:
    source = Scene((scenes.Thing("ring", "red", "solid", "large"), None, None, None), None, "white")
    edit = next(one for seed in SEEDS if (one := edits.draw_edit(source, random.Random(seed))) and one.kind == "move")
    done = pictures.render(edit.target, random.Random(0))
    undone = pictures.render(source, random.Random(0))
    assert all(fact.right for fact in checks.facts(done, edits.asked_of(edit.target)))
    assert not all(fact.right for fact in checks.facts(undone, edits.asked_of(edit.target)))


def test_an_edited_picture_keeps_what_the_edit_does_not_name() -> None:
    """And a picture says what it shows, so that any can be edited; an instruction says what it asks of it."""
    for number, edit in enumerate(itertools.islice(edits.examples(2, held=True), 30)):
        placed = pictures.place(edit.source, random.Random(number))
        source = pictures.draw(edit.source, placed)
        assert edit_checks.read_scene(source) == edit.source
        assert edits.read(edit.instruction, edit.source) == edit
        done = pictures.draw(edit.target, edits.placed(edit, placed))
        assert [fact for fact in edit_checks.facts(source, done, edit) if not fact.right] == []
        undone = edit_checks.facts(source, source, edit)
        assert not all(fact.right for fact in undone)
        assert all(fact.right for fact in undone if fact.kind == edit_checks.REST)
        afresh = edit_checks.facts(source, pictures.render(edit.target, random.Random(-number)), edit)
        assert all(fact.right for fact in afresh if fact.kind != edit_checks.REST)


def test_a_thing_that_moved_by_itself_is_found() -> None:
    red, blue = (
        scenes.Thing(shape, colour, "solid", "large") for shape, colour in (("ring", "red"), ("square", "blue"))
    )
    source = Scene((red, blue, None, None), None, "white")
    edit = edits.read("paint the red ring green", source)
    assert edit is not None
    before = pictures.Placement(((11.0, 0, 0), (11.0, 0, 0), None, None))
    after = pictures.Placement(((11.0, 0, 0), (11.0, 3, 0), None, None))
    found = edit_checks.facts(pictures.draw(source, before), pictures.draw(edit.target, after), edit)
    assert [(fact.place, fact.seen) for fact in found if not fact.right] == [("top right", "changed")]


@pytest.mark.parametrize(
    "instruction",
    [
        *("", "make it nicer", "make the red circle blue", "make the red ring red", "remove the green square"),
        *("move the red ring to the top right", "move the red ring to the middle", 'change the word to "AB"'),
        "paint the red ring green and remove it",
    ],
)
def test_instructions_that_a_scene_does_not_allow_are_not_understood(instruction: str) -> None:
    things = (
        scenes.Thing("ring", "red", "solid", "large"),
        scenes.Thing("square", "blue", "solid", "small"),
        None,
        None,
    )
    assert edits.read(instruction, Scene(things, None, "white")) is None


def test_every_character_has_ink_and_looks_like_no_other() -> None:
    known = glyphs.glyphs()
    assert known.shape == (len(scenes.CHARACTERS), glyphs.HEIGHT, glyphs.WIDTH)
    assert known.sum((1, 2)).min() > 5
    apart = ((known[:, None] - known[None]) ** 2).sum((2, 3)) / (known**2).sum((1, 2))
    assert apart[~np.eye(len(known), dtype=bool)].min() > 0.1
    assert "SIL OPEN FONT LICENSE" in (glyphs.FILE.parent / "OFL.txt").read_text(encoding="utf-8")


def test_the_world_needs_no_torch() -> None:
    code = "import sys, sweep.checkpoints.world.checks; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"], "nor numpy before it is used"
