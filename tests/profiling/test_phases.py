"""PhaseRecorder by itself."""

import time

import pytest

from profiling.phases import PhaseRecorder


@pytest.fixture
def recorder() -> PhaseRecorder:
    return PhaseRecorder(rank=3, device="cpu")


def test_times_indices_and_order(recorder: PhaseRecorder) -> None:
    with recorder.phase("request"):
        for _ in range(2):
            with recorder.phase("denoise_step"):
                time.sleep(0.01)
    records = recorder.take()
    assert [(record.phase, record.index) for record in records] == [
        ("request", 0),
        ("denoise_step", 0),
        ("denoise_step", 1),
    ]
    request, *steps = records
    assert all(step.host_ms >= 10 for step in steps)
    assert request.host_ms >= sum(step.host_ms for step in steps)
    assert request.rank == 3
    assert request.gpu_ms is None
    assert 0 <= request.start_s <= steps[0].start_s < steps[1].start_s


def test_index_begins_anew_after_take(recorder: PhaseRecorder) -> None:
    with recorder.phase("ar_decode"):
        pass
    recorder.take()
    with recorder.phase("ar_decode"):
        pass
    assert [record.index for record in recorder.take()] == [0]
    assert recorder.take() == ()


def test_given_index_is_kept_and_counted_on_from(recorder: PhaseRecorder) -> None:
    with recorder.phase("denoise_step", index=5):
        pass
    with recorder.phase("denoise_step"):
        pass
    assert [record.index for record in recorder.take()] == [5, 6]


def test_start_counts_from_the_epoch(recorder: PhaseRecorder) -> None:
    recorder.epoch -= 100.0
    before = time.perf_counter() - recorder.epoch
    with recorder.phase("request"):
        pass
    assert 100.0 <= before <= recorder.take()[0].start_s <= time.perf_counter() - recorder.epoch


def test_ending_a_phase_ends_what_was_left_open_inside(recorder: PhaseRecorder) -> None:
    recorder.begin("request")
    recorder.begin("denoise_step")
    recorder.end("request")
    assert {record.phase for record in recorder.take()} == {"request", "denoise_step"}


def test_ending_a_phase_that_is_not_open_says_what_is(recorder: PhaseRecorder) -> None:
    recorder.begin("request")
    with pytest.raises(ValueError, match=r"vae_decode.*request"):
        recorder.end("vae_decode")


def test_take_refuses_while_a_phase_is_open_and_abort_helps(recorder: PhaseRecorder) -> None:
    recorder.begin("request")
    with pytest.raises(RuntimeError, match="request"):
        recorder.take()
    recorder.abort()
    assert len(recorder.take()) == 1


def test_abort_inside_a_phase_block_is_fine(recorder: PhaseRecorder) -> None:
    with recorder.phase("request"):
        recorder.abort()
    assert len(recorder.take()) == 1


@pytest.mark.gpu
def test_gpu_time_is_that_of_the_kernels_not_of_the_launch() -> None:
    import torch

    recorder = PhaseRecorder(rank=0, device="cuda")
    with recorder.phase("request"):
        torch.cuda._sleep(1)  # the first launch also loads the driver's modules
    recorder.take()
    for _ in range(2):  # the second round reuses the first one's events
        with recorder.phase("request"):
            for _ in range(2):
                with recorder.phase("dit_forward"):
                    torch.cuda._sleep(20_000_000)  # cycles: about 10 ms
        request, *forwards = recorder.take()
        assert all(forward.gpu_ms is not None and forward.gpu_ms > 5 for forward in forwards)
        assert all(forward.host_ms < 5 for forward in forwards)
        assert request.gpu_ms == pytest.approx(sum(forward.gpu_ms or 0 for forward in forwards), rel=0.05)
