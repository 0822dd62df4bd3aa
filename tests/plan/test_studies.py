"""The shipped studies, through the command line: what they would run."""

import itertools
import re

import pytest

from tests.conftest import to_run

SIX = ("cache_dit", "cfg_parallel", "ring", "teacache", "tp", "ulysses")


@pytest.mark.parametrize(("study", "cells", "skipped", "starts"), [("quick", 6, 0, 6), ("batch", 18, 0, 6)])
def test_plan_of_a_study(sweep, study: str, cells: int, skipped: int, starts: int) -> None:
    done = sweep("-m", f"+study={study}", "dry_run=true")
    assert (done.code, done.err) == (0, "")
    assert to_run(done.out) == (cells, skipped, starts)


def test_compat_has_every_single_and_every_pair_of_both_models(sweep) -> None:
    done = sweep("-m", "+study=compat", "dry_run=true")
    assert (done.code, done.err) == (0, "")
    assert to_run(done.out) == (31, 17, 31), "cells, skipped, engine starts"
    for model in ("tiny_glm_image", "tiny_qwen_image"):
        found = set(re.findall(rf"([a-z_+]+) b1 model={model}\b", " ".join(done.out.split())))
        pairs = {"+".join(pair) for pair in itertools.combinations(SIX, 2)}
        assert found - {"baseline"} == {*SIX, *pairs}, model


def test_the_command_line_wins_over_a_study_and_repeats_are_announced(sweep) -> None:
    done = sweep("-m", "+study=quick", "feature=teacache", "repeat=auto", "dry_run=true")
    assert to_run(done.out) == (5, 0, 5, 4, 5), "then up to 4 starts, until known to ±5 %"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("repeat=0", "repeat=0:"),
        ("repeat=often", "repeat=often:"),
        ("aa=-1", "aa=-1:"),
        ("interleave=maybe", "interleave=maybe:"),
        ("precision=5", "precision=5.0:"),
    ],
)
def test_bad_values_are_one_line(sweep, override: str, named: str) -> None:
    done = sweep("-m", "feature=teacache", override)
    assert done.code == 2
    assert named in done.err
    assert len(done.err.strip().splitlines()) == 1
