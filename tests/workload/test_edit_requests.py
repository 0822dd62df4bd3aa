"""Edits in several turns as requests: which are sent together, in which order, and what each is given."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sweep.config.workload import Workload
from sweep.refusals import ConfigError
from sweep.workload.inputs import Inputs, read_inputs
from sweep.workload.requests import batches, build_requests, number_of_requests

TURNS = {"image": "a.png", "turns": ["one", {"instruction": "two", "negative_prompt": "blurred"}, "three"]}
OTHER = {"image": "b.png", "turns": ["uno", "due", "tre"], "id": "for people"}
SINGLE = {"image": "a.png", "instruction": "once"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("a.png", "red"), ("b.png", "blue"), ("mask.png", "white")):
        Image.new("RGB", (48, 32), colour).save(tmp_path / name)
    return tmp_path


def listed(folder: Path, *lines: Mapping[str, Any], **changes: Any) -> Workload:
    (folder / "edits.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return Workload(task="image_edit", edits=str(folder), **changes)


def test_a_turn_follows_the_one_before_with_the_same_seed(folder: Path) -> None:
    workload = listed(folder, TURNS, seeds_per_prompt=2, input_width=96)
    first, *_ = requests = build_requests(workload, batch=2, seed=7)
    assert [(r.prompt, r.seed) for r in requests] == [(said, s) for said in ("one", "two", "three") for s in (7, 8)]
    assert first.input_image == str(folder / "a.png")
    assert [(r.turn, r.follows, r.input_image) for r in requests[2::2]] == [(2, 0, ""), (3, 1, "")]
    assert [r.negative_prompt for r in requests[::2]] == [" ", "blurred", " "]
    assert {r.input_size for r in requests} == {(96, 96)}, "the other side keeps the shape of the result"


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_turns_of_one_line_are_never_in_one_batch(folder: Path, batch: int) -> None:
    workload = listed(folder, TURNS, SINGLE, OTHER, {**SINGLE, "mask": "mask.png"}, num_prompts=4)
    inputs = read_inputs(workload)
    requests = build_requests(workload, batch, 0, inputs)
    assert len(requests) == number_of_requests(workload, batch, inputs)
    done: set[tuple[int, int]] = set()
    for together in batches(requests, batch):
        assert len(together) == batch
        assert len({(r.turn, r.mask is None) for r in together}) == 1, "one call of a model"
        assert all(r.follows is None or (r.follows, r.seed) in done for r in together)
        keys = {(r.prompt_index, r.seed) for r in together}
        assert len(keys - done) == batch
        done |= keys
    assert done >= {(r.prompt_index, r.seed) for r in build_requests(workload, 1, 0, inputs)}


def test_lines_that_fit_into_one_batch_take_turns(folder: Path) -> None:
    negative = {**SINGLE, "image": "b.png", "negative_prompt": "blurred"}
    requests = build_requests(listed(folder, SINGLE, negative, num_prompts=4), 2, 0)
    assert [(r.line, r.seed, r.negative_prompt) for r in requests] == [
        *((1, 0, " "), (2, 0, "blurred")),
        *((1, 1, " "), (2, 1, "blurred")),
    ]


def test_a_line_with_several_pictures_and_a_mask(folder: Path) -> None:
    further = {"instruction": "like this", "image": "b.png"}
    line = {"image": ["a.png", "b.png"], "mask": "mask.png", "turns": ["join them", further]}
    first, second = build_requests(listed(folder, line), 1, 0)
    assert first.images == (str(folder / "a.png"), str(folder / "b.png"))
    assert second.images == ("", str(folder / "b.png")), "what the turn before makes comes first"
    assert first.mask == second.mask == str(folder / "mask.png")


def test_equal_lines_are_one_and_a_change_of_any_file_is_another_sweep(folder: Path) -> None:
    workload = listed(folder, SINGLE, {**SINGLE, "id": "again"}, OTHER)
    inputs = read_inputs(workload)
    assert (inputs.number, len(inputs.edits), [note.code for note in inputs.notes]) == (2, 4, ["equal_prompts"])
    assert Inputs.from_json(json.loads(json.dumps(dataclasses.asdict(inputs)))) == inputs
    Image.new("RGB", (48, 32), "green").save(folder / "b.png")
    assert read_inputs(workload).content != inputs.content


def test_a_folder_goes_with_nothing_else_that_says_what_to_edit(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"drop workload\.prompt=a fox"):
        listed(folder, SINGLE, prompt="a fox")
    with pytest.raises(ConfigError, match=r"workload\.edits=.* goes with workload=image_edit"):
        Workload(edits=str(folder))
    with pytest.raises(ConfigError, match=r"workload\.prompt_set=world_turns: goes with workload=image_edit"):
        Workload(prompt_set="world_turns")
    with pytest.raises(ConfigError, match=r"prompt_set=world_turns has pictures .* drop workload\.input_image=a\.png"):
        Workload(task="image_edit", prompt_set="world_turns", input_image="a.png")
