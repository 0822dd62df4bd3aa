"""Decisions of a comparison, from numbers alone."""

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from profiling.evidence import RankEvidence
from sweep.analysis import paired, status
from sweep.analysis.engagement import Executed
from sweep.analysis.paired import Noise, Ratio
from sweep.compare import decide, describe
from sweep.compare.decide import Comparison, Matched, Options
from sweep.compare.load import parse
from sweep.config.feature import Feature
from tests.compare import documents
from tests.compare.documents import Document, cell, report, samples, slower_phase


def compared(before: Document, after: Document, **options: Any) -> Comparison:
    """Two documents, compared."""
    (found,) = decide.compare_reports(parse(before, "A"), [parse(after, "B")], Options(**options))
    return found


def one(comparison: Comparison, name: str = "teacache b1") -> Matched:
    """The cell of this name."""
    return next(matched for matched in comparison.matched if matched.before.label == name)


def test_a_report_against_itself_shows_no_difference() -> None:
    found = compared(report(), report())
    assert [m.speed.verdict for m in found.matched] == [decide.NO_DIFFERENCE] * 2
    assert not found.failures


def test_a_slower_cell_is_a_regression_and_its_phase_is_named() -> None:
    found = one(compared(report(), slower_phase(report(), "teacache b1", "vae_decode", 200)))
    assert found.speed.verdict == decide.SLOWER
    assert found.failures == (decide.REGRESSION,)
    assert found.speed.ratio.ratio == pytest.approx(1 / 1.33, rel=0.02)
    assert [shift.phase for shift in found.explanation.shifts] == ["vae_decode"]
    assert found.explanation.total_ms == pytest.approx(200)


def test_a_faster_cell_is_no_regression() -> None:
    found = compared(slower_phase(report(), "teacache b1", "denoise_step", 200), report())
    assert one(found).speed.verdict == decide.FASTER
    assert one(found).explanation.shifts[0].ms == pytest.approx(-200)
    assert not found.failures


def test_two_phases_that_explain_a_third_each_are_both_named() -> None:
    before = {"denoise_step": 100.0, "vae_decode": 10.0, "ar_decode": 50.0}
    after = {"denoise_step": 220.0, "vae_decode": 90.0, "ar_decode": 52.0}
    shifts = decide.explain(before, after, slower=True).shifts
    assert [(s.phase, s.ms) for s in shifts] == [("denoise_step", 120), ("vae_decode", 80)]
    assert not decide.explain(before, after, slower=False).shifts


def test_overlapping_phases_explain_nothing_twice() -> None:
    before = {"request": 100.0, "denoise_step": 90.0, "dit_forward": 80.0, "other": 10.0}
    after = {"request": 200.0, "denoise_step": 190.0, "dit_forward": 180.0, "other": 10.0}
    assert [s.phase for s in decide.explain(before, after, slower=True).shifts] == ["denoise_step"]


def test_a_certain_difference_below_min_change_is_never_a_regression() -> None:
    slower = report(cell("baseline b1"), cell(factor=1.03), sd=0.001)
    assert one(compared(report(sd=0.001), slower)).speed.verdict == decide.SLOWER
    found = one(compared(report(sd=0.001), slower, min_change=0.05))
    assert found.speed.verdict == decide.SLIGHTLY_SLOWER
    assert not found.failures


def test_without_an_a_a_in_both_reports_speed_is_unknown() -> None:
    slow = slower_phase(report(), "teacache b1", "denoise_step", 300)
    for before, after in ((report(sd=None), slow), (report(), slow | {"noise": report(sd=None)["noise"]})):
        found = one(compared(before, after))
        assert found.speed.verdict == decide.UNKNOWN
        assert found.speed.why.code == decide.NO_AA
        assert found.speed.ratio.ratio is not None
        assert not found.failures


def test_holm_steps_down() -> None:
    assert decide.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert decide.holm([]) == []
    assert decide.holm([0.9, 0.8]) == [1.0, 1.0]


def test_slower_by_itself_but_not_among_many_is_maybe_slower() -> None:
    """A p-value of about 0.003 is certain alone, and expected by chance among 40."""
    quiet = [cell(f"f{i} b1") for i in range(40)]
    alone = compared(report(cell()), report(cell(factor=1.035)))
    assert one(alone).speed.verdict == decide.SLOWER
    among = compared(report(cell(), *quiet), report(cell(factor=1.035), *quiet))
    assert one(among).speed.verdict == decide.MAYBE_SLOWER
    assert one(among).speed.ratio.called == paired.SLOWER
    assert not among.failures


def test_the_family_spans_all_reports_of_a_command() -> None:
    first, slower = parse(report(cell()), "A"), parse(report(cell(factor=1.035)), "B")
    (alone,) = decide.compare_reports(first, [slower], Options())
    many = decide.compare_reports(first, [slower] + [first] * 40, Options())
    assert one(alone).speed.verdict == decide.SLOWER
    assert one(many[0]).speed.verdict == decide.MAYBE_SLOWER


@pytest.mark.parametrize("df", [1, 3, 10])
def test_baseline_against_baseline_is_hardly_ever_called_slower(df: int) -> None:
    """100 families of 20 pairs, in which a process differs by 2 % and its noise is estimated from `df` A/A."""
    chance = random.Random(df)
    wrong = wrong_without = 0
    for _ in range(100):
        noise = Noise(0.02 * math.sqrt(sum(chance.gauss(0, 1) ** 2 for _ in range(df)) / df), df)
        ratios = []
        for _ in range(20):
            sides = []
            for _ in range(2):
                process = math.exp(chance.gauss(0, 0.02))
                rows = samples(chance.randrange(10**9), process, repeats=1, jitter=0.005)
                sides.append([{(int(p), int(s), int(r)): latency for p, s, r, latency in rows}])
            ratios.append(paired.compare(sides[0], sides[1], noise, noise))
        adjusted = decide.holm([ratio.p_value or 1.0 for ratio in ratios])
        pairs = list(zip(ratios, adjusted, strict=True))
        wrong += any(decide.speed_verdict(ratio, p, 0.0) == decide.SLOWER for ratio, p in pairs)
        wrong_without += any(ratio.called == paired.SLOWER for ratio in ratios)
    assert wrong <= 6  # at most 2.5 % are slower; 7 of 100 would have a probability of 1 %
    assert wrong_without > wrong


def test_a_thousand_cells_that_only_differ_by_noise_do_not_fail() -> None:
    chance = random.Random(7)

    def swept(seed: int) -> Document:
        cells = [cell(f"f{i} b1", seed=seed + i, factor=math.exp(chance.gauss(0, 0.02))) for i in range(1000)]
        return report(cell("baseline b1"), *cells, sd=0.02, df=40)

    found = compared(swept(0), swept(5000))
    verdicts = {m.speed.verdict for m in found.matched}
    assert not found.failures
    assert decide.SLOWER not in verdicts
    assert decide.MAYBE_SLOWER in verdicts  # without Holm it would have failed


@pytest.mark.parametrize(
    ("before", "after", "change", "fails"),
    [
        ("PASS", "PASS", decide.SAME, False),
        ("PASS", "WARN", decide.WORSE, True),
        ("PASS", "FAIL", decide.WORSE, True),
        ("FAIL", "ERROR", decide.WORSE, True),
        ("ERROR", "FAIL", decide.BETTER, False),
        ("WARN", "PASS", decide.BETTER, False),
        ("PASS", "SKIP", decide.LOST, True),
        ("WARN", "SKIP", decide.LOST, True),
        ("FAIL", "SKIP", decide.OTHER, False),
        ("SKIP", "PASS", decide.OTHER, False),
        ("SKIP", "ERROR", decide.OTHER, False),
        ("PASS", "NOT RUN", decide.LOST, True),
        ("FAIL", "NOT RUN", decide.OTHER, False),
        ("NOT RUN", "FAIL", decide.OTHER, False),
    ],
)
def test_status_changes(before: str, after: str, change: str, fails: bool) -> None:
    assert decide.status_change(before, after) == change
    found = compared(report(cell(status=before)), report(cell(status=after)))
    assert (decide.STATUS in found.failures) == fails


def test_a_warning_for_speed_alone_is_left_to_the_judgement_of_speed() -> None:
    engaged = RankEvidence(0, 8, 8, 4, 2, 16, 100)
    lossy = Feature(name="teacache", evidence="skipped_blocks", lossy=True)
    ran = Executed(((engaged,),))
    (slow,) = status.judge([lossy], [ran], ran, None, called=paired.SLOWER)
    assert slow.status == "WARN"
    assert decide.status_change("PASS", "WARN", [slow.code]) == decide.OTHER
    assert decide.status_change("PASS", "WARN", ["images_outside_gate", slow.code]) == decide.WORSE
    assert decide.status_change("PASS", "ERROR", [slow.code]) == decide.WORSE


def test_quality_changes_only_beyond_the_pixel_floor() -> None:
    assert decide.quality_change(0.004, 0.0059, 0.0) == decide.SAME
    assert decide.quality_change(0.004, 0.0061, 0.0) == decide.WORSE
    assert decide.quality_change(0.0061, 0.004, 0.0) == decide.BETTER
    assert decide.quality_change(0.004, 0.0061, 0.003) == decide.SAME  # two baselines differ by more
    assert decide.quality_change(None, 0.5, 0.0) == decide.SAME


def test_invalid_rows_are_compared_but_never_regress_by_speed_or_quality() -> None:
    blurred = {"mean_diff": 0.3, "max_diff": 1.0, "psnr_db": 9.0, "ssim": 0.2, "identical": False}
    after = report(cell("baseline b1"), cell(factor=1.5, valid=False, invalid_reason="A/A drift", quality=blurred))
    found = one(compared(report(), after))
    assert found.speed.verdict == decide.MAYBE_SLOWER
    assert found.quality == decide.WORSE
    assert found.doubt == "A/A drift"
    assert not found.failures


def test_an_a_a_cell_is_a_further_start_of_its_baseline_and_not_judged_itself() -> None:
    slow = cell("baseline b1 A/A", factor=1.5)
    found = compared(report(cell("baseline b1"), slow), report(cell("baseline b1"), cell("baseline b1 A/A")))
    assert one(found, "baseline b1 A/A").speed.verdict == decide.NOT_JUDGED
    assert one(found, "baseline b1").speed.ratio.ratio == pytest.approx(math.sqrt(1.5), rel=0.01)


def test_what_is_not_valid_reads_so_and_keeps_its_key() -> None:
    found = compared(report(), report(cell("baseline b1"), cell(valid=False, invalid_reason="A/A drift")))
    assert describe.counts(found)[describe.NOT_VALID] == 1
    assert describe.summary(found).endswith(", 1 not valid")
    assert [note for note in describe.notes(found, Options()) if note.startswith("1 cell is not valid")]


def test_when_everything_moved_it_is_said() -> None:
    slow = report(cell("baseline b1", factor=1.08), cell(factor=1.09))
    assert decide.moved_together(compared(report(), slow).matched, 0.02) == pytest.approx(1.08, rel=0.02)
    only_one = report(cell("baseline b1"), cell(factor=1.09))
    assert decide.moved_together(compared(report(), only_one).matched, 0.02) is None


def test_relative_sees_through_a_machine_that_became_slower() -> None:
    other_machine = report(cell("baseline b1", factor=2.0), cell(factor=2.0))
    assert decide.REGRESSION in compared(report(), other_machine).failures
    found = compared(report(), other_machine, relative=True)
    assert not found.failures
    assert one(found).speed.ratio.ratio == pytest.approx(1, abs=0.01)
    assert one(found, "baseline b1").speed.verdict == decide.NOT_JUDGED


def test_relative_finds_the_cell_that_lost_its_gain_on_another_machine() -> None:
    after = report(cell("baseline b1", factor=2.0), cell(factor=2.0))
    found = compared(report(), slower_phase(after, "teacache b1", "denoise_step", 400), relative=True)
    assert one(found).speed.verdict == decide.SLOWER
    (shift,) = one(found).explanation.shifts
    assert shift.phase == "denoise_step"
    assert shift.ms == pytest.approx(200, rel=0.02)  # in the first machine's milliseconds


def test_relative_noise_counts_the_baseline_too() -> None:
    loaded = parse(report(sd=0.01), "A")
    widened = decide.relative_starts(loaded, loaded.cells["key of teacache b1"])[1]
    assert widened == Noise(pytest.approx(0.01 * math.sqrt(2)), 3, pytest.approx(documents.JITTER * math.sqrt(2)))


def test_relative_uses_the_baseline_beside_the_cell() -> None:
    """The machine drifts by 3x while the cell and its interleaved baseline run: the speed-up is unchanged."""

    def beside(name: str, drift: float, seed: int) -> Document:
        start = {"samples": samples(seed, drift), "reference": samples(seed + 1, drift)}
        return cell(name, starts=[start])

    repeats = [beside(f"baseline b1 #{i} A/A", 1 + i, 10 * i) for i in range(4)]
    before = report(cell("baseline b1"), beside("teacache b1", 1, 50), *repeats, sd=0.5)
    after = report(cell("baseline b1"), beside("teacache b1", 3, 60), *repeats, sd=0.5)
    found = one(compared(before, after, relative=True)).speed
    assert found.ratio.ratio == pytest.approx(1, abs=0.01)
    assert found.ratio.half_width is not None
    assert found.ratio.half_width < 0.02  # from A/A with interleaved baselines, not from sd


def test_relative_without_a_baseline_is_unknown() -> None:
    found = one(compared(report(cell()), report(cell()), relative=True))
    assert found.speed.verdict == decide.UNKNOWN
    assert found.speed.why.code == decide.NOT_COMPARED


@pytest.mark.parametrize(
    ("lows", "told"),
    [
        ((0.97, 1.2), "no regression"),
        ((None,), "no regression"),
        (
            (0.97, 0.5814),
            "no regression found, but noise could hide one of up to 1.72x: sweep with aa=3 and more prompts",
        ),
    ],
)
def test_what_could_not_have_been_seen_is_told(lows: tuple, told: str) -> None:
    matched = [SimpleNamespace(speed=decide.Speed(decide.NO_DIFFERENCE, Ratio(1.0, low, 1.5))) for low in lows]
    assert describe.conclusion([], matched) == told


def test_a_conclusion_names_the_slowest_cells() -> None:
    found = compared(report(), slower_phase(report(), "teacache b1", "denoise_step", 600))
    slower = [each for each in found.matched if each.speed.verdict == decide.SLOWER]
    assert len(slower) == 1
    assert describe.conclusion((decide.REGRESSION,), found.matched) == (
        "FAILED: a cell is slower beyond noise (teacache b1 1.98x)"
    )


def test_without_any_speed_there_is_no_word_of_no_regression() -> None:
    matched = [SimpleNamespace(speed=decide.Speed(decide.UNKNOWN))]
    assert describe.conclusion((), matched) == (
        "no speed is known, so no regression could be seen: sweep with aa=1 or more"
    )
