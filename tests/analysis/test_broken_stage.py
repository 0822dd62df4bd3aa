"""The row of broken pictures names the stage that broke them: AR stage, hand-over, or DiT stage and VAE."""

import dataclasses
import random

import pytest
from msgspec import structs

from profiling.evidence import RankEvidence
from profiling.image_tokens import fingerprint
from sweep.analysis import broken_stage, prompt_checks
from sweep.analysis.prompt_checks import Checked, Checks, Wrong
from sweep.analysis.summary import Row, summarise
from sweep.checkpoints.world import codes, scenes, sentences
from sweep.config.feature import Feature
from sweep.findings import FAIL, has
from sweep.plan.plans import build_plan
from sweep.results.records import RunResult
from tests.stored import result_of, store, template

RING = Wrong("shape", "top left", "circle", "ring")
FEATURE = [Feature(name="teacache")]
GOOD = Checks({(place, 0): Checked(4, ()) for place in range(4)})


def checks_of(pictures: str, tokens: str, handed_over: bool = True) -> Checks:
    """One letter per picture: `r`ight, `w`rong; for tokens also `?`."""
    shown = {(place, 0): Checked(4, (RING,) * (one == "w")) for place, one in enumerate(pictures)}
    said = {(place, 0): (RING,) * (one == "w") for place, one in enumerate(tokens) if one != "?"}
    return Checks(shown, 0, said, handed_over)


@pytest.mark.parametrize(
    ("tokens", "handed_over", "code", "said"),
    [
        ("wwww", True, broken_stage.AR, "the AR stage's tokens already say so"),
        ("wwww", False, broken_stage.AR, "the AR stage's tokens already say so"),
        ("rrrr", True, broken_stage.DIT, "the DiT stage or the VAE"),
        ("rrrr", False, broken_stage.HAND_OVER, "received different tokens"),
        ("wwrr", True, prompt_checks.BREAKS, "in 2 of 4 the AR stage's tokens already say so"),
        ("????", True, prompt_checks.BREAKS, ""),
        ("rrr?", True, prompt_checks.BREAKS, ""),
    ],
)
def test_the_stage_that_broke_pictures_is_named(tokens: str, handed_over: bool, code: str, said: str) -> None:
    found = prompt_checks.judge(FEATURE, checks_of("wwww", tokens, handed_over), GOOD)
    assert (found[0].code, found[0].status) == (code, FAIL)
    assert said in found[0].text
    assert ("AR stage" in found[0].text) == bool(said)


@pytest.mark.parametrize(
    ("tokens", "status"),
    [("rrrr", None), ("wrrr", ""), ("wwrr", FAIL), ("w", ""), ("ww??", FAIL), ("????", None), ("r" * 20 + "ww", "")],
)
def test_an_ar_stage_that_often_says_something_else_fails_whatever_the_baseline_says(
    tokens: str, status: str | None
) -> None:
    mine = checks_of("r" * len(tokens), tokens)
    found = [*prompt_checks.judge([], mine, mine), *prompt_checks.notes([], mine)]
    assert [(one.code, one.status) for one in found] == ([] if status is None else [(broken_stage.AR_TOKENS, status)])
    assert all("top left: shape is ring, not circle" in one.text for one in found)


@pytest.mark.parametrize(
    ("pictures", "tokens", "handed_over", "noted"),
    [
        ("wwrr", "rrrr", True, True),
        ("wrrr", "rrrr", True, False),  # a trained model's few mistakes
        ("wwww", "rrrr", False, False),  # the hand-over is at fault
        ("wwww", "wwww", True, False),  # the AR stage is at fault
        ("wwww", "????", True, False),
    ],
)
def test_pictures_that_do_not_show_what_their_tokens_say_are_noted(
    pictures: str, tokens: str, handed_over: bool, noted: bool
) -> None:
    mine = checks_of(pictures, tokens, handed_over)
    assert has(prompt_checks.notes([], mine), broken_stage.DRAWN_WRONG) == noted
    feature = [Feature(name="teacache")]
    assert not has(prompt_checks.notes(feature, mine), broken_stage.DRAWN_WRONG), "a feature's row has a reason"


PROMPTS = ("a red circle in the top left", "two blue crosses", "the word 'AB' in blue at the top")
OTHERS = ("a red ring in the top left", "two green crosses", "the word 'ABC' in blue at the top")


def with_tokens(result: RunResult, said: tuple[str, ...], broken: bool = False) -> RunResult:
    """The result with tokens of these sentences, which the DiT stage received unless the hand-over is broken."""
    tokens = []
    for sentence in said:
        asked = sentences.read(sentence)
        assert asked is not None
        tokens.append(tuple(codes.target(scenes.arrange(asked, random.Random(1)))))
    requests = tuple(
        structs.replace(one, image=f"{one.prompt_index}.png", image_tokens=tokens[one.prompt_index])
        for one in result.requests
    )
    tokens_apart = {"tokens_sent": fingerprint(tokens[0]), "tokens_received": fingerprint((1,))}

    def counted(one: RankEvidence) -> RankEvidence:
        counts = {"hand_overs": 1, "hand_overs_broken": int(broken)}
        return structs.replace(one, settings=one.settings | (tokens_apart if broken else {}), counts=counts)

    batches = tuple(structs.replace(one, evidence=tuple(map(counted, one.evidence))) for one in result.batches)
    return dataclasses.replace(result, requests=requests, batches=batches, prompts=PROMPTS)


def row_of(tmp_path, said: tuple[str, ...], broken: bool = False, **workload: object) -> Row:
    """The row of a baseline whose AR stage wrote this and whose pictures are gone, so that only tokens are checked."""
    cell = template()
    cell = dataclasses.replace(cell, config={**cell.config, "workload": cell.config["workload"] | workload})
    plan = build_plan([cell])
    folder = store(tmp_path, plan)
    result = with_tokens(result_of(cell, random.Random(1), prompts=len(PROMPTS), repeats=1), said, broken)
    exact = {one.name: {"facts": 3, "wrong": []} for one in prompt_checks._known(folder, plan.cells[0], result)}
    folder.save_quality(cell, exact)
    prompt_checks.measure(folder, plan, {cell.key: result})
    (row,) = summarise(folder, plan, {cell.key: (result, "")}).rows
    return row


def test_the_row_of_right_tokens_says_so(tmp_path) -> None:
    row = row_of(tmp_path, PROMPTS)
    assert (row["status"], row["tokens_right"]) == ("PASS", 1.0)


def test_the_row_of_a_broken_ar_stage_fails(tmp_path) -> None:
    row = row_of(tmp_path, OTHERS)
    assert (row["status"], row["reason_code"], row["tokens_right"]) == ("FAIL", "ar_tokens_wrong", 0.0)
    assert "shape is ring, not circle" in row["reason"]


def test_the_row_of_a_broken_hand_over_fails(tmp_path) -> None:
    row = row_of(tmp_path, PROMPTS, broken=True)
    assert (row["status"], row["reason_code"], row["tokens_right"]) == ("FAIL", "hand_over_broken", 1.0)


def test_prompts_that_are_cut_ask_for_something_else(tmp_path) -> None:
    row = row_of(tmp_path, OTHERS, prompt_tokens=5)
    assert row["status"] == "PASS"
    assert "tokens_right" not in row
    assert has(row["notes"], "outside_world")
