"""Requests for texts: random prompts of exact lengths, conversations of a file, and files that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweep.config.workload import Workload
from sweep.refusals import ConfigError
from sweep.workload.inputs import Inputs, read_inputs
from sweep.workload.texts import OUTPUT_LEN, TOKEN_IDS, text_requests


def work(**given: Any) -> Workload:
    return Workload(**{"task": "text", "num_prompts": 1000, **given})


def said(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"id": "x", "conversations": [{"from": who, "value": text} for who, text in turns]}


def saved(folder: Path, *entries: Any) -> str:
    path = folder / "shared.json"
    path.write_text(json.dumps(list(entries)))
    return str(path)


def test_random_prompts_have_the_length_that_was_asked_for_and_are_never_the_same() -> None:
    workload = work(input_len=50, output_len=20)
    inputs = read_inputs(workload)
    assert inputs.prompts == ()
    tokens = text_requests(workload, 30, 7, inputs, as_tokens=True)
    assert {len(one.text.prompt_ids) for one in tokens if one.text} == {50}
    assert {token for one in tokens if one.text for token in one.text.prompt_ids} <= set(TOKEN_IDS)
    assert len({one.text.prompt_ids for one in tokens if one.text}) == 30
    assert {one.text.max_tokens for one in tokens if one.text} == {20}
    words = text_requests(workload, 30, 7, inputs, as_tokens=False)
    assert {len(one.prompt.split()) for one in words} == {50}
    assert len({one.prompt for one in words}) == 30
    assert {one.seed for one in words} == {7}


@pytest.mark.parametrize("as_tokens", [True, False])
def test_a_seed_gives_the_same_requests_and_more_of_them_begin_with_fewer(as_tokens: bool) -> None:
    workload = work(input_len=8)
    few, many, other = (
        text_requests(workload, n, seed, Inputs((), ""), as_tokens) for n, seed in ((3, 1), (9, 1), (3, 2))
    )
    assert many[:3] == few
    assert [one.prompt or one.text for one in other] != [one.prompt or one.text for one in few]
    assert few[0].text is not None
    assert few[0].text.max_tokens == OUTPUT_LEN


def test_conversations_are_asked_as_their_users_asked_and_answered_as_long(tmp_path: Path) -> None:
    short, long = said(("human", "hi"), ("gpt", "hello")), said(("user", "why?"), ("assistant", "because " * 100))
    begun = said(("gpt", "welcome"), ("human", "and?"), ("gpt", "that is all"))
    name = saved(tmp_path, short, said(("human", "alone")), long, begun, short)
    inputs = read_inputs(work(prompts=name))
    assert inputs.prompts == ("hi", "why?", "and?")
    assert inputs.output_lens == (1, 130, 4)
    found = text_requests(work(prompts=name), 5, 3, inputs, as_tokens=True)
    assert [one.prompt for one in found] == ["hi", "why?", "and?", "hi", "why?"]
    assert [one.seed for one in found] == [3, 3, 3, 4, 4]
    assert [one.text.max_tokens for one in found if one.text] == [1, 130, 4, 1, 130]
    fixed = text_requests(work(prompts=name, output_len=9), 2, 3, inputs, as_tokens=True)
    assert [one.text.max_tokens for one in fixed if one.text] == [9, 9]
    assert len(read_inputs(work(prompts=name, num_prompts=2)).output_lens) == 2
    assert Inputs.from_json(json.loads(json.dumps({**vars(inputs), "notes": []}))).output_lens == inputs.output_lens


def test_other_files_of_prompts_work_as_for_images(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("one\ntwo\n")
    inputs = read_inputs(work(prompts=str(path)))
    assert (inputs.prompts, inputs.output_lens) == (("one", "two"), ())
    assert [one.text.max_tokens for one in text_requests(work(prompt="x"), 1, 0, inputs, True) if one.text] == [
        OUTPUT_LEN
    ]


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ([said(("human", "alone"))], "no conversation in it has a question with an answer"),
        ([said(("human", "a"), ("gpt", "b")), 3], "entry 2"),
        ([said(("human", "a"), ("gpt", "b")), {"conversations": "none"}], "entry 2"),
        ([{"conversations": [{"from": "human"}]}], 'entry 1: a turn is no {"from"'),
        ([said(("human", "a\ud800"), ("gpt", "b"))], "not valid Unicode"),
    ],
)
def test_conversations_that_are_none_are_one_line(tmp_path: Path, entries: list[Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_inputs(work(prompts=saved(tmp_path, *entries)))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_are_not_made_of_conversations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_inputs(Workload(prompts=saved(tmp_path, said(("human", "a"), ("gpt", "b")))))
