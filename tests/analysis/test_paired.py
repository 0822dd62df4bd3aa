"""Paired comparison of latencies, against values worked out by hand and against its own promises."""

import math
import random

import pytest

from sweep.analysis import paired
from sweep.analysis.paired import Noise, Ratio, compare, compare_interleaved, interleaved_noise, noise_between_starts

QUIET = Noise(0.001, 5)


def start(*seconds: float, repeat: int = 0) -> dict[paired.Sample, float]:
    """Latencies of one start, one a prompt."""
    return {(prompt, prompt, repeat): value for prompt, value in enumerate(seconds)}


def drawn(rng: random.Random, process_sd: float, prompts: int = 20, slower: float = 1.0) -> dict[paired.Sample, float]:
    """One start: a factor of its process, and 5 % of noise on every prompt."""
    process = rng.gauss(0, process_sd)
    return start(*(slower * (1 + prompt / 10) * math.exp(process + rng.gauss(0, 0.05)) for prompt in range(prompts)))


def test_ratio_is_the_geometric_mean_of_pairs() -> None:
    before = {(0, 0, 0): 2.0, (1, 1, 0): 8.0, (2, 2, 0): 5.0}
    after = {(1, 1, 0): 1.0, (0, 0, 0): 1.0, (9, 9, 0): 0.001}  # ratios 8 and 2; what is not in both does not count
    result = compare([before], [after], Noise())
    assert (result.ratio, result.pairs) == (pytest.approx(4.0), 2)
    assert (result.low, result.high) == (pytest.approx(2.0), pytest.approx(8.0))


def test_without_a_second_pair_or_noise_there_is_no_interval() -> None:
    assert compare([start(3.0)], [start(1.5)], Noise()) == Ratio(2.0, pairs=1)
    assert compare([start(3.0)], [{}], Noise()) == Ratio()
    assert compare([], [start(1.5)], QUIET) == Ratio()


def test_what_differs_between_prompts_cancels() -> None:
    seconds = [0.5 + prompt for prompt in range(10)]  # every pair is exactly twice as fast
    result = compare([start(*seconds)], [start(*(s / 2 for s in seconds))], Noise())
    assert (result.ratio, result.low, result.high) == pytest.approx((2.0, 2.0, 2.0))


def test_repeats_of_a_prompt_are_no_further_evidence() -> None:
    rng = random.Random(3)
    before, after = drawn(rng, 0, prompts=6), drawn(rng, 0, prompts=6)
    one = compare([before], [after], Noise())
    thrice = [
        {(p, s, repeat): value for (p, s, _), value in run.items() for repeat in range(3)} for run in (before, after)
    ]
    many = compare([thrice[0]], [thrice[1]], Noise())
    assert (many.pairs, many.low, many.high) == (6, pytest.approx(one.low), pytest.approx(one.high))


def test_repeats_of_a_single_prompt_are_all_there_is() -> None:
    before = {(0, 0, repeat): 1.0 + repeat / 10 for repeat in range(4)}
    assert compare([before], [before], Noise()).pairs == 4


def test_the_order_of_samples_changes_nothing() -> None:
    rng = random.Random(0)
    before, after = drawn(rng, 0), drawn(rng, 0)
    assert compare([dict(reversed(before.items()))], [after], QUIET) == compare([before], [after], QUIET)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_latency_that_cannot_be_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=str(wrong)):
        compare([start(1.0, 1.0)], [start(1.0, wrong)], QUIET)


def test_noise_between_starts_is_that_of_their_means() -> None:
    low, high = start(1.0, 4.0), start(math.e**0.2, 4.0)  # means of logs differ by 0.1
    noise = noise_between_starts([[low, high], [start(1.0)]])  # a cell with one start says nothing
    assert (noise.sd, noise.df) == (pytest.approx(0.1 / math.sqrt(2)), 1)
    assert noise_between_starts([[start(1.0)], []]) == Noise()


def test_beside_a_reference_the_true_ratio_is_known() -> None:
    noise = interleaved_noise([(start(1.0, 1.0), start(math.e**0.1, math.e**0.1))])
    assert (noise.sd, noise.df) == (pytest.approx(0.1), 1)


def test_without_noise_between_starts_nothing_is_called() -> None:
    result = compare([start(*[2.0] * 9)], [start(*[1.0] * 9)], Noise())
    assert (result.low, result.called) == (2.0, "")
    assert compare([start(*[2.0] * 9)], [start(*[1.0] * 9)], QUIET).called == "faster"
    assert compare([start(*[1.0] * 9)], [start(*[2.0] * 9)], QUIET).called == "slower"


def test_a_single_pair_gets_an_interval_but_no_verdict() -> None:
    for one in (
        compare([start(2.0)], [start(1.0)], QUIET),
        compare_interleaved([(start(2.0), start(1.0))], QUIET),
    ):
        assert (one.called, one.too_few, one.ratio) == ("", True, 2.0)
        assert 1.9 < one.low < 2.0 < one.high < 2.1
    assert not compare([start(2.0, 2.0)], [start(1.0, 1.0)], QUIET).too_few
    assert not compare([start(2.0)], [start(1.0)], Noise()).too_few, "it is the A/A that is missing"


def test_one_aa_start_that_agrees_by_luck_does_not_narrow_the_interval_of_prompts_that_agree() -> None:
    """Prompts agree to 0.1 %, the A/A start strays by 1 %: Student's 12.706 for one degree of freedom."""
    seconds = [1 + prompt / 10 for prompt in range(20)]
    cell = start(*(value * math.exp(0.05 + 0.001 * (-1) ** n) for n, value in enumerate(seconds)))
    found = compare_interleaved([(start(*seconds), cell)], Noise(0.01, 1))
    assert math.log(found.ratio / found.low) == pytest.approx(12.706 * paired.TAILS * 0.01, rel=1e-4)
    assert found.called == "no difference"


def test_prompts_that_gain_differently_widen_the_interval_by_what_the_aa_does_not_explain() -> None:
    """Ratios of four prompts: 0.3 ± 0.1 in logs, of which noise explains half the variance; and what starts add."""
    logs = [0.2, 0.4, 0.2, 0.4]
    cell = start(*(math.exp(-one) for one in logs))
    variance = 4 * 0.01 / 3
    noise = Noise(0.01, 5, math.sqrt(variance / 2))
    found = compare_interleaved([(start(1.0, 1.0, 1.0, 1.0), cell)], noise)
    starts, prompts = 2.570582 * paired.TAILS * 0.01, 3.182446 * math.sqrt(variance / 2 / 4)
    assert math.log(found.ratio) == pytest.approx(0.3)
    assert math.log(found.high / found.ratio) == pytest.approx(math.hypot(starts, prompts), rel=1e-6)
    assert math.log(found.ratio / found.low) == pytest.approx(math.hypot(starts, prompts), rel=1e-6)
    alone = compare_interleaved([(start(1.0, 1.0, 1.0, 1.0), cell)], Noise(0.01, 5, 1.0))
    assert math.log(alone.high / alone.ratio) == pytest.approx(starts, rel=1e-6), "noise explains all of it"


def test_the_p_value_is_where_the_interval_would_end_at_1() -> None:
    parts = [(0.02, 2.0), (0.01, 3.0)]
    for p in (0.9, 0.05, 1e-6):
        assert paired._p_value(paired._half_width(p, parts), parts) == pytest.approx(p, rel=1e-9)
        assert paired._p_value(paired._half_width(p, parts[:1]), parts[:1]) == pytest.approx(p, rel=1e-9)
    assert (paired._p_value(0.0, parts), paired._p_value(0.1, [(0.0, 1.0)])) == (1.0, 0.0)
    assert 0 < paired._p_value(1e200, parts) <= paired.LEAST_P


def test_how_far_single_prompts_stray_is_that_about_the_means_of_their_start_and_prompt() -> None:
    one, other = start(1.0, math.e, 1.0), start(*(math.exp(0.1 + one) for one in (0.02, 0.99, 0.0)))
    logs = [(0.0, 1.0, 0.0), (0.12, 1.09, 0.1)]
    residuals = [
        logs[s][p] - sum(logs[s]) / 3 - sum(line[p] for line in logs) / 2 + sum(map(sum, logs)) / 6
        for s in range(2)
        for p in range(3)
    ]
    noise = noise_between_starts([[one, other]])
    assert noise.prompt_sd == pytest.approx(math.sqrt(sum(r * r for r in residuals) / 2))
    gains = [0.12, 0.09, 0.1]
    scatter = sum((gain - sum(gains) / 3) ** 2 for gain in gains) / 2
    assert interleaved_noise([(one, other)]).prompt_sd == pytest.approx(math.sqrt(scatter))


def test_noise_between_starts_widens_what_prompts_alone_would_say() -> None:
    before, after = start(1.0, 2.0, 3.0), start(0.95, 1.9, 2.85)
    assert compare([before], [after], QUIET).called == "faster"
    loud = compare([before], [after], Noise(0.05, 1))
    assert loud.called == "no difference"
    assert loud.half_width == pytest.approx(math.exp(12.706 * paired.TAILS * 0.05 * math.sqrt(2)) - 1, rel=1e-3)


def test_further_starts_narrow_it() -> None:
    before, after = start(1.0, 2.0, 3.0), start(0.95, 1.9, 2.85)
    noise = Noise(0.05, 8)
    one, four = compare([before], [after], noise), compare([before] * 4, [after] * 4, noise)
    assert math.log(four.high / four.low) == pytest.approx(math.log(one.high / one.low) / 2)


@pytest.mark.parametrize(
    ("process_sd", "aa", "most"),
    [(0.0, 1, 1.0), (0.02, 3, 0.98), (0.10, 1, 0.98), (0.10, 3, 0.98)],
    ids=["none", "some", "much", "much, known better"],
)
def test_intervals_cover_the_truth_as_often_as_they_say(process_sd: float, aa: int, most: float) -> None:
    """Made-up noise; docs/calibration.md has it on real measurements. Without noise between starts one A/A
    cannot show that there is none, and the interval is wider than it need be."""
    rng, covered, rounds = random.Random(1), 0, 400
    for _ in range(rounds):
        baselines = [drawn(rng, process_sd) for _ in range(1 + aa)]
        result = compare(baselines, [drawn(rng, process_sd, slower=1.5)], noise_between_starts([baselines]))
        covered += result.low <= 1 / 1.5 <= result.high
    assert 0.92 <= covered / rounds <= most


def test_a_slowdown_of_a_tenth_beside_the_baseline_is_found() -> None:
    rng, found, rounds = random.Random(2), 0, 200
    for _ in range(rounds):
        drift = rng.gauss(0, 0.2)  # of the machine: affects both
        pairs = [
            tuple(
                {k: v * math.exp(drift) for k, v in drawn(rng, 0.005, slower=slower).items()} for slower in (1, factor)
            )
            for factor in (1.1, 1.0, 1.0, 1.0, 1.0, 1.0)
        ]
        noise = interleaved_noise(pairs[1:])
        found += compare_interleaved(pairs[:1], noise).called == "slower"
    assert found / rounds >= 0.9


def test_small_samples_get_students_width() -> None:
    rng = random.Random(5)
    covered, rounds = 0, 1000
    for _ in range(rounds):
        before = start(*(math.exp(rng.gauss(0, 0.1)) for _ in range(4)))
        result = compare([before], [start(1.0, 1.0, 1.0, 1.0)], Noise())
        covered += result.low <= 1.0 <= result.high
    assert covered / rounds >= 0.85, "a plain percentile interval of four samples covers about 80 %"
