"""`+combos=FILE`: a file with lists is a sweep over a server; a bad one is one line."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.plan.combos import parameters
from sweep.refusals import ConfigError
from tests.conftest import Finished
from tests.test_cli_errors import check_refused

FILE = """
model: "org/model's"
base_url: http://127.0.0.1:1
tokenizer: org/model
input_len: [256, 512, 1024]
output_len: [64, 128]
concurrency: [1, 50]
prompt: [1000]
"""


def test_every_combination_of_the_lists_is_a_cell(
    sweep: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvloop")
    (tmp_path / "combos.yaml").write_text(FILE)
    done = sweep("-m", "+combos=combos.yaml", "dry_run=true")
    assert done.code == 0, done.out + done.err
    assert "12 cells to run, 0 skipped, 1 engine start" in done.out
    for lengths in itertools.product((256, 512, 1024), (64, 128)):
        assert "input_len={} output_len={}".format(*lengths) in done.out


def test_the_command_line_wins(sweep: Callable[..., Finished], tmp_path: Path) -> None:
    (tmp_path / "combos.yaml").write_text(FILE)
    done = sweep("-m", "+combos=combos.yaml", "load.max_concurrency=2", "load.num_requests=10", "dry_run=true")
    assert done.code == 0, done.out + done.err
    assert "6 cells to run" in done.out


BAD = {
    "input_ln: [1]": ["input_ln", "input_len"],
    "input_len: [a]": ["input_len=a", "whole number"],
    "input_len: []": ["input_len", "empty"],
    "base_url: 3": ["base_url=3", "text"],
    "- 1": ["combos=", "input_len"],
    "": ["combos=", "input_len"],
    "a: [": ["not YAML"],
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "combos.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        parameters(tmp_path / "combos.yaml")
    assert "\n" not in str(caught.value)
    assert all(fact in str(caught.value) for fact in BAD[text]), caught.value


def test_a_missing_file_is_refused_through_the_command_line(
    sweep: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(sweep("-m", "+combos=missing.yaml"), tmp_path, ["combos=missing.yaml", "No such file"])
