"""Which picture a later turn is sent with, and what is said where there is none."""

import dataclasses
from pathlib import Path

import pytest

from sweep.engines.process.failures import EngineFailure
from sweep.engines.protocol import Request
from sweep.run import turn_taking
from sweep.run.schedule import Turn

FIRST = Request("r000", "one", 0, 7, 64, 64, 8, 4.0, input_image="/a.png", line=1, turn=1)
SECOND = dataclasses.replace(FIRST, prompt="two", prompt_index=1, input_image="", turn=2, follows=0)


def test_a_later_turn_gets_the_picture_that_the_cell_made_before(tmp_path: Path) -> None:
    turn = Turn((SECOND,), 0, "")
    with pytest.raises(EngineFailure, match="turn 2 has no picture to edit: turn 1 made none") as failure:
        turn_taking.with_made(turn, tmp_path, generates=True)
    assert failure.value.alive, "the engine can go on with others"
    assert turn_taking.with_made(turn, tmp_path, generates=False) == turn, "an engine without pictures needs none"
    (tmp_path / "images").mkdir()
    made = tmp_path / "images" / "prompt_00_seed_7.png"
    made.touch()
    (request,) = turn_taking.with_made(turn, tmp_path, generates=True).requests
    assert request == dataclasses.replace(SECOND, input_image=str(made))


def test_warm_ups_are_of_pictures_that_are_there(tmp_path: Path) -> None:
    masked = dataclasses.replace(FIRST, mask="/m.png")
    assert turn_taking.first_of_each_shape([[FIRST], [SECOND], [masked], [FIRST]]) == [(FIRST,), (masked,)]
