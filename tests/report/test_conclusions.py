"""The sentences that a sweep ends with: what they recommend, what they refuse to, and that they agree with the rows."""

import math
from typing import Any

import pytest

from sweep.analysis.ladders import ATTAINED, KNEE, Ladder
from sweep.analysis.paired import FASTER, NO_DIFFERENCE, SLOWER
from sweep.findings import MORE_STARTS, Finding
from sweep.report.conclusion import Conclusion
from sweep.report.conclusions import conclude
from tests.report import shapes


def row(features: str, low: float = 1.0, high: float = 1.0, batch: int = 1, **fields: Any) -> dict[str, Any]:
    """A judged cell with this interval, known to be faster among all cells if its interval says so."""
    called = FASTER if low > 1 else SLOWER if high < 1 else NO_DIFFERENCE
    ratio = math.sqrt(low * high)
    speed: dict[str, Any] = {"speedup": ratio, "speedup_low": low, "speedup_high": high}
    if features:
        speed |= {"called": called, "p_holm": 0.5 if called == NO_DIFFERENCE else 0.001}
    made = shapes.row(features, batch, gpus=1, cell_key=f"{features} {batch}", findings=[], notes=[], doubts=[])
    return {**made, "baseline_latency_s": made["latency_mean_s"] * ratio, **speed, **fields}


def said(*rows: dict[str, Any]) -> dict[str, str]:
    """Sentences by code."""
    return {one.code: one.text for one in conclude(rows)}


def test_the_fastest_is_named_with_its_interval_latencies_and_quality() -> None:
    best = row("teacache", 1.5, 1.6, latency_mean_s=1.0, baseline_latency_s=1.55, psnr_db=36.2)
    found = conclude([row(""), best, row("ulysses", 1.1, 1.2)])
    assert found[0].code == "fastest"
    assert found[0].text == "Fastest that passes: teacache b1, 1.55x (1.50-1.60), 1.55 → 1.00 s, PSNR 36.2 dB."
    assert found[0].cells == ("teacache 1",)


def test_each_context_has_a_fastest_of_its_own() -> None:
    rows = [row(""), row("", batch=2), row("teacache", 1.5, 1.6), row("teacache", 1.2, 1.3, batch=2)]
    assert [one.cells for one in conclude(rows) if one.code == "fastest"] == [("teacache 1",), ("teacache 2",)]


def test_baselines_that_differ_in_a_field_without_column_make_two_contexts() -> None:
    rows = [
        row("teacache", low, low + 0.1, cell_key=f"teacache {width}", **{"option.workload.input_width": width})
        for width, low in ((512, 1.5), (1024, 1.2))
    ]
    assert [one.cells for one in conclude(rows) if one.code == "fastest"] == [("teacache 512",), ("teacache 1024",)]
    same = [one | {"option.workload.input_width": 512} for one in rows]
    assert [one.cells for one in conclude(same) if one.code == "fastest"] == [("teacache 512",)]


@pytest.mark.parametrize(
    ("first", "second", "taken", "because"),
    [
        ({"gpus": 2}, {"gpus": 1}, "ring", "it needs fewer devices"),
        ({"psnr_db": 30.0}, {"psnr_db": 40.0}, "ring", "its images are closest"),
        ({"gpus": 1, "psnr_db": 30.0}, {"gpus": 2, "psnr_db": 40.0}, "teacache", "it needs fewer devices"),
    ],
)
def test_overlapping_intervals_crown_nobody_and_devices_then_quality_decide(
    first: dict[str, Any], second: dict[str, Any], taken: str, because: str
) -> None:
    fields = {"mean_diff": 0.01}
    found = conclude([row("teacache", 1.5, 1.6, **fields | first), row("ring", 1.4, 1.55, **fields | second)])
    assert found[0].code == "tied"
    assert found[0].cells[0] == f"{taken} 1"
    assert f"Take {taken} b1: {because}" in found[0].text
    assert "too close to call" in found[0].text


def test_what_chance_makes_look_faster_among_many_is_crowned_nowhere() -> None:
    found = said(row("teacache", 1.01, 1.3, p_holm=0.2), row("ring", 0.9, 1.2))
    assert "fastest" not in found
    assert "tied" not in found
    assert "chance alone" in found["faster_alone"]


@pytest.mark.parametrize(
    "fields", [{"status": "FAIL"}, {"valid": False}, {"called": "", "speedup_low": None}, {"status": "ERROR"}]
)
def test_nothing_that_failed_is_not_valid_or_not_judged_is_crowned(fields: dict[str, Any]) -> None:
    assert not {"fastest", "tied"} & set(said(row(""), row("teacache", 1.5, 1.6, **fields)))


def test_a_cell_past_the_warning_gate_is_named_with_its_warning_and_never_as_the_fastest_that_passes() -> None:
    ruined = row("teacache", 2.5, 2.6, status="WARN", psnr_db=22.0, reason="images differ by 0.12")
    found = said(row("cfg_parallel", 1.5, 1.6), ruined)
    assert found["fastest"].startswith("Fastest that passes: cfg_parallel b1")
    assert found["faster_with_a_warning"].startswith("Faster still, but with a warning: teacache b1, 2.55x")
    assert found["faster_with_a_warning"].endswith("(images differ by 0.12).")
    assert said(ruined)["faster_with_a_warning"].startswith("Faster but with a warning")


def test_the_fastest_at_each_quality_is_named_where_quality_costs_speed() -> None:
    thresholds = [row("teacache", 1 + n / 5, 1.05 + n / 5, psnr_db=45 - 5 * n, cell=f"t{n}") for n in range(1, 4)]
    for one in thresholds:
        one["mean_diff"] = 0.01
    found = said(row(""), *thresholds, row("cfg_parallel", 1.1, 1.12))
    assert found["fastest"].startswith("Fastest that passes: t3")
    better = "at least 35 dB t2, 1.42x (1.40-1.45); at least 40 dB t1, 1.22x (1.20-1.25); identical cfg_parallel b1"
    assert found["by_quality"].startswith(f"With better images: {better}, 1.11x")


def test_features_that_ran_the_baseline_are_named_apart_from_what_broke() -> None:
    silent = row("ring", status="FAIL", findings=[Finding("not_engaged", "did not engage", "FAIL")])
    broken = row("tp", status="ERROR", findings=[Finding("crash", "ended", "ERROR")], reason="ended")
    found = said(row(""), silent, broken)
    assert found["did_nothing"] == "Silently did nothing: ring b1 ran like the baseline although switched on."
    assert found["do_not_use"] == "Do not use: tp b1 (ended)."


def test_nothing_is_said_against_cells_that_never_began() -> None:
    waiting = [Finding("not_run", "the sweep ended before the cell began", "NOT RUN")]
    assert "do_not_use" not in said(row(""), row("tp", status="NOT RUN", findings=waiting, speedup=None))


def test_what_random_weights_make_of_it_is_said_where_images_change() -> None:
    lossy, exact = row("teacache", 1.5, 1.6, psnr_db=37.5), row("cfg_parallel", 1.5, 1.6, mean_diff=0.0)
    for one, doubted in ((lossy, True), (exact, False)):
        (found,) = [c.text for c in conclude([row(""), one], random_weights=True) if c.code == "fastest"]
        assert found.endswith("(random weights: not representative).") == doubted, found
        assert "random" not in said(row(""), one)["fastest"]


def test_a_baseline_that_failed_is_not_a_feature_to_leave_out() -> None:
    why = "1 of 96 requests failed"
    found = said(row("", status="FAIL", findings=[Finding("requests_failed", why, "FAIL")], reason=why))
    assert found["baseline_failed"] == f"The baseline itself failed: baseline b1 ({why})."
    assert "do_not_use" not in found


def test_a_cell_that_was_cut_short_is_to_be_resumed_and_not_to_be_left_out() -> None:
    cut = [Finding("interrupted", "interrupted while serving 20 requests", "ERROR")]
    found = said(row("", status="ERROR", findings=cut), row("teacache", status="ERROR", findings=cut))
    assert found["not_finished"] == "Not finished: baseline b1 and teacache b1; the same command resumes it."
    assert not {"baseline_failed", "do_not_use"} & set(found)


def test_unknown_and_none_are_told_apart_by_how_wide_the_interval_is() -> None:
    wide = row("teacache", 0.48, 4.2, notes=[Finding(MORE_STARTS, "repeat=auto measures more")])
    found = said(row(""), wide, row("ring", 0.99, 1.01))
    assert found["within_noise"] == "Within noise, so unknown: teacache b1 0.48-4.20x."
    assert found["no_difference"] == "No difference from the baseline: ring b1 0.99-1.01x."
    assert found["next"] == "Next: 1 speed-up missed the target precision; aa=3 repeat=auto would tell."


def test_without_an_a_a_run_the_advice_is_one() -> None:
    notes, findings = [Finding("noise_unknown", "no A/A run")], [Finding("speed_not_judged", "…", "PASS")]
    found = said(row(""), row("teacache", 1.5, 1.6, called="", notes=notes, findings=findings))
    assert found["not_judged"].startswith("Speed not judged: teacache b1 1.55x")
    assert "aa=2" in found["next"]


def test_the_bottleneck_is_the_baselines_and_where_it_moves() -> None:
    base = row("", bottleneck="denoise_step", denoise_step_share=0.6)
    found = [
        one.text for one in conclude([base, row("teacache", 1.5, 1.6, bottleneck="ar_decode", ar_decode_share=0.7)])
    ]
    assert "Bottleneck: denoise_step (baseline b1 60%)." in found
    assert "With the fastest it moves to ar_decode (teacache b1 70%)." in found
    alone = conclude([base])
    assert [one.code for one in alone] == ["bottleneck"]


def test_long_lists_are_cut_and_say_so() -> None:
    crash = [Finding("crash", "ended", "ERROR")]
    rows = [row("tp", status="ERROR", findings=crash, cell=f"f{n} b1") for n in range(9)]
    assert "f0 b1, f1 b1, f2 b1 and 6 more" in said(*rows)["do_not_use"]


def ladder(name: str, code: str, rate: float, missed: float = 100.0, half: float = 0.1) -> Ladder:
    """One that attains `rate` and misses the next one, or serves so many ± `half` at its knee."""
    rung = {"cell_key": name, "request_rate": rate, "requests_per_s": rate}
    rung |= {"requests_per_s_low": rate - half, "requests_per_s_high": rate + half}
    return Ladder(name, "request_rate", (rung, rung | {"request_rate": missed}), code, "…", rate)


def best(*ladders: Ladder) -> Conclusion | None:
    return next((one for one in conclude([], ladders) if one.code == "best_under_load"), None)


def test_the_configuration_that_meets_the_slo_at_the_highest_rate_is_named() -> None:
    found = best(ladder("baseline b1", ATTAINED, 2.0, missed=2.5), ladder("teacache b1", ATTAINED, 3.0))
    assert found is not None
    assert found.text == (
        "Under load, teacache b1 meets the SLO at the highest rate (teacache b1 3/s and baseline b1 2/s)."
    )


def test_a_rate_that_no_other_was_seen_to_miss_crowns_nobody() -> None:
    found = best(ladder("baseline b1", ATTAINED, 2.0, missed=4.0), ladder("teacache b1", ATTAINED, 3.0))
    assert found is not None
    assert "too close to call: teacache b1 and baseline b1" in found.text


def test_rates_that_overlap_and_single_ladders_crown_nobody() -> None:
    close = best(ladder("baseline b1", KNEE, 2.95), ladder("teacache b1", KNEE, 3.0))
    assert close is not None
    assert "too close to call" in close.text
    assert best(ladder("baseline b1", KNEE, 2.0)) is None


def test_what_is_said_of_loads_is_among_the_conclusions() -> None:
    found = conclude([], (), [("baseline b1", "knee at 4")])
    assert [(one.code, one.text) for one in found] == [("load", "baseline b1: knee at 4.")]
