"""The shipped studies, through the command line: what they would run."""

import itertools
import re

import pytest

SIX = ("cache_dit", "cfg_parallel", "ring", "teacache", "tp", "ulysses")


@pytest.mark.parametrize(
    ("study", "told"),
    [
        ("quick", "4 cells to run, 0 skipped, 4 engine starts"),
        ("batch", "17 cells to run, 0 skipped, 5 engine starts"),
        ("compat", "31 cells to run, 17 skipped, 31 engine starts"),
    ],
)
def test_plan_of_a_study(sweep, study: str, told: str) -> None:
    done = sweep("-m", f"+study={study}", "dry_run=true")
    assert (done.code, done.err) == (0, "")
    assert told in done.out


def test_compat_has_every_single_and_every_pair_of_both_models(sweep) -> None:
    done = sweep("-m", "+study=compat", "dry_run=true")
    for model in ("tiny_glm_image", "tiny_qwen_image"):
        found = set(re.findall(rf"([a-z_+]+) b1 model={model}\b", " ".join(done.out.split())))
        pairs = {"+".join(pair) for pair in itertools.combinations(SIX, 2)}
        assert found - {"baseline"} == {*SIX, *pairs}, model


def test_the_command_line_wins_over_a_study_and_repeats_are_announced(sweep) -> None:
    done = sweep("-m", "+study=quick", "feature=teacache", "repeat=auto", "dry_run=true")
    assert "3 cells to run, 0 skipped, 3 engine starts; then up to 4 starts per cell" in done.out
    assert "±5%" in done.out


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("repeat=0", "repeat=0: choose auto, or 1 or more engine starts"),
        ("repeat=often", "repeat=often: choose auto, or 1 or more engine starts"),
        ("aa=-1", "aa=-1: must be 0"),
        ("interleave=maybe", "interleave=maybe: choose auto, true or false"),
        ("precision=5", "precision=5.0: must be between 0 and 1"),
    ],
)
def test_bad_values_are_one_line(sweep, override: str, told: str) -> None:
    done = sweep("-m", "feature=teacache", override)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1
