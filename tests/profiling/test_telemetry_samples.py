"""Summaries of recorded samples: what a window says, and what it must not say."""

import dataclasses

import pytest

from profiling.telemetry.samples import TelemetrySample, summarise, throttled, window


def gpu_sample(time_s: float, index: int, memory_gb: float, util_pct: float, energy_j: float) -> TelemetrySample:
    """A row as a machine with two GPUs leaves it."""
    return TelemetrySample(time_s, 4.0, 100.0 * time_s, index, memory_gb, util_pct, 300.0, energy_j)


RECORDED = (
    gpu_sample(0.0, 0, 10.0, 0.0, 1000.0),
    gpu_sample(0.0, 1, 10.0, 0.0, 5000.0),
    gpu_sample(1.0, 0, 20.0, 90.0, 1300.0),
    gpu_sample(1.0, 1, 21.0, 80.0, 5200.0),
    gpu_sample(2.0, 0, 20.0, 100.0, 1700.0),
    gpu_sample(2.0, 1, 60.0, 90.0, 5400.0),
)


def test_gpu_window_between_samples() -> None:
    summary = summarise(RECORDED, [(0.5, 1.5)])
    assert summary.peak_memory_gb == 21.0
    assert summary.gpu_util_pct == 85.0
    assert summary.energy_j == pytest.approx(150 + 200 + 100 + 100)
    assert summary.cpu_pct == pytest.approx(0.5 * 100 + 0.5 * 200)


def alternating(turns: int) -> tuple[list[TelemetrySample], list[tuple[float, float]]]:
    """An engine that works every other second, sampled at the turns' ends and half-way, and its turns."""
    samples, energy_j = [], 0.0
    for half in range(2 * turns * 2 + 1):
        time_s = half / 2
        busy = half > 0 and (half - 1) // 2 % 2 == 0  # in the half second that ends here
        energy_j += 150.0 if busy else 20.0
        samples.append(
            TelemetrySample(time_s, 1.0, 97.0 if busy else 0.0, 0, 30.0 if busy else 70.0, 90.0 * busy, None, energy_j)
        )
    return samples, [(2.0 * n + 0.01, 2.0 * n + 1.0) for n in range(turns)]


def test_an_engine_that_takes_turns_with_another_is_summed_up_over_its_own() -> None:
    samples, turns = alternating(5)
    own, whole = (window(samples, 0.0, 10.0, part).summary for part in (turns, None))
    assert (own.cpu_pct, own.gpu_util_pct, own.peak_memory_gb) == (pytest.approx(97.0), 90.0, 30.0)
    assert own.energy_j == pytest.approx(5 * 300.0 * 0.99, rel=0.01)
    assert (whole.cpu_pct, whole.peak_memory_gb) == (pytest.approx(48.5), 70.0)
    assert whole.energy_j == pytest.approx(5 * 340.0, rel=0.1)
    assert window(samples, 0.0, 10.0, []).summary.cpu_pct is None, "it had no turn"


def test_turns_that_overlap_count_once() -> None:
    samples, turns = alternating(2)
    assert summarise(samples, [*turns, *turns, (0.2, 0.4)]) == summarise(samples, turns)


def test_a_turn_between_two_samples_takes_the_sample_that_ends_it() -> None:
    samples, _ = alternating(3)
    short = summarise(samples, [(0.1, 0.2), (2.1, 2.2), (4.1, 4.2)])
    assert (short.cpu_pct, short.gpu_util_pct) == (pytest.approx(97.0), 90.0)


def test_window_without_a_sample_takes_its_neighbours() -> None:
    summary = summarise(RECORDED, [(1.25, 1.75)])
    assert summary.energy_j == pytest.approx(200 + 100)
    assert summary.cpu_pct == pytest.approx(200)
    assert summary.peak_memory_gb is not None


def test_no_samples_is_unknown_not_zero() -> None:
    summary = summarise((), [(0.0, 1.0)])
    assert (summary.peak_memory_gb, summary.cpu_pct, summary.energy_j) == (None, None, None)


def because(*reasons: str | None) -> list[TelemetrySample]:
    """One sample a second of GPU 3, each with its reasons for low clocks."""
    one = gpu_sample(0.0, 3, 10.0, 90.0, 0.0)
    return [dataclasses.replace(one, time_s=float(n), throttle_reasons=r) for n, r in enumerate(reasons)]


@pytest.mark.parametrize(
    "reason",
    [
        *("hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown"),
        *("prochot", "socket_thermal", "vr_thermal", "hbm_thermal"),
    ],
)
def test_heat_and_power_brakes_are_throttling(reason: str) -> None:
    seen = throttled(because("none", f"sw_power_cap+{reason}", "none", "none", "none"), [(0.5, 4.5)])
    assert [str(one) for one in seen] == [f"GPU 3 was throttled ({reason}) in 1 of 4 samples (25%)"]


@pytest.mark.parametrize(
    "reason",
    [
        "none",
        None,
        "gpu_idle",
        "applications_clocks_setting",
        "sw_power_cap",
        "ppt",
        "sync_boost",
        "display_clock_setting",
    ],
)
def test_what_a_gpu_does_as_it_was_built_or_told_to_is_no_throttling(reason: str | None) -> None:
    assert throttled(because(reason, reason), [(0.0, 9.0)]) == ()


def test_throttling_outside_the_window_is_none_of_its_business() -> None:
    samples = because("hw_slowdown", "none", "none", "hw_slowdown")
    assert window(samples, 0.5, 2.5).throttled == ()
    assert window(samples, 0.5, 3.0).throttled != ()


def test_window_shorter_than_the_interval_asks_the_sample_that_ends_it_on_every_gpu() -> None:
    samples = because("none", "hw_slowdown")
    samples += [dataclasses.replace(sample, gpu_index=4, gpu_memory_gb=70.0) for sample in samples]
    samples.sort(key=lambda sample: sample.time_s)
    found = window(samples, 0.4, 0.6)
    assert [one.gpu_index for one in found.throttled] == [3, 4]
    assert found.summary.peak_memory_gb == 70.0


def test_share_of_samples_at_the_power_limit() -> None:
    assert summarise(because("sw_power_cap", "none", "ppt", "gpu_idle"), [(0.0, 3.0)]).power_capped_pct == 50.0
    assert summarise(because(None, None), [(0.0, 3.0)]).power_capped_pct is None
