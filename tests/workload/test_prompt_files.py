"""Prompt files as practitioners have them: read, or refused with what to choose. Each is shaped like a public set."""

import json
from pathlib import Path

import pytest

from sweep.config.workload import Workload
from sweep.refusals import ConfigError
from sweep.workload.inputs import ReadOnce, read_inputs
from sweep.workload.prompt_files import read_prompt_file
from sweep.workload.prompts import load_prompts
from tests.conftest import ROOT

SHAPES = ROOT / "tests" / "data" / "prompts"
FOUR = ["A teapot on a stone wall", "Two crows, one red kite", "猫在月球上", 'He said "hi" & <b>left</b>']


@pytest.mark.parametrize(
    ("name", "column", "prompts"),
    [
        ("parti_style.tsv", None, ["A teapot", 'Two "crows"']),
        ("parti_style.tsv", "challenge", ["Basic", "Quantity"]),
        ("drawbench_style.csv", None, ["A teapot, red", "Two crows"]),
        ("drawbench_style.csv", "2", ["Category", "Colors", "Counting"]),  # by number: there is no header
        ("coco_style.json", None, FOUR[:1]),
        ("coco_style.jsonl", None, FOUR[:1]),
        ("mjhq_style.json", None, [FOUR[1], FOUR[0]]),
        ("sharegpt_style.json", "conversations.0.value", FOUR[:1]),
        ("batch_api.jsonl", "body.prompt", FOUR[:1]),
        ("geneval_style.jsonl", None, FOUR),
        ("geneval_style.jsonl", "include.0.class", ["teapot"] * 4),
        ("pretty.jsonl", None, FOUR[:1]),
        ("null_then_text.jsonl", None, FOUR[:1]),
        ("cr_only.txt", None, FOUR),
        ("utf16le_bom.txt", None, FOUR),
    ],
)
def test_prompts_of_a_file(name: str, column: str | None, prompts: list[str]) -> None:
    assert read_prompt_file(str(SHAPES / name), column) == prompts


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("p.csv", "Prompt;Category\r\nA teapot, red;x\r\n\r\n ;y\r\n", ["A teapot, red"]),
        ("p.csv", '\ufeffid,text\n1,"two\nlines"\n', ["two\nlines"]),
        ("p.json", '["a", "b"]', ["a", "b"]),
        ("p.json", '{"version": 1, "tags": [1], "prompts": ["a", "b"]}', ["a", "b"]),
        ("p.json", '{"prompt": "a"}\n{"prompt": "b"}\n', ["a", "b"]),
    ],
)
def test_prompts_of_further_shapes(tmp_path: Path, name: str, content: str, prompts: list[str]) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompt_file(str(tmp_path / name)) == prompts


@pytest.mark.parametrize(
    ("name", "column", "named"),
    [
        ("parti_style.txt", None, ["prompt, category", ".tsv"]),
        ("parti_style.txt", "Prompt", ["workload.prompts_column=Prompt:", ".txt"]),
        ("parti_style.tsv", "Promt", ["workload.prompts_column=Promt:", "'Prompt'", "Category"]),
        ("parti_style.tsv", "5", ["workload.prompts_column=5:"]),
        ("sharegpt_style.json", None, ["entry 1:", "id, conversations", "workload.prompts_column="]),
        ("batch_api.jsonl", None, ["line 1:", "custom_id, method, url, body", "workload.prompts_column="]),
        ("batch_api.jsonl", "body.promt", ["line 1:", "'body.promt'", "'prompt'"]),
        ("batch_api.jsonl", "body", ["line 1:", '"body"']),
    ],
)
def test_unclear_file_is_refused_with_what_to_choose(name: str, column: str | None, named: list[str]) -> None:
    refused(SHAPES / name, column, named)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("p.csv", "A teapot\nTwo crows\n", ["A teapot", "workload.prompts_column="]),
        ("p.csv", 'prompt,x\n"a" b,1\n', ["line 2:", "table"]),
        ("p.csv", "x,prompt\n1\n", ["line 2:", "2"]),
        ("p.csv", "prompt,x\n", ["no prompts"]),
        ("p.json", "{", ["JSON"]),
        ("p.json", "7", ['"prompt"']),
        ("p.json", '{"a": ["x"], "b": ["y"]}', ['"prompt"']),
        ("p.json", '[{"prompt": "a"}, 7]', ["entry 2:"]),
        ("p.json", "[" * 100_000, ["JSON"]),
        ("p.json", '["\\ud800"]', ["entry 1:", "Unicode"]),
    ],
)
def test_bad_file_is_refused(tmp_path: Path, name: str, content: str, named: list[str]) -> None:
    (tmp_path / name).write_text(content)
    refused(tmp_path / name, None, named)


def refused(path: Path, column: str | None, named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_prompt_file(str(path), column)
    message = str(caught.value)
    assert "\n" not in message
    assert all(fact in message for fact in named), message


@pytest.mark.parametrize(
    ("workload", "number", "codes"),
    [
        (Workload(prompts=str(SHAPES / "geneval_style.jsonl")), 4, []),
        (Workload(prompts=str(SHAPES / "geneval_style.jsonl"), shipped_prompts=2), 4, []),
        (Workload(prompts=str(SHAPES / "geneval_style.jsonl"), num_prompts=4), 4, []),
        (Workload(prompts=str(SHAPES / "geneval_style.jsonl"), num_prompts=3), 3, ["prompts_cut"]),
        (Workload(prompts=str(SHAPES / "geneval_style.jsonl"), num_prompts=5), 4, ["prompts_repeated"]),
        (Workload(prompts=str(SHAPES / "duplicates.txt"), num_prompts=1), 1, ["equal_prompts"]),
        (Workload(prompts=str(SHAPES / "duplicates.txt"), num_prompts=4), 1, ["equal_prompts", "prompts_repeated"]),
        (Workload(prompts=str(SHAPES / "controls.txt"), num_prompts=4), 4, ["control_characters"]),
        (Workload(prompt="a\tb\nc", num_prompts=1), 1, []),
        (Workload(prompt="a", num_prompts=2), 1, ["prompts_repeated"]),
        (Workload(num_prompts=4), 4, []),
        (Workload(num_prompts=21), 20, ["prompts_repeated"]),
    ],
)
def test_what_is_said_of_prompts(workload: Workload, number: int, codes: list[str]) -> None:
    found = read_inputs(workload)
    assert len(found.prompts) == len(set(found.prompts)) == number
    assert list(found.prompts) == load_prompts(workload)
    assert [note.code for note in found.notes] == codes
    assert all("\n" not in note.text and not note.status for note in found.notes)


def test_all_cells_of_a_plan_see_one_state_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a\n")
    read = ReadOnce()
    first = read(Workload(prompts=str(path), steps=3))
    path.write_text("b\n")
    assert read(Workload(prompts=str(path), steps=5)) is first
    assert read_inputs(Workload(prompts=str(path))).content != first.content


def test_notes_are_said_once_however_many_cells(sweep, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a\na\nb\nc\n")
    arguments = ("-m", "engine=noop", "plots=false", "aa=0", "workload.prompts=p.txt", "workload.num_prompts=2")
    done = sweep(*arguments, "batch=1,2", "hydra.sweep.dir=one")
    assert done.code == 0, done.err
    equal, cut = done.err.splitlines()
    assert "workload.prompts=p.txt: 1 of its 4 prompts" in equal
    assert "workload.num_prompts=2 takes only the first 2" in cut
    for stored in (tmp_path / "one").glob("*/result.json"):
        assert json.loads(stored.read_text())["prompts"] == ["a", "b"]
