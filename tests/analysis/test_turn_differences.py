"""Differences from the baseline by turn: means over the chains of a cell, read from what is stored."""

import dataclasses
import random

from msgspec import structs

from sweep.analysis import turn_differences
from sweep.results.records import RunResult
from tests import stored


def in_turns(name: str, turns: int = 3) -> RunResult:
    """A result whose prompts are the turns of one line; its pictures have hashes that begin with `name`."""
    whole = stored.result_of(stored.template(), random.Random(0))
    rows = [one for one in whole.requests if one.repeat == 0][:turns]
    named = tuple(
        structs.replace(one, prompt_index=place, seed=0, turn=place + 1, image="a.png", image_hash=f"{name}{place}")
        for place, one in enumerate(rows)
    )
    return dataclasses.replace(whole, requests=named)


def test_each_turn_has_the_mean_of_its_pictures() -> None:
    mine, baseline = in_turns("a"), in_turns("b")
    known = {"a0:b0": [0.01, 0.1, 40.0, 1.0], "a2:b2": [0.03, 0.2, 30.0, 0.9]}
    found = turn_differences.by_turn(mine, baseline, known)
    assert found == {1: 0.01, 3: 0.03}, "nobody has compared the second"
    (note,) = turn_differences.note(found | {2: 0.02})
    assert note.code == turn_differences.BY_TURN
    assert not note.status


def test_pictures_that_are_the_baselines_are_not_worth_a_note() -> None:
    same = turn_differences.by_turn(in_turns("a"), in_turns("a"), {})
    assert same == {1: 0.0, 2: 0.0, 3: 0.0}
    assert turn_differences.note(same) == []
