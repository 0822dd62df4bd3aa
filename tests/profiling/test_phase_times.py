"""Which phase takes longest, and whether it waits for the GPU or the host."""

from pathlib import Path

import pytest

from profiling.measured_cell import Reading, RecordedCell, read_cell
from profiling.phases import PhaseRecord
from profiling.timeline.bottleneck import (
    GPU,
    WAITS_FOR_GPU,
    WAITS_FOR_HOST,
    PhaseTime,
    bottleneck,
    held_up_by,
    limit,
    phase_times,
)
from profiling.timeline.lanes import Window, window_of
from tests.recorded import unpack


def test_phases_of_a_recorded_cell(tmp_path: Path) -> None:
    """What result.json of that cell says, from its own sums."""
    cell = read_cell(unpack("glm_b4", tmp_path))
    times = {time.phase: time for time in phase_times(cell, window_of(cell))}
    assert times["ar_decode"].count == 1280
    assert times["ar_decode"].gpu_ms == pytest.approx(2929.6317)
    assert times["denoise_step"].gpu_ms == pytest.approx(4540.928)
    assert times["denoise_step"].share == pytest.approx(4540.928 / 8478.676, abs=1e-4)
    assert times["stage_transfer"].gpu_ms is None
    longest = bottleneck(tuple(times.values()))
    assert longest is not None
    assert longest.phase == "denoise_step", "not the forwards inside it, nor the request around it"
    assert times["ar_decode"].gpu_busy_pct == pytest.approx(50, abs=3)
    assert times["denoise_step"].gpu_busy_pct == pytest.approx(93, abs=3)
    assert limit(times["ar_decode"]) == WAITS_FOR_HOST
    assert limit(times["denoise_step"]) == WAITS_FOR_GPU
    assert limit(times["vae_decode"]) == GPU
    assert held_up_by(times["vae_decode"]).startswith("GPU 725 ms, host 23.8 ms: ")


def test_of_a_phase_the_part_in_the_window_counts() -> None:
    phases = [PhaseRecord(0, "request", 0, 0.0, 1000.0, None, "r000.0")]
    phases += [PhaseRecord(0, "denoise_step", step, 0.2 * step, 200.0, None, "r000.0") for step in range(5)]
    times = phase_times(RecordedCell("c", tuple(phases)), Window(0.3, 0.5))
    assert [(one.phase, one.count) for one in times] == [("request", 1), ("denoise_step", 2)]
    assert [one.host_ms for one in times] == pytest.approx([200.0, 200.0])
    assert [one.share for one in times] == pytest.approx([1.0, 1.0])
    (step,) = phase_times(RecordedCell("c", tuple(phases[1:])), Window(0.2, 0.4))
    assert (step.count, step.host_ms) == (1, pytest.approx(200.0)), "neighbours only touch the window"


@pytest.mark.parametrize(
    ("host_ms", "gpu_ms", "busy", "said"),
    [
        (10.0, None, None, ""),
        (0.0, 10.0, None, ""),
        (10.0, 20.0, None, "GPU 20 ms, host 10 ms: GPU time dominates and the host runs ahead"),
        (2500.0, 1000.0, 30.0, "GPU 1.00 s, host 2.50 s: host time dominates; the GPU is busy 30 % of the time"),
        (10.0, 10.5, None, "GPU 10.5 ms, host 10 ms: both take equally long, so one waits for the other"),
    ],
)
def test_words_for_host_and_gpu(host_ms: float, gpu_ms: float | None, busy: float | None, said: str) -> None:
    assert held_up_by(PhaseTime("vae_decode", 1, host_ms, gpu_ms, 0.1, busy)) == said


def test_of_several_gpus_the_busiest_counts() -> None:
    """AR and DiT stage on GPUs of their own: one always idles."""
    phases = (PhaseRecord(0, "ar_decode", 0, 0.0, 1000.0, 1000.0, "r000.0"),)
    readings = [Reading(n * 0.2, gpu, {"gpu_util_pct": 90.0 * gpu}) for n in range(6) for gpu in (0, 1)]
    (time,) = phase_times(RecordedCell("c", phases, tuple(readings)), Window(0.0, 1.0))
    assert time.gpu_busy_pct == 90.0


def test_without_phases_there_is_no_bottleneck() -> None:
    assert bottleneck(()) is None
