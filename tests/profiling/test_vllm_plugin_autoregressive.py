"""Steps of an AR runner shaped like vLLM's V1 runner, and how soon they are in the file."""

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from omni_doubles import Here  # noqa: E402

from profiling.vllm_plugin import autoregressive, paged_cache  # noqa: E402
from profiling.vllm_plugin.autoregressive import hook_runner, is_prefill  # noqa: E402
from profiling.vllm_plugin.memory import Allocated  # noqa: E402
from profiling.vllm_plugin.record_files import PAUSED, ArRecord, ar_record, phase_records, read_lines  # noqa: E402


@dataclass
class Cached:
    """vLLM's CachedRequestData."""

    req_ids: list[str] = field(default_factory=list)
    num_output_tokens: list[int] = field(default_factory=list)
    resumed_req_ids: set[str] = field(default_factory=set)
    new_block_ids: list[tuple[list[int], ...] | None] = field(default_factory=list)


@dataclass
class Scheduled:
    """vLLM's SchedulerOutput."""

    scheduled_new_reqs: list[Any] = field(default_factory=list)
    scheduled_cached_reqs: Cached = field(default_factory=Cached)
    num_scheduled_tokens: dict[str, int] = field(default_factory=dict)

    @property
    def total_num_scheduled_tokens(self) -> int:
        return sum(self.num_scheduled_tokens.values())


def first(*names: str, tokens: int = 100, running: Sequence[str] = ()) -> Scheduled:
    """The step that begins these requests, while others keep decoding."""
    counts = dict.fromkeys(names, tokens) | dict.fromkeys(running, 1)
    cached = Cached(list(running), [5] * len(running))
    return Scheduled([SimpleNamespace(req_id=name) for name in names], cached, counts)


def later(*names: str, outputs: int = 1, tokens: int = 1) -> Scheduled:
    """A step of requests that continue."""
    return Scheduled([], Cached(list(names), [outputs] * len(names)), dict.fromkeys(names, tokens))


class Runner:
    """Leaves sampling for later, as vLLM's runner does on the last pipeline rank."""

    def __init__(self) -> None:
        self.device = SimpleNamespace(type="cpu")
        self.parallel_config = SimpleNamespace(tensor_parallel_size=2, pipeline_parallel_size=1)
        self.model_config = SimpleNamespace(dtype=torch.bfloat16, quantization=None, enforce_eager=False)
        mode = SimpleNamespace(name="FULL_AND_PIECEWISE")
        self.compilation_config = SimpleNamespace(cudagraph_mode=mode)
        self.scheduler_config = SimpleNamespace(async_scheduling=True, max_num_seqs=4, max_num_batched_tokens=32768)
        self.model_config.max_model_len = 8192
        self.cache_config = SimpleNamespace(
            gpu_memory_utilization=0.35, enable_prefix_caching=False, cache_dtype="auto", block_size=16
        )
        tensors = [SimpleNamespace(size=1000), SimpleNamespace(size=3000)]
        self.kv_cache_config = SimpleNamespace(num_blocks=100, kv_cache_tensors=tensors)
        self.model_memory_usage = 5000
        backend = SimpleNamespace(get_name=lambda: "FLASH_ATTN")
        self.attn_groups = [[SimpleNamespace(backend=backend)]]
        self.deferred = True
        self.fail = False
        self.seen: list[Any] = []

    def execute_model(self, scheduler_output: Scheduled, intermediate_tensors: Any = None) -> Any:
        if self.fail:
            raise RuntimeError("CUDA error")
        self.seen.append(scheduler_output)
        time.sleep(0.0005)
        return None if self.deferred and scheduler_output.total_num_scheduled_tokens else "output"

    def sample_tokens(self, grammar_output: Any) -> str:
        time.sleep(0.0005)
        return "output"


@pytest.fixture
def runner(here: Here) -> Any:
    cls: Any = type("GPUARModelRunner", (Runner,), {})
    names = hook_runner(cls, here)
    assert names == ["GPUARModelRunner.execute_model", "GPUARModelRunner.sample_tokens"] == hook_runner(cls, here)
    return cls()


def step(runner: Any, scheduled: Scheduled) -> None:
    """As vLLM's engine core drives a runner."""
    if runner.execute_model(scheduled) is None:
        assert runner.sample_tokens(None) == "output"


def records(here: Here, steps: int, timeout_s: float = 60.0) -> list[ArRecord]:
    """Lines of the only file once they hold so many steps."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for path in here.folder.glob("ar-rank0-*.jsonl"):
            found = [ar_record(line) for line in read_lines(path)[0]]
            if sum(record.steps for record in found) >= steps:
                return found
        time.sleep(0.005)
    raise AssertionError(f"fewer than {steps} steps were written; reported: {here.reports}")


def test_requests_go_unobserved_while_paused(runner: Any, here: Here) -> None:
    (here.folder / PAUSED).touch()
    for scheduled in (first("a"), later("a")):
        step(runner, scheduled)
    (here.folder / PAUSED).unlink()
    step(runner, later("a"))  # went unobserved from its beginning
    for scheduled in (first("b"), later("b")):
        step(runner, scheduled)
    (record,) = records(here, 2)
    assert (record.requests, record.steps) == (("b",), 2)
    assert here.reports == []


def new(name: str, *blocks: int, **sampling: float) -> SimpleNamespace:
    """vLLM's NewRequestData."""
    return SimpleNamespace(req_id=name, block_ids=([*blocks],), sampling_params=SimpleNamespace(**sampling))


def test_the_most_blocks_that_requests_held_at_once_are_counted_and_how_tokens_were_drawn(
    runner: Any, here: Here
) -> None:
    step(runner, Scheduled([new("a", 1, 2, temperature=0.9, top_k=5)], Cached(), {"a": 20}))
    step(
        runner, Scheduled([new("b", 2, 3, temperature=0.5)], Cached(["a"], [1], new_block_ids=[None]), {"a": 1, "b": 9})
    )
    step(runner, Scheduled([], Cached(["a", "b"], [2, 1], new_block_ids=[([4],), None]), {"a": 1, "b": 1}))
    step(runner, Scheduled([], Cached(["b"], [2], new_block_ids=[None]), {"b": 1}))
    step(runner, Scheduled([], Cached(["b"], [0], {"b"}, [([7, 8, 9, 0],)]), {"b": 3}))
    found = records(here, 5)
    assert max(one.counts["kv_blocks_used"] for one in found) == 4, "1 to 4: both requests read block 2"
    assert {one.counts["kv_used_bytes"] // 40 for one in found} == {one.counts["kv_blocks_used"] for one in found}
    assert (found[0].counts["kv_reserved_bytes"], found[0].counts["weights_bytes"]) == (4000, 5000)
    assert "memory_used_bytes" not in found[0].counts, "a CPU has no allocator that counts"
    assert found[-1].settings["temperature"] == "0.5"
    assert here.reports == []


def test_memory_that_was_used_leaves_out_blocks_that_nobody_held(runner: Any) -> None:
    allocated = Allocated(now=9_000, peak=10_000, reserved_peak=12_000)
    found = paged_cache.counts(runner, 25, allocated)
    assert (found["memory_reserved_bytes"], found["memory_used_bytes"]) == (12_000, 10_000 - 4000 + 1000)
    assert paged_cache.counts(SimpleNamespace(), 25, allocated) == {}, "a runner that does not say what it holds"


def test_a_request_is_a_prefill_and_its_decodes(runner: Any, here: Here) -> None:
    step(runner, first("a"))
    for _ in range(5):
        step(runner, later("a"))
    (record,) = records(here, 6)
    assert [(phase, index) for phase, index, *_ in record.phases] == [
        ("ar_prefill", 0),
        *(("ar_decode", index) for index in range(5)),
    ]
    assert (record.requests, record.rank, record.steps) == (("a",), 0, 6)
    assert record.settings == {
        "runner": "GPUARModelRunner",
        "tp_size": "2",
        "pp_size": "1",
        "dtype": "bfloat16",
        "quantization": "none",
        "enforce_eager": "False",
        "cuda_graphs": "FULL_AND_PIECEWISE",
        "async_scheduling": "True",
        "attention_backend": "FLASH_ATTN",
        "max_model_len": "8192",
        "max_num_seqs": "4",
        "max_num_batched_tokens": "32768",
        "gpu_memory_utilization": "0.35",
        "enable_prefix_caching": "False",
        "kv_cache_dtype": "auto",
        "block_size": "16",
    }
    assert all(row[3] >= 1.0 for row in record.phases)  # with sampling
    assert all(row[4] is None for row in record.phases)
    for before, after in itertools.pairwise(record.phases):
        assert before[2] + before[3] / 1e3 <= after[2] + 1e-5
    assert phase_records([record], record.phases[0][2])[0].start_s == 0.0
    assert here.reports == []


def test_the_next_request_is_numbered_anew_and_one_that_joins_is_not(runner: Any, here: Here) -> None:
    for scheduled in (first("a"), later("a"), first("b"), later("b"), first("c", running=["b"]), later("b", "c")):
        step(runner, scheduled)
    (record,) = records(here, 6)
    assert [row[:2] for row in record.phases] == [
        *(("ar_prefill", 0), ("ar_decode", 0)),
        *(("ar_prefill", 0), ("ar_decode", 0), ("ar_prefill", 1), ("ar_decode", 1)),
    ]
    assert record.requests == ("a", "b", "c")


def test_a_prompt_in_chunks_is_prefill_until_it_is_through(runner: Any, here: Here) -> None:
    for scheduled in (first("a"), later("a", outputs=0, tokens=100), later("a", outputs=0), later("a", outputs=1)):
        step(runner, scheduled)
    (record,) = records(here, 4)
    assert Counter(row[0] for row in record.phases) == {"ar_prefill": 3, "ar_decode": 1}


def test_a_request_that_was_preempted_prefills_again() -> None:
    assert is_prefill(Cached(["a"], [7], {"a"}))
    assert not is_prefill(Cached(["a"], [7]))


def test_steps_without_tokens_and_dummy_runs_are_none(runner: Any, here: Here) -> None:
    step(runner, Scheduled())
    step(runner, first("a"))
    (record,) = records(here, 1)
    assert record.steps == 1
    assert len(runner.seen) == 2


def test_a_runner_that_samples_at_once(runner: Any, here: Here) -> None:
    runner.deferred = False
    step(runner, first("a"))
    step(runner, later("a"))
    (record,) = records(here, 2)
    assert [row[0] for row in record.phases] == ["ar_prefill", "ar_decode"]


def test_sampling_that_never_came_ends_with_the_next_step(runner: Any, here: Here) -> None:
    runner.execute_model(first("a"))
    step(runner, later("a"))
    (record,) = records(here, 2)
    assert [row[0] for row in record.phases] == ["ar_prefill", "ar_decode"]


def test_an_exception_ends_the_step_and_is_passed_on(runner: Any, here: Here) -> None:
    runner.fail = True
    with pytest.raises(RuntimeError, match="CUDA error"):
        runner.execute_model(first("a"))
    runner.fail = False
    step(runner, first("b"))
    (record,) = records(here, 2)
    assert record.requests == ("a", "b")
    assert here.reports == []


def test_all_steps_are_written_within_a_tenth_of_a_second(
    runner: Any, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the pause is over; it is made longer, so that a busy machine may be as late."""
    assert autoregressive.IDLE_S < 0.1 / 2
    monkeypatch.setattr(autoregressive, "IDLE_S", 1.0)
    for number in range(2):
        step(runner, first("a"))
        for _ in range(50):
            step(runner, later("a"))
        ended = time.perf_counter()
        records(here, 51 * (number + 1))
        assert 0.9 < time.perf_counter() - ended < 2.0
    found = [record.steps for record in records(here, 102)]
    assert (sum(found), len(found) < 10) == (102, True)  # two lines on a machine that is not busy


def test_a_long_run_without_pause_is_written_in_between(
    runner: Any, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoregressive, "FULL", 20)
    monkeypatch.setattr(autoregressive, "IDLE_S", 0.001)
    for scheduled in (first("a"), *(later("a") for _ in range(99))):
        step(runner, scheduled)
    assert len(records(here, 100)) > 1


def test_scheduler_output_of_an_unknown_kind_is_reported_and_the_model_runs(runner: Any, here: Here) -> None:
    assert runner.execute_model(SimpleNamespace(total_num_scheduled_tokens=3)) is None
    assert "scheduled_new_reqs" in here.reports[0]
    assert runner.sample_tokens(None) == "output"


class Event:
    """torch.cuda.Event of a GPU that takes its time."""

    made: list["Event"]
    ready_s: float

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.made.append(self)
        self.recorded_on: list[object] = []

    def record(self, stream: object) -> None:
        self.recorded_on.append(stream)

    def query(self) -> bool:
        return time.monotonic() > self.ready_s

    def elapsed_time(self, end: "Event") -> float:
        assert self.query()
        return 1.25


def test_gpu_times_come_when_the_gpu_is_done_and_events_are_used_again(
    runner: Any, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    Event.made, Event.ready_s = [], time.monotonic() + 0.15
    streams = {1: "first stream", 2: "graph stream"}
    raw = [1]
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[raw[0]])
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: raw[0], raising=False)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(
        torch.cuda, "memory_stats", lambda: {"allocated_bytes.all.peak": 9_000, "reserved_bytes.all.peak": 9_500}
    )
    runner.device = SimpleNamespace(type="cuda")
    step(runner, first("a"))
    raw[0] = 2
    step(runner, later("a"))
    (record,) = records(here, 2)
    assert time.monotonic() > Event.ready_s
    assert [row[4] for row in record.phases] == [1.25, 1.25]
    assert record.counts["memory_used_bytes"] == 9_000 - 4_000, "of the cache no block was held"
    assert [event.recorded_on for event in Event.made] == [["first stream"]] * 2 + [["graph stream"]] * 2
    step(runner, first("b"))
    records(here, 3)
    assert len(Event.made) == 4
