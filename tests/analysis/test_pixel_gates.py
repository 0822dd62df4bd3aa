"""Gates of image quality with plain numbers: which measure is outside, at which status, and what chance explains."""

import dataclasses
import math
from typing import Any

import pytest

from sweep.analysis.pixel_gates import IDENTICAL, LIMITS, Pixels, judge, limits
from sweep.config.feature import LOSSLESS_GATE, LOSSY_GATE, WARN_PSNR_DB, Feature, Gate
from sweep.findings import FAIL, PASS, WARN
from sweep.plan.features import bodies_for, parse_feature
from sweep.refusals import ConfigError

BLURRED = Pixels(mean_diff=0.02, max_diff=0.6, psnr_db=25.6, ssim=0.9)


def lossy(name: str = "teacache", **gates: float | None) -> Feature:
    return Feature(name=name, lossy=True, gate=Gate(**gates))


def lossless(**gates: float | None) -> Feature:
    return Feature(name="ulysses", gate=Gate(**gates))


def status(*features: Feature, pixels: Pixels = BLURRED, floor: Pixels = IDENTICAL) -> str:
    found = judge(features, pixels, floor)
    return found.status if found else PASS


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ({}, PASS),
        ({"warn_psnr_db": 30}, WARN),
        ({"fail_psnr_db": 30}, FAIL),
        ({"fail_psnr_db": 25.6}, PASS),
        ({"warn_psnr_db": 35, "fail_psnr_db": 25}, WARN),
        ({"warn_ssim": 0.95, "fail_ssim": 0.85}, WARN),
        ({"fail_ssim": 0.95}, FAIL),
        ({"warn_max_diff": 0.5}, WARN),
        ({"fail_max_diff": 0.5}, FAIL),
        ({"fail_mean_diff": 0.01}, FAIL),
        ({"warn_mean_diff": 0.01, "fail_ssim": 0.95}, FAIL),
    ],
)
def test_each_measure_has_gates_of_its_own(gates: dict[str, float], expected: str) -> None:
    assert status(lossy(**gates)) == expected
    assert status(lossless(**gates)) == expected


def test_the_reason_names_the_gate_and_by_how_much() -> None:
    found = judge([lossy(warn_mean_diff=0.1, warn_psnr_db=30, warn_ssim=0.95)], BLURRED, IDENTICAL)
    assert found is not None
    assert found.code == "images_outside_gate"
    assert found.text == ("PSNR is 25.6 dB, 4.4 dB below the gate of 30 dB; SSIM is 0.900, 0.05 below the gate of 0.95")
    found = judge([lossless(**LOSSLESS_GATE)], BLURRED, IDENTICAL)
    assert found is not None
    assert found.code == "lossless_images_differ"
    assert all(number in found.text for number in ("0.0200", "0.005", "0.600", "0.05"))


def test_identical_images_are_inside_any_gate() -> None:
    strictest = {"fail_mean_diff": 0.0, "fail_max_diff": 0.0, "fail_psnr_db": 1000.0, "fail_ssim": 1.0}
    assert status(lossy(**strictest), pixels=IDENTICAL) == PASS
    assert status(lossless(**strictest), pixels=IDENTICAL) == PASS


@pytest.mark.parametrize("measure", ["mean_diff", "max_diff", "psnr_db", "ssim"])
def test_what_two_runs_of_the_baseline_differ_by_is_not_charged_to_a_feature(measure: str) -> None:
    gates = {"mean_diff": 0.01, "max_diff": 0.5, "psnr_db": 28.0, "ssim": 0.95}
    gated = lossy(**{f"fail_{measure}": gates[measure]})
    assert status(gated) == FAIL
    assert status(gated, floor=BLURRED) == PASS, "no worse than chance"
    near = Pixels(mean_diff=0.001, max_diff=0.01, psnr_db=60.0, ssim=0.999)
    assert status(gated, floor=near) == FAIL, "chance explains little of it"


def test_chance_adds_to_what_a_gate_allows_as_errors_do() -> None:
    """Two independent causes of 30 dB each are at worst 24 dB together: twice the root of the mean squared error."""
    gated, floor = lossy(fail_psnr_db=30.0), Pixels(psnr_db=30.0)
    assert status(gated, pixels=Pixels(psnr_db=24.0), floor=floor) == PASS
    assert status(gated, pixels=Pixels(psnr_db=23.9), floor=floor) == FAIL


def test_the_laxest_gate_of_several_lossy_features_counts() -> None:
    strict, lax, none = lossy(fail_psnr_db=40.0), lossy("cache_dit", fail_psnr_db=20.0), lossy("fp8")
    assert (status(strict), status(lax)) == (FAIL, PASS)
    assert status(strict, lax) == PASS
    assert status(strict, none) == PASS, "one without the gate allows any"
    assert status(lossless(**LOSSLESS_GATE), lax) == PASS, "the lossy one decides"


@pytest.mark.parametrize("measure", ["mean_diff", "max_diff", "psnr_db", "ssim"])
def test_a_measure_that_is_no_number_never_passes(measure: str) -> None:
    wrong = dataclasses.replace(IDENTICAL, **{measure: math.nan})
    gated = lossy(fail_mean_diff=0.1, fail_max_diff=0.1, fail_psnr_db=20.0, fail_ssim=0.5)
    assert status(gated, pixels=wrong) == FAIL
    assert status(gated, floor=wrong) == FAIL


BODY: dict[str, Any] = {"gpus": 1, "evidence": "setting", "engines": {"diffusers": {}}}


def test_a_file_need_not_set_gates() -> None:
    planned = bodies_for({"a": {**BODY, "lossy": True}, "b": {**BODY, "lossy": False}}, "diffusers")
    cache, parallel = (parse_feature(name, planned[name]).gate for name in ("a", "b"))
    assert cache == Gate(**LOSSY_GATE, warn_psnr_db=WARN_PSNR_DB)
    assert parallel == Gate(**LOSSLESS_GATE)


def test_a_sweep_that_was_stored_before_these_gates_is_judged_by_its_own() -> None:
    stored = {**BODY, "lossy": True, "gate": {"warn_mean_diff": 0.05, "fail_mean_diff": 0.15}}
    assert parse_feature("a", stored).gate == Gate(warn_mean_diff=0.05, fail_mean_diff=0.15)


def test_null_switches_a_gate_off() -> None:
    off = {"warn_psnr_db": None, "fail_mean_diff": None}
    planned = bodies_for({"a": {**BODY, "lossy": True, "gate": off}}, "diffusers")
    assert parse_feature("a", planned["a"]).gate == Gate(warn_mean_diff=0.1)


@pytest.mark.parametrize(
    ("gate", "named"),
    [
        ({"fail_psnr": 30}, "feature.a.gate.fail_psnr_db=30"),
        ({"fail_smim": 0.9}, "'fail_ssim'"),
        ({"fail_ssim": 1.1}, "feature.a.gate: fail_ssim=1.1"),
        ({"warn_psnr_db": -1}, "feature.a.gate: warn_psnr_db=-1"),
        ([30], "feature.a.gate=[30]"),
    ],
)
def test_a_gate_that_cannot_be_is_refused(gate: Any, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        bodies_for({"a": {**BODY, "gate": gate}}, "diffusers")
    assert named in str(refused.value)


@pytest.mark.parametrize("floor", [IDENTICAL, Pixels(0.002, 0.01, 48.0, 0.998)])
@pytest.mark.parametrize("name", ["mean_diff", "max_diff", "psnr_db", "ssim"])
@pytest.mark.parametrize(("level", "expected"), [("warn", WARN), ("fail", FAIL)])
def test_a_limit_is_where_the_verdict_turns(name: str, level: str, expected: str, floor: Pixels) -> None:
    gate = {"mean_diff": 0.02, "max_diff": 0.3, "psnr_db": 35.0, "ssim": 0.95}[name]
    feature = lossy(**{f"{level}_{name}": gate})
    found = limits([feature], floor)
    assert set(found) == {f"gate_{level}_{name}"} <= set(LIMITS)
    (limit,) = found.values()
    worse = 1.001 if name.endswith("diff") else 0.999
    assert status(feature, pixels=dataclasses.replace(IDENTICAL, **{name: limit * worse}), floor=floor) == expected
    assert status(feature, pixels=dataclasses.replace(IDENTICAL, **{name: limit / worse}), floor=floor) == PASS


def test_a_baseline_has_no_limits_and_of_several_features_the_laxest_holds() -> None:
    assert limits([], IDENTICAL) == {}
    both = [lossy(fail_mean_diff=0.1), lossy("cache_dit", fail_mean_diff=0.2), lossless(fail_mean_diff=0.9)]
    assert limits(both, IDENTICAL) == {"gate_fail_mean_diff": 0.2}
    assert limits([*both, lossy("fp8")], IDENTICAL) == {}
