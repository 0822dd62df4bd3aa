"""Laws of arrival: rates, gaps, seeds, and recorded traces."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sweep.refusals import ConfigError
from sweep.workload import arrivals

SEEDS = range(20)


def gaps(law: str, rate: float, seed: int, count: int = 1000, **settings: float) -> np.ndarray:
    return np.diff([0.0, *itertools.islice(arrivals.times(law, rate, seed, **settings), count)])


@pytest.mark.parametrize("law", arrivals.LAWS)
def test_times_ascend_at_the_rate_and_follow_from_the_seed(law: str) -> None:
    found = list(itertools.islice(arrivals.times(law, 50.0, 3), 20_000))
    assert all(earlier <= later for earlier, later in itertools.pairwise(found))
    assert math.isclose(20_000 / found[-1], 50.0, rel_tol=0.05)
    assert found == list(itertools.islice(arrivals.times(law, 50.0, 3), 20_000))
    if law != "constant":
        assert found[:10] != list(itertools.islice(arrivals.times(law, 50.0, 4), 10))


@pytest.mark.parametrize(
    ("law", "settings", "distribution"),
    [
        ("poisson", {}, stats.expon(scale=1 / 500)),
        ("gamma", {"burstiness": 0.5}, stats.gamma(0.5, scale=1 / 250)),
        ("gamma", {"burstiness": 4.0}, stats.gamma(4.0, scale=1 / 2000)),
    ],
)
def test_gaps_follow_their_law(law: str, settings: dict[str, float], distribution: object) -> None:
    """Of 20 seeds at most 3 fail a Kolmogorov–Smirnov test at 5 %: 4 or more would happen by chance once in 60."""
    fails = sum(stats.kstest(gaps(law, 500.0, seed, **settings), distribution.cdf).pvalue < 0.05 for seed in SEEDS)
    assert fails <= 3


def test_constant_gaps_do_not_drift() -> None:
    found = list(itertools.islice(arrivals.times("constant", 3.0, 0), 30_001))
    assert found[0] == 0.0
    assert found[-1] == 10_000.0


def test_bursts_come_at_once() -> None:
    found = list(itertools.islice(arrivals.times("burst", 100.0, 1, burst=10), 1000))
    together = [len(list(same)) for _, same in itertools.groupby(found)]
    assert set(together) <= {1, 10, 11}
    assert 30 <= sum(one >= 10 for one in together) <= 70


def test_a_recorded_trace_is_sorted_and_begins_at_0(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text("12.5\n\n11\n13\n")
    assert arrivals.recorded(file) == [0.0, 1.5, 2.0]
    file.write_text('{"timestamp": 500, "input_length": 3}\n{"timestamp": 750}\n')
    assert arrivals.recorded(file) == [0.0, 0.25]


@pytest.mark.parametrize("content", ["", "a\n", '{"time": 3}\n', "{\n"])
def test_a_trace_that_is_none_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"^load\.trace=[^\n]*$"):
        arrivals.recorded(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        arrivals.recorded(tmp_path / "none")


@pytest.mark.parametrize(
    ("law", "rate", "settings"),
    [("sine", 1.0, {}), ("poisson", 0.0, {}), ("gamma", 1.0, {"burstiness": 0.0}), ("burst", 1.0, {"burst": 0})],
)
def test_impossible_laws_are_refused(law: str, rate: float, settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"^load\."):
        arrivals.times(law, rate, 0, **settings)


def test_a_ramp_begins_slowly_and_ends_at_the_rate() -> None:
    """Expected arrivals until t are rate × t² ÷ (2 × ramp) within the ramp, and half a ramp's fewer after it."""
    rate, ramp_s = 100.0, 4.0
    found = list(itertools.islice(arrivals.ramped(arrivals.times("constant", rate, 1), ramp_s), 2000))
    assert all(earlier <= later for earlier, later in itertools.pairwise(found))
    for until_s in (1.0, 2.0, 4.0, 6.0, 10.0):
        expected = rate * (until_s**2 / (2 * ramp_s) if until_s < ramp_s else until_s - ramp_s / 2)
        assert sum(time_s <= until_s for time_s in found) == pytest.approx(expected, abs=1)
    assert list(itertools.islice(arrivals.ramped(iter([0.5, 1.5]), 0.0), 2)) == [0.5, 1.5]
