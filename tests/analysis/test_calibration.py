"""The promises of docs/calibration.md, on the recorded A/A sweep and on made-up noise."""

import math

import pytest

from sweep.analysis import family, paired
from sweep.analysis.adaptive_repeats import LEAST_NOISE_DF
from tests.bench import made_up_noise
from tests.bench.calibration import Pair, recorded_starts, score, score_auto, score_made_up, useless_features


@pytest.fixture(scope="module")
def starts() -> list[Pair]:
    return recorded_starts()


def test_the_recording_is_what_the_docs_say(starts: list[Pair]) -> None:
    assert len(starts) == 24
    assert all(len(own) == len(reference) == 60 for reference, own in starts)


@pytest.mark.parametrize("aa", [1, 3, 5])
def test_beside_the_baseline(starts: list[Pair], aa: int) -> None:
    found = score(starts, interleaved=True, aa=aa, prompts=20, rounds=400)
    assert found.called <= 0.05
    assert found.covered >= 0.93
    assert found.width < (0.25 if aa == 1 else 0.06), "and is no wider than it need be"
    assert found.found >= (0.2 if aa == 1 else 0.9), "one A/A start tells little, and its intervals say so"


def test_before_and_after_drift_is_noise_and_intervals_say_so(starts: list[Pair]) -> None:
    found = score(starts, interleaved=False, aa=3, prompts=20, rounds=400)
    assert found.called <= 0.06
    assert found.width > 0.08


def by_chance(promised: float, rounds: int) -> float:
    """The limit that a share of `rounds` exceeds in one of a thousand cases if its true value is `promised`."""
    return promised + 3.1 * math.sqrt(promised * (1 - promised) / rounds)


@pytest.mark.parametrize("kind", made_up_noise.KINDS)
@pytest.mark.parametrize(("prompts", "aa"), [(2, 1), (4, 2), (20, 3)])
def test_at_most_one_verdict_in_twenty_is_wrong_whatever_the_noise(kind: str, prompts: int, aa: int) -> None:
    rounds = 400
    found = score_made_up(kind, prompts, aa, rounds)
    assert found.called <= by_chance(0.05, rounds)
    assert 1 - found.covered <= by_chance(0.05, rounds)
    tried = found.called > 0 or prompts == 2 or kind in ("batches only", "heavy tails", "drifting")
    assert tried, "or nothing was tried"


@pytest.mark.parametrize("kind", ["quiet batches", "batches only", "heavy tails"])
@pytest.mark.parametrize(("prompts", "least"), [(2, 0.95), (3, 0.95), (4, 0.93), (20, 0.93)])
def test_intervals_hold_where_prompts_gain_differently(kind: str, prompts: int, least: float) -> None:
    """Gains differ by 10 %, which no A/A run shows."""
    rounds = 400
    found = score_made_up(kind, prompts, 2, rounds, uneven=0.1)
    assert 1 - found.covered <= by_chance(1 - least, rounds)


def test_auto_does_not_stop_because_one_start_looked_like_another_by_luck() -> None:
    rounds = 400
    lucky, trusted = (score_auto("quiet batches", 20, 0.02, rounds, least) for least in (1, LEAST_NOISE_DF))
    assert trusted.called <= by_chance(0.05, rounds)
    assert lucky.called > trusted.called, "without the least number of A/A starts it would"


@pytest.mark.parametrize("aa", [1, 3])
def test_the_headline_crowns_no_noise_although_single_verdicts_are_wrong(aa: int) -> None:
    rounds = 200
    sweeps = list(useless_features("quiet batches", 20, aa, rounds))
    alone = sum(any(row["called"] == paired.FASTER for row in rows) for rows in sweeps)
    crowned = sum(family.fastest(rows) is not None for rows in sweeps)
    assert crowned / rounds <= by_chance(0.05, rounds)
    assert alone / rounds > 0.05, "each cell alone is allowed 5 %"


def test_what_is_certain_among_many_is_crowned() -> None:
    (rows,) = useless_features("quiet batches", 20, 3, 1)
    rows[7] |= {"p_value": 1e-5, "speedup": 1.6}
    family.adjust(rows)
    assert family.fastest(rows) is rows[7]
    rows[7]["doubts"] = ["disturbed"]
    for row in rows:
        row.pop("p_holm")
    family.adjust(rows)
    assert family.fastest(rows) is None
