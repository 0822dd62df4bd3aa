"""The promises of docs/calibration.md, on the recorded A/A sweep."""

import pytest

from tests.bench.calibration import Pair, recorded_starts, score


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
    assert 0.93 <= found.covered <= (0.985 if aa == 1 else 0.98)
    assert found.found >= 0.9


def test_before_and_after_drift_is_noise_and_intervals_say_so(starts: list[Pair]) -> None:
    found = score(starts, interleaved=False, aa=3, prompts=20, rounds=400)
    assert found.called <= 0.1
    assert found.width > 0.08
