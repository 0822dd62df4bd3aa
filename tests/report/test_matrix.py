"""Which rows make a matrix, and where they stand in it."""

import math

import pandas
import pytest

from sweep import legacy
from sweep.findings import ERROR, SKIP, Finding
from sweep.report.matrix import matrices, short_reason
from tests.report import shapes


def test_singles_stand_on_the_diagonal_and_pairs_in_either_order():
    rows = [shapes.row(name) for name in ("", "teacache", "cfg_parallel", "cfg_parallel+teacache")]
    (matrix,) = matrices(rows)
    assert matrix.features == ("cfg_parallel", "teacache")
    assert matrix.field("teacache", "teacache") == (rows[1],)
    assert matrix.field("teacache", "cfg_parallel") == matrix.field("cfg_parallel", "teacache") == (rows[3],)
    assert matrix.title == "tiny_glm_image · diffusers · batch 1 · 64×64 · 8 steps"


def test_each_context_has_its_own():
    rows = [shapes.row(name, batch) for batch in (1, 4) for name in ("teacache", "cfg_parallel")]
    assert ["batch 1" in m.title for m in matrices(rows)] == [True, False]


@pytest.mark.parametrize("names", [(), ("",), ("teacache",)])
def test_nothing_to_compare_gives_none(names):
    assert matrices([shapes.row(name) for name in names]) == []


def test_cells_that_differ_in_a_setting_share_a_field():
    rows = [shapes.row("teacache") | {"cell": f"teacache b1 t={t}"} for t in (0.1, 0.2)]
    (matrix,) = matrices([*rows, shapes.row("tp")])
    assert matrix.field("teacache", "teacache") == tuple(rows)


def test_three_or_more_are_listed_apart():
    (matrix,) = matrices([shapes.row("cache_dit+teacache+tp")])
    assert matrix.features == ()
    assert len(matrix.larger) == 1


def test_rows_of_a_data_frame_with_holes_are_one_context():
    frame = pandas.DataFrame([shapes.row("tp"), shapes.failed("ring", "SKIP", "requires 4 GPUs, only 2 available")])
    frame["parallel"] = math.nan
    (matrix,) = matrices(frame.to_dict("records"))
    assert matrix.features == ("ring", "tp")


@pytest.mark.parametrize(
    ("finding", "short"),
    [
        (Finding("too_few_devices", "requires 4 GPUs, only 2 available", SKIP, "needs 4 GPUs"), "needs 4 GPUs"),
        (Finding("crash", "engine process was killed by signal 9", ERROR), "engine process was…"),
    ],
)
def test_reasons_in_a_few_words(finding, short):
    assert short_reason({"findings": [finding], "reason": finding.text}) == short


@pytest.mark.parametrize(
    ("stored", "code", "short"),
    [
        ("requires 4 GPUs, only 2 available", "too_few_devices", "needs 4 GPUs"),
        ("requires 2 CPU cores, parallel=x1 allows 1", "too_few_devices_allowed", "needs 2 CPU cores"),
        ("teacache conflicts with cache_dit", "conflict", "conflict"),
        ("ring does not support glm_image: why", "feature_not_in_model", "ring unsupported"),
        ("something else", "skipped", ""),
    ],
)
def test_skips_of_plans_from_before_codes_have_them(stored, code, short):
    found = legacy.skip(stored)
    assert (found.code, found.text, found.short) == (code, stored, short)
