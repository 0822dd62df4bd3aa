"""What a timeline shows: processes, when phases ran on the GPU, blocks, windows and curves."""

import itertools

import pytest

from profiling.errors import Refusal
from profiling.measured_cell import Reading, RecordedCell, RecordedRequest, read_cell
from profiling.phases import PhaseRecord
from profiling.timeline.lanes import (
    Slice,
    Window,
    blocks,
    curves,
    gpu_slices,
    held,
    power,
    processes,
    span,
    window_of,
)
from tests.recorded import unpack


@pytest.fixture(scope="module")
def glm(tmp_path_factory) -> RecordedCell:
    return read_cell(unpack("glm_b4", tmp_path_factory.mktemp("glm")))


def record(phase: str, start_s: float, host_ms: float, gpu_ms: float | None = None, rank: int = 0) -> PhaseRecord:
    return PhaseRecord(rank, phase, 0, start_s, host_ms, gpu_ms, "r000.0")


def slices(*spans: tuple[float, float], phase: str = "ar_decode") -> list[Slice]:
    return [Slice(record(phase, a, (b - a) * 1000), a, b) for a, b in spans]


def test_stages_that_are_processes_have_rows_of_their_own(glm: RecordedCell) -> None:
    engine, autoregressive, diffusion = processes(glm.phases)
    assert [p.name for p in (engine, autoregressive, diffusion)] == ["engine", "AR stage", "DiT stage"]
    assert [lane.kind for lane in engine.lanes] == ["request"]
    assert [lane.kind for lane in autoregressive.lanes] == ["phases", "host"]
    assert [lane.kind for lane in diffusion.lanes] == ["phases", "dit_forward", "host"]
    assert {s.record.phase for s in diffusion.lanes[0].slices} == {"text_encode", "denoise_step", "vae_decode"}
    assert sum(len(p.records) for p in (engine, autoregressive, diffusion)) == len(glm.phases)


def test_ranks_of_one_pipeline_have_a_row_each() -> None:
    phases = [record("ar_decode", 0.0, 5), record("denoise_step", 0.1, 5), record("denoise_step", 0.1, 5, rank=1)]
    assert [process.name for process in processes(phases)] == ["rank 0", "rank 1"]
    assert [lane.kind for lane in processes(phases)[0].lanes] == ["phases"], "no GPU, no second lane for the host"


def test_a_phase_begins_on_the_gpu_when_the_work_before_it_ends() -> None:
    phases = [
        record("denoise_step", 0.0, 10, 50),
        record("dit_forward", 0.001, 4, 30),
        record("dit_forward", 0.005, 4, 19.5),
        record("vae_decode", 0.010, 5, 100),
        record("text_encode", 1.0, 5, 5),
    ]
    found = [time_s for one in gpu_slices(phases) for time_s in (one.start_s, one.end_s)]
    assert found == pytest.approx([0.0, 0.05, 0.001, 0.031, 0.031, 0.05, 0.05, 0.15, 1.0, 1.005])
    # the second forward ends with its step, in which it lies; the VAE waits 40 ms for the stream


def test_gpu_spans_of_a_real_cell_lie_within_its_request(glm: RecordedCell) -> None:
    """An independent check of the rebuilt spans: the engine had the last image in hand after the last VAE's end."""
    request = next(phase for phase in glm.phases if phase.phase == "request")
    for process in processes(glm.phases):
        for lane in process.lanes:
            ends = [one.end_s for one in lane.slices]
            assert max(ends) <= request.start_s + request.host_ms / 1000
            if lane.kind == "phases":
                assert all(a.end_s <= b.start_s + 1e-4 for a, b in itertools.pairwise(lane.slices))
    vae = next(s for s in processes(glm.phases)[2].lanes[0].slices if s.record.phase == "vae_decode")
    assert vae.end_s - vae.start_s == pytest.approx(0.1807, abs=1e-3), "by the host's times it would be 6 ms"


def test_hundreds_of_steps_become_one_block_and_few_stay_apart(glm: RecordedCell) -> None:
    autoregressive, diffusion = processes(glm.phases)[1:]
    drawn = blocks(autoregressive.lanes[0].slices, window_of(glm), 1000)
    assert [(block.phase, block.count) for block in drawn] == [("ar_prefill", 2), ("ar_decode", 1280)]
    assert drawn[-1].busy > 0.95
    steps = [b for b in blocks(diffusion.lanes[0].slices, window_of(glm), 1000) if b.phase == "denoise_step"]
    assert [block.count for block in steps] == [1] * 80


def test_a_block_says_how_much_of_it_is_filled_and_a_pause_ends_it() -> None:
    period = [(i * 0.002, i * 0.002 + 0.001) for i in range(100)]
    late = [(a + 0.5, b + 0.5) for a, b in period]
    first, second = blocks(slices(*period, *late), Window(0.0, 1.0), 1000)
    assert (first.count, second.count) == (100, 100)
    assert first.busy == pytest.approx(0.5, abs=0.01)
    assert (first.start_s, first.end_s) == pytest.approx((0.0, 0.199))
    assert len(blocks(slices(*period), Window(0.0, 0.02), 1000)) == 11, "zoomed in, each is seen"


def test_blocks_end_at_the_window() -> None:
    (block,) = blocks(slices((0.0, 10.0)), Window(2.0, 3.0), 100)
    assert (block.start_s, block.end_s) == (2.0, 3.0)
    assert blocks(slices((0.0, 1.0)), Window(2.0, 3.0), 100) == []


def test_a_request_stands_for_its_batch() -> None:
    phases, requests = [], []
    for number, (repeat, batch) in enumerate(itertools.product((0, 1), (0, 1))):
        name = f"r00{2 * batch}.{repeat}"
        phases.append(PhaseRecord(0, "request", 0, float(number), 900.0, None, name))
        requests += [RecordedRequest(f"r00{2 * batch + i}.{repeat}", repeat, number) for i in (0, 1)]
    cell = RecordedCell("c", tuple(phases), requests=tuple(requests))
    asked = {
        "r000.0": {},
        "r002.0": {"request": "r003.0"},
        "r000.1": {"repeat": 1},
        "r002.1": {"request": "r003", "repeat": 1},
    }
    for name, wish in asked.items():
        window = window_of(cell, **wish)
        assert window.batch == name
        assert window.end_s - window.start_s == pytest.approx(0.9)
    assert window_of(cell, from_s=1.5) == Window(1.5, 3.9)
    assert window_of(cell, to_s=1.5) == Window(0.0, 1.5)
    assert window_of(cell, from_s=-float("inf"), to_s=float("inf")) == Window(0.0, 3.9), "no more than there is"
    for wish, code, said in (
        ({"request": "r009"}, "no_request", r"r009.*: r000\.0, r001\.0"),
        ({"request": "r003.0", "repeat": 1}, "no_request", r"r003\.0.*repeat 1"),
        ({"repeat": 7}, "no_repeat", "7.*: 0, 1"),
        ({"from_s": 2.0, "to_s": 1.0}, "from_after_to", "--from 2.*--to 1"),
        ({"from_s": float("nan")}, "not_a_number", "nan"),
        ({"from_s": 99.0}, "nothing_there", r"0\.000.*3\.900 s"),
        ({"from_s": 1.0, "repeat": 0}, "two_selections", "--from.*--to.*--request.*--repeat"),
    ):
        with pytest.raises(Refusal, match=said) as refused:
            window_of(cell, **wish)
        assert refused.value.code == code


def test_a_reading_speaks_of_the_time_before_it() -> None:
    readings = [Reading(time_s, 0, {"gpu_util_pct": value}) for time_s, value in ((0.2, 10.0), (0.4, 90.0), (0.6, 0.0))]
    steps = held(readings, "gpu_util_pct", Window(0.1, 0.5))
    assert steps == ((0.1, 10.0), (0.2, 10.0), (0.2, 90.0), (0.4, 90.0), (0.4, 0.0), (0.5, 0.0))
    assert held(readings[:1], "gpu_util_pct", Window(0.0, 1.0)) == ((0.2, 10.0),)
    assert held([], "gpu_util_pct", Window(0.0, 1.0)) == ()


def test_power_changes_with_the_phase_and_never_exceeds_the_gpu(glm: RecordedCell) -> None:
    """H200: 700 W. NVML's own power still says 548 W 0.2 s into the AR stage, left over from before it."""
    steps = power(glm.telemetry, window_of(glm))
    decoding = [watts for time_s, watts in steps if 0.3 < time_s < 2.9]
    denoising = [watts for time_s, watts in steps if 3.4 < time_s < 8.3]
    assert max(decoding) < 250 < 500 < min(denoising)
    assert max(denoising) < 720
    bare = [Reading(r.time_s, 0, {"power_w": r.values["power_w"]}) for r in glm.telemetry]
    assert max(watts for _, watts in power(bare, window_of(glm))) == pytest.approx(704.49)


def test_curves_are_of_the_gpus_or_without_any_of_the_processes(glm: RecordedCell) -> None:
    window = window_of(glm)
    assert [(c.name, c.unit, list(c.lines)) for c in curves(glm.telemetry, window)] == [
        ("GPU busy", "%", [""]),
        ("GPU memory", "GB", [""]),
        ("GPU power", "W", [""]),
    ]
    two = [Reading(r.time_s, gpu, r.values) for r in glm.telemetry for gpu in (0, 3)]
    assert list(curves(two, window)[0].lines) == ["GPU 0", "GPU 3"]
    plain = [Reading(r.time_s, None, {"cpu_pct": 150.0, "rss_gb": 0.5}) for r in glm.telemetry]
    assert [(c.name, c.unit) for c in curves(plain, window)] == [("CPU busy", "% of a core"), ("memory", "GB")]
    assert curves([], window) == ()


def test_the_span_holds_what_the_gpu_did_after_the_host_left() -> None:
    cell = RecordedCell("c", (record("vae_decode", 1.0, 5, 200),))
    assert span(cell) == pytest.approx((1.0, 1.2))
