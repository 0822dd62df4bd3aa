"""Whether pictures show what was asked: shares, intervals, what a feature breaks, and prompts outside the world."""

import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs
from PIL import Image

from sweep.analysis import prompt_checks
from sweep.analysis.prompt_checks import Checked, Checks, Wrong
from sweep.checkpoints.world import edits, pictures, scenes, sentences
from sweep.checkpoints.world.shares import wilson
from sweep.config.feature import Feature, Gate
from sweep.findings import FAIL, WARN
from sweep.plan.plans import Plan, build_plan
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult
from sweep.run import source_pictures
from tests.stored import result_of, store, template

RIGHT = Checked(4, ())
WRONG = Checked(4, (Wrong("shape", "top left", "circle", "ring"),))


def checks_of(*right: bool) -> Checks:
    return Checks({(place, 0): RIGHT if one else WRONG for place, one in enumerate(right)})


def test_shares_of_pictures_and_facts() -> None:
    found = prompt_checks.columns(checks_of(True, True, True, False))
    assert found["pictures_checked"] == 4
    assert found["exact_rate"] == 0.75
    assert found["facts_right"] == 1 - 1 / 16
    assert prompt_checks.columns(Checks({})) == {}


def test_the_interval_is_wilsons() -> None:
    """For 8 of 10: 0.4902 to 0.9433 (Newcombe 1998, Statist. Med. 17:857, method 3)."""
    low, high = wilson(8, 10)
    assert math.isclose(low, 0.4902, abs_tol=1e-4)
    assert math.isclose(high, 0.9433, abs_tol=1e-4)
    assert wilson(4, 4)[1] == 1.0
    assert wilson(0, 4)[0] == 0.0


@pytest.mark.parametrize(
    ("baseline", "mine", "status"),
    [
        ((True,) * 4, (True,) * 4, None),
        ((True,) * 4, (True, True, False, False), FAIL),
        ((True,) * 4, (True, True, True, False), WARN),
        ((True,) * 40, (True,) * 39 + (False,), WARN),
        ((True, False), (True, False), None),  # what the baseline breaks is not the feature's
        ((True, False), (False, True), None),  # as many mended as broken
    ],
)
def test_a_feature_answers_for_what_it_breaks(
    baseline: tuple[bool, ...], mine: tuple[bool, ...], status: str | None
) -> None:
    found = prompt_checks.judge([Feature(name="teacache")], checks_of(*mine), checks_of(*baseline))
    assert [(one.code, one.status) for one in found] == ([("breaks_facts", status)] if status else [])
    assert all("top left: shape is ring, not circle" in one.text for one in found)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Wrong("words", "bottom", "M8Q", ""), "bottom: text is unreadable, not M8Q"),
        (Wrong("words_colour", "top", "red", "blue"), "top: colour of the text is blue, not red"),
        (Wrong("presence", "top left", "a thing", "nothing"), "top left: nothing is there"),
        (
            Wrong("empty", "top right", "nothing", "small solid red circle"),
            "top right: small solid red circle is there",
        ),
        (Wrong("count", "", "3", "2"), "count is 2, not 3"),
    ],
)
def test_a_broken_fact_in_words(wrong: Wrong, text: str) -> None:
    assert wrong.text == text


def test_a_gate_may_allow_more() -> None:
    tolerant = Feature(name="teacache", gate=Gate(fail_broken=0.5))
    (found,) = prompt_checks.judge([tolerant], checks_of(True, True, False, False), checks_of(*(True,) * 4))
    assert found.status == WARN


Stored = tuple[SweepFolder, Plan, RunResult]


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Stored]:
    """A sweep of one cell with one picture, which shows `shown` although `asked` was requested."""

    def made(asked: str, shown: str, **workload: object) -> Stored:
        cell = template()
        cell = dataclasses.replace(cell, config={**cell.config, "workload": cell.config["workload"] | workload})
        plan = build_plan([cell])
        folder = store(tmp_path / "sweep", plan)
        (cell,) = plan.cells
        wish, rng = sentences.read(shown), random.Random(1)
        assert wish is not None
        drawn = Image.fromarray((pictures.render(scenes.arrange(wish, rng), rng) * 255).round().astype("uint8"))
        drawn.save(folder.cell_path(cell) / "one.png")
        result = result_of(cell, rng, prompts=1, repeats=1)
        digest = hashlib.sha256(drawn.tobytes()).hexdigest()
        request = structs.replace(result.requests[0], image="one.png", image_hash=digest)
        return folder, plan, dataclasses.replace(result, requests=(request,), prompts=(asked,))

    return made


def checked(stored: Stored) -> Checks | None:
    folder, plan, result = stored
    prompt_checks.measure(folder, plan, {result.key: result})
    return prompt_checks.of(folder, plan.cells[0], result)


CIRCLE, RING = "a red circle in the top left", "a red ring in the top left"


def test_what_a_picture_shows_is_stored_with_the_cell(stored: Callable[..., Stored]) -> None:
    folder, plan, result = stored(CIRCLE, RING)
    found = checked((folder, plan, result))
    assert found is not None
    (one,) = found.pictures.values()
    assert [wrong.text for wrong in one.wrong] == ["top left: shape is ring, not circle"]
    (folder.cell_path(plan.cells[0]) / "one.png").unlink()
    assert checked((folder, plan, result)) == found, "it is not read again"


def test_a_prompt_outside_the_world_is_said_to_be_so(stored: Callable[..., Stored]) -> None:
    found = checked(stored("A red fox asleep on a mossy log", CIRCLE))
    assert found == Checks({}, outside=1)
    assert [one.code for one in prompt_checks.notes([], found)] == ["outside_world"]
    assert prompt_checks.judge([Feature(name="teacache")], found, found) == []


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"checks": False}, ""),
        ({"width": 128, "height": 128}, "trained at 64×64 alone"),
    ],
)
def test_pictures_that_the_model_was_not_trained_for_are_not_checked(
    workload: dict[str, object], said: str, stored: Callable[..., Stored]
) -> None:
    folder, plan, result = stored(CIRCLE, CIRCLE, **workload)
    assert checked((folder, plan, result)) is None
    why = prompt_checks.untrained(plan.cells[0])
    assert said in why.text if why else not said


def test_weights_of_before_have_not_learnt_edits(stored: Callable[..., Stored]) -> None:
    _, plan, _ = stored(CIRCLE, CIRCLE, task="image_edit")
    (cell,) = plan.cells
    assert prompt_checks.untrained(cell) is None
    before = dataclasses.replace(cell, config={**cell.config, "model": {**cell.config["model"], "weights": "world_1"}})
    why = prompt_checks.untrained(before)
    assert why is not None
    assert "has not learnt edits" in why.text


EDIT = "paint the orange ring blue"


@pytest.mark.parametrize(
    ("instruction", "done", "wrong"),
    [
        (EDIT, EDIT, []),
        (EDIT, "", ["top left: colour is orange, not blue"]),
        ('change the word to "NO"', 'change the word to "NO"', []),
        (EDIT, 'change the word to "NO"', ["bottom: text is NO, not GO", "top left: colour is orange, not blue"]),
        ("make it nicer", EDIT, None),
        ("remove the blue square", EDIT, None),
    ],
)
def test_an_edit_is_checked_against_its_source(
    instruction: str, done: str, wrong: list[str] | None, stored: Callable[..., Stored]
) -> None:
    """The source that the engine edited is the picture made for its seed."""
    folder, plan, result = stored(instruction, CIRCLE, task="image_edit")
    (cell,), (request,) = plan.cells, result.requests
    source_pictures.make(folder.made_input(cell, request.seed), request.seed, (64, 64))
    placed = pictures.place(edits.EXAMPLE, random.Random(request.seed))
    edit = edits.read(done, edits.EXAMPLE)
    picture = pictures.draw(edit.target, edits.placed(edit, placed)) if edit else pictures.draw(edits.EXAMPLE, placed)
    drawn = Image.fromarray((picture * 255).round().astype("uint8"))
    drawn.save(folder.cell_path(cell) / "one.png")
    request = structs.replace(request, image_hash=hashlib.sha256(drawn.tobytes()).hexdigest())
    found = checked((folder, plan, dataclasses.replace(result, requests=(request,))))
    assert found is not None
    if wrong is None:
        assert found == Checks({}, outside=1)
        return
    (one,) = found.pictures.values()
    assert sorted(fact.text for fact in one.wrong if "changed" not in fact.text) == wrong


def test_an_edit_without_its_source_is_not_checked(stored: Callable[..., Stored]) -> None:
    assert checked(stored(EDIT, CIRCLE, task="image_edit")) == Checks({}, outside=1)


def test_what_is_stored_and_cannot_be_is_checked_again(stored: Callable[..., Stored]) -> None:
    folder, plan, result = stored(CIRCLE, CIRCLE)
    found = checked((folder, plan, result))
    file = folder.cell_path(plan.cells[0]) / "quality.json"
    (name,) = json.loads(file.read_text())
    for damage in ({"facts": 1, "wrong": [[1, 2, 3, 4]]}, {"facts": 0, "wrong": []}, {"facts": 1}, "facts"):
        file.write_text(json.dumps({name: damage}))
        assert checked((folder, plan, result)) == found
