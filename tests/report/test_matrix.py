"""Which rows make a matrix, and where they are placed in it."""

import math

import pandas
import pytest

from sweep import legacy
from sweep.findings import ERROR, SKIP, Finding
from sweep.report import speed_colour
from sweep.report.matrix import matrices, short_reason, within_noise
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


def test_cells_whose_baselines_differ_in_a_field_without_column_do_not_share_one():
    field = "option.workload.input_width"
    rows = [shapes.row(name) | {field: width} for width in (512.0, 1024) for name in ("teacache", "cfg_parallel")]
    titles = [m.title.rpartition(" · ")[2] for m in matrices(rows)]
    assert titles == ["input_width=512", "input_width=1024"]


def test_loads_of_a_configuration_and_options_of_a_feature_share_one():
    more = [{"option.load.slo.ttft": 100.0}, {"load": "closed, 2 in flight"}, {"option.teacache.rel_l1_thresh": 0.2}]
    rows = [shapes.row(name) | one for one in more for name in ("teacache", "cfg_parallel+teacache")]
    assert len(matrices(rows)) == 1


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


def ratios(value, spread=0.1, **fields):
    return {"speedup": value, "speedup_low": value * (1 - spread), "speedup_high": value * (1 + spread), **fields}


def test_a_gain_has_the_interval_that_follows_from_its_speedups():
    rows = [shapes.row(name, **ratios(2.0)) for name in ("teacache", "tp")]
    rows.append(shapes.row("teacache+tp", **ratios(2.0), interaction_gain=0.5))
    (matrix,) = matrices(rows)
    gain = matrix.gain(rows[-1])
    down, up = math.log(1 / 0.9), math.log(1.1)
    assert gain.ratio == 0.5
    assert gain.interval == pytest.approx(
        (0.5 * math.exp(-math.hypot(down, up, up)), 0.5 * math.exp(math.hypot(up, down, down)))
    )
    assert gain.is_clear
    assert matrix.gain(rows[0]) is None


@pytest.mark.parametrize("unknown", ["teacache", "tp", "teacache+tp"])
def test_a_gain_without_all_intervals_has_none_and_is_not_clear(unknown):
    rows = [shapes.row(name, **ratios(2.0)) for name in ("teacache", "tp")]
    rows.append(shapes.row("teacache+tp", **ratios(2.0), interaction_gain=0.5))
    for row in rows:
        if row["features"] == unknown:
            row["speedup_low"] = row["speedup_high"] = None
    (matrix,) = matrices(rows)
    gain = matrix.gain(rows[-1])
    assert gain.interval is None
    assert not gain.is_clear


@pytest.mark.parametrize(
    ("fields", "noise"),
    [
        ({"called": "no difference"}, True),
        ({"called": "faster"}, False),
        (ratios(1.05), True),
        (ratios(1.5), False),
        ({"speedup": 1.05, "speedup_low": None, "speedup_high": None}, False),
    ],
)
def test_a_speedup_is_within_noise_by_its_verdict_or_its_interval(fields, noise):
    assert within_noise(shapes.row("teacache", **{"called": "", **fields})) is noise


def test_the_colour_of_a_speedup_is_symmetric_around_one():
    largest = speed_colour.reach([0.5, 1.2])
    assert largest == pytest.approx(2.0)
    assert speed_colour.reach([]) == speed_colour.LEAST
    assert speed_colour.colour(1.0, largest) == "#f5f5f5"
    assert speed_colour.colour(9.0, largest) == speed_colour.colour(2.0, largest) == "#85b8e2"
    assert speed_colour.colour(0.5, largest) == "#f4a56b"
    half = [int(speed_colour.colour(ratio, 4.0)[1:3], 16) for ratio in (2.0, 4.0)]
    assert 0xF5 - half[0] == pytest.approx((0xF5 - half[1]) / 2, abs=1), "twice the logarithm, twice the colour"
