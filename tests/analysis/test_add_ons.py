"""What an add-on gains over its base: measurements whose truth is known."""

import dataclasses
import functools
import math
import random

import pytest
from msgspec import structs

from sweep.analysis import add_ons, paired
from sweep.analysis.engine_starts import Floor, Measured
from sweep.analysis.paired import Noise, Ratio
from sweep.plan.cells import Cell
from sweep.results.records import RunResult
from tests import stored

PROMPTS = 12
FLOOR = Floor(alone=Noise(0.02, 3), interleaved=Noise(0.01, 3))


@functools.cache
def cell(profile: str = "off") -> Cell:
    made = stored.template("teacache")
    return dataclasses.replace(made, config={**made.config, "profile": profile})


def start(seconds: list[float], baseline_s: list[float] | None = None) -> RunResult:
    """One engine start with these latencies, one a prompt, and those of the interleaved baseline."""
    made = stored.result_of(cell(), random.Random(0), prompts=len(seconds), repeats=1)
    batches = [
        structs.replace(batch, latency_s=seconds[n], baseline_s=baseline_s[n] if baseline_s else None)
        for n, batch in enumerate(made.batches)
    ]
    return dataclasses.replace(made, batches=tuple(batches))


def measured(*starts: RunResult, profile: str = "off") -> Measured:
    return Measured(cell(profile), starts)


def baseline_s(machine: float = 1.0) -> list[float]:
    """Latencies of the baseline, which differ by prompt, on a machine that is slower by this factor."""
    return [machine * (1 + prompt / 10) for prompt in range(PROMPTS)]


def sped_up(latencies: list[float], times: float) -> list[float]:
    return [one / times for one in latencies]


def ends(found: Ratio) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def test_a_machine_that_slows_down_between_base_and_add_on_does_not_hide_the_gain() -> None:
    before, after = baseline_s(), baseline_s(machine=3.0)
    base = measured(start(sped_up(before, 1.5), before))
    both = measured(start(sped_up(after, 1.5 * 1.2), after))
    found = add_ons.gain(base, both, FLOOR)
    assert found.ratio == pytest.approx(1.2)
    low, high = ends(found)
    assert 1.1 < low < 1.2 < high < 1.3


def test_without_interleaved_baselines_the_two_are_compared_directly() -> None:
    base, both = measured(start(sped_up(baseline_s(), 1.5))), measured(start(sped_up(baseline_s(), 1.8)))
    found = add_ons.gain(base, both, FLOOR)
    assert found == paired.compare(base.starts, both.starts, FLOOR.alone)
    assert found.ratio == pytest.approx(1.2)


def test_a_base_without_an_interleaved_baseline_is_compared_directly_too() -> None:
    base = measured(start(sped_up(baseline_s(), 1.5)))
    both = measured(start(sped_up(baseline_s(), 1.8), baseline_s(machine=7.0)))
    assert add_ons.gain(base, both, FLOOR).ratio == pytest.approx(1.2)


def test_the_noise_of_both_cells_counts_and_more_starts_make_it_less() -> None:
    base, both = start(sped_up(baseline_s(), 1.5), baseline_s()), start(sped_up(baseline_s(), 1.8), baseline_s())

    def half(base_starts: int, starts: int) -> float:
        found = add_ons.gain(measured(*[base] * base_starts), measured(*[both] * starts), FLOOR)
        assert found.half_width is not None
        return math.log1p(found.half_width)

    alone = paired.compare_interleaved(measured(both).pairs, FLOOR.interleaved).half_width
    assert alone is not None
    assert half(1, 1) == pytest.approx(math.sqrt(2) * math.log1p(alone))
    assert half(4, 4) == pytest.approx(half(1, 1) / 2)
    assert half(1, 4) == pytest.approx(half(1, 1) * math.sqrt(5 / 8))


@pytest.mark.parametrize("interleaved", [True, False])
def test_the_interval_holds_the_true_gain_as_often_as_it_says(interleaved: bool) -> None:
    """Starts differ by 3 %, prompts by 2 % more, and the machine drifts by 30 % where a baseline sees it."""
    rng = random.Random(1)
    trials, missed = 300, 0

    def one(times: float) -> Measured:
        machine = math.exp(rng.gauss(0, 0.3)) if interleaved else 1.0
        process = math.exp(rng.gauss(0, 0.03))
        own = [process * s / times * math.exp(rng.gauss(0, 0.02)) for s in baseline_s(machine)]
        return measured(start(own, baseline_s(machine) if interleaved else None))

    for _ in range(trials):
        noise = Noise(math.sqrt(sum(rng.gauss(0, 0.03) ** 2 for _ in range(4)) / 4), 4, 0.02)
        floor = Floor(interleaved=noise) if interleaved else Floor(alone=noise)
        found = add_ons.gain(one(1.5), one(1.5 * 1.1), floor)
        low, high = ends(found)
        missed += not low < 1.1 < high
    assert 0 < missed <= 0.05 * trials


def test_without_noise_and_with_a_single_prompt_there_is_no_interval() -> None:
    base, both = measured(start([1.0], [1.5])), measured(start([0.8], [1.5]))
    assert add_ons.gain(base, both, Floor()) == Ratio(pytest.approx(1.25), pairs=1)


def test_a_profiled_cell_has_no_gain() -> None:
    base, both = start(sped_up(baseline_s(), 1.5)), start(sped_up(baseline_s(), 1.8))
    assert add_ons.gain(measured(base), measured(both, profile="torch"), FLOOR) == Ratio()
    assert add_ons.gain(measured(base, profile="torch"), measured(both), FLOOR) == Ratio()
