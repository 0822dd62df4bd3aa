"""Each step of an AR stage as a phase: `ar_prefill` or `ar_decode`, with NVTX range and CUDA event pair.

A decode step takes about 2 ms, and an image has over a thousand of them, so each step costs only two clock readings,
two events and one append. A thread writes the steps once none has run for IDLE_S. Wraps vLLM-Omni's AR model runners on
the class. A step is `execute_model` and, if that leaves sampling for later, `sample_tokens`.
"""

import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from profiling import ranges
from profiling.vllm_plugin import paged_cache, pipeline_facts
from profiling.vllm_plugin.memory import Allocated, meter
from profiling.vllm_plugin.record_files import Place, Timing, append_line, paused
from profiling.vllm_plugin.tracing import Tracing

IDLE_S = 0.03
"""After this long without a step, the steps so far are written."""

FULL, LONGEST_S = 20_000, 5.0
"""This many unwritten steps, and steps over this long, are written even without a pause: under load there is none."""

TRACED = 64
"""Steps in a trace of torch.profiler, including the prefill; a whole request has over a thousand similar ones."""

RETRY_S = 0.005
"""Pause between checks whether the GPU has finished."""

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Fields of vLLM's SamplingParams that are read back from the last request that began."""

Step = tuple[str, int, float, float, Any, tuple[str, ...]]
"""Phase, index, start and end (perf_counter), event pair or None, requests that it begins with."""


class Steps:
    """The steps of one model runner. Its thread calls `begin` and `end`; everything else belongs to the writer."""

    def __init__(
        self,
        place: Place,
        rank: int,
        device: str,
        describe: Callable[[], Mapping[str, Any]],
        count: Callable[[int, Allocated | None], Mapping[str, int]] = lambda blocks, allocated: {},
    ) -> None:
        self.pid = os.getpid()
        self.open: tuple[str, int, float, Any, tuple[str, ...]] | None = None
        self._place = place
        self._path = place.folder / f"ar-rank{rank}-{self.pid}.jsonl"
        self._describe = describe
        self._count = count  # blocks of the KV cache that were held, and what is allocated -> counts of a line
        self._blocks = paged_cache.Blocks()
        self._sampling: dict[str, str] = {}
        self._done: deque[Step] = deque()
        self._index = {"ar_prefill": 0, "ar_decode": 0}
        self._pool: list[Any] = []
        self._stream: Any = None
        self._raw_stream: object = None
        self._cuda = device == "cuda"
        self._meter = meter(device)
        if self._meter is not None:
            self._meter.reset()  # the peak of loading and profiling belongs to no request
        self._work = threading.Event()
        self._waiting = True
        self._paused = False
        self._tracing = Tracing(place, f"ar-rank{rank}")
        self._traced = 0
        if self._cuda:
            import torch

            self._torch = torch
            self._device = torch.cuda.current_device()
            self._current = torch._C._cuda_getCurrentRawStream
        threading.Thread(target=self._write, name="sweep-steps", daemon=True).start()

    def begin(self, scheduled: Any) -> None:
        """Open the step that vLLM's SchedulerOutput describes."""
        if self.open is not None:
            self.end()
        new = scheduled.scheduled_new_reqs
        if new:
            self._paused = paused(self._place.folder)
            self._tracing.end()
            self._tracing.begin()
            self._traced = TRACED
        if self._paused:
            return
        self._blocks.schedule(scheduled)
        if new:
            asked = getattr(new[-1], "sampling_params", None)
            self._sampling = {name: str(getattr(asked, name)) for name in SAMPLING if hasattr(asked, name)}
        if new and len(scheduled.num_scheduled_tokens) == len(new):  # no other request is running
            self._index = {"ar_prefill": 0, "ar_decode": 0}
        phase = "ar_prefill" if new or is_prefill(scheduled.scheduled_cached_reqs) else "ar_decode"
        index = self._index[phase]
        self._index[phase] = index + 1
        ranges.push(phase, index)
        start = time.perf_counter()
        events = None
        if self._cuda:
            events = self._pool.pop() if self._pool else self._new_pair()
            events[0].record(self._current_stream())
        self.open = (phase, index, start, events, tuple(str(request.req_id) for request in new))

    def end(self) -> None:
        """Close the open step, if one is open."""
        if self.open is None:
            return
        phase, index, start, events, new = self.open
        self.open = None
        if events is not None:
            events[1].record(self._current_stream())
        ranges.pop()
        self._done.append((phase, index, start, time.perf_counter(), events, new))
        if self._waiting:
            self._waiting = False
            self._work.set()
        if self._tracing.active:
            self._traced -= 1
            if not self._traced:
                self._tracing.end()

    def _current_stream(self) -> Any:
        """torch.cuda.current_stream(), which takes several microseconds, only when the stream has changed."""
        raw = self._current(self._device)
        if raw != self._raw_stream:
            self._stream, self._raw_stream = self._torch.cuda.current_stream(), raw
        return self._stream

    def _new_pair(self) -> Any:
        event = self._torch.cuda.Event
        return event(enable_timing=True), event(enable_timing=True)

    def _write(self) -> None:
        """The writer's thread."""
        if self._cuda:
            self._torch.cuda.set_device(self._device)  # so that no context is made on device 0
        while True:
            while not self._done:  # also when woken for steps that are written already
                self._work.clear()
                self._waiting = True
                if not self._done:  # else a step ended before it could see that we wait
                    self._work.wait()
                self._waiting = False
            try:
                count = len(self._done)
                *_, ended, events, _ = self._done[count - 1]
                pause = ended + IDLE_S - time.perf_counter()
                if pause > 0 and count < FULL and ended - self._done[0][2] < LONGEST_S:
                    time.sleep(pause)
                elif events is not None and not events[1].query():
                    time.sleep(RETRY_S)
                else:
                    self._append(count)
            except Exception:
                self._done.clear()
                self._place.report()

    def _append(self, count: int) -> None:
        """Write the first `count` steps, whose events have passed, as one line."""
        phases: list[Timing] = []
        requests: list[str] = []
        first_steps: list[int] = []
        for number in range(count):
            phase, index, start, end, events, new = self._done.popleft()
            gpu_ms = None
            if events is not None:
                gpu_ms = round(events[0].elapsed_time(events[1]), 4)
                self._pool.append(events)
            phases.append((phase, index, start, round((end - start) * 1000.0, 4), gpu_ms))
            requests += new
            first_steps += [number] * len(new)
        facts = self._describe()
        evidence = {**facts, "steps": count, "settings": {**facts["settings"], **self._sampling}}
        if counts := self._count(self._blocks.take(), self._meter.read() if self._meter else None):
            evidence["counts"] = dict(counts)
        line = {"requests": requests, "first_steps": first_steps, "phases": phases, "evidence": evidence}
        append_line(self._path, line)


def is_prefill(cached: Any) -> bool:
    """Whether a running request (vLLM's CachedRequestData) still computes its prompt: it has no output yet, counting
    what async scheduling expects, or it was preempted and starts again."""
    return 0 in cached.num_output_tokens or bool(cached.resumed_req_ids)


def hook_runner(cls: Any, place: Place) -> list[str]:
    """Wrap the runner's `execute_model` and `sample_tokens`; returns the wrapped names. An error here is
    reported and never stops the model."""
    execute, sample = cls.execute_model, cls.sample_tokens
    names = [f"{cls.__name__}.execute_model", f"{cls.__name__}.sample_tokens"]
    if hasattr(execute, "observed_by_sweep"):
        return names

    def end(steps: Steps | None) -> None:
        try:
            if steps is not None:
                steps.end()
        except Exception:
            place.report()

    @functools.wraps(execute)
    def observed_execute(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        if not scheduler_output.total_num_scheduled_tokens or kwargs.get("dummy_run"):
            return execute(self, scheduler_output, *args, **kwargs)
        try:
            steps = self.__dict__.get("_sweep_steps")
            if steps is None or steps.pid != os.getpid():
                steps = self.__dict__["_sweep_steps"] = start(self, place)
            steps.begin(scheduler_output)
        except Exception:
            place.report()
            return execute(self, scheduler_output, *args, **kwargs)
        try:
            output = execute(self, scheduler_output, *args, **kwargs)
        except BaseException:
            end(steps)
            raise
        if output is not None:  # None: sample_tokens does the rest
            end(steps)
        return output

    @functools.wraps(sample)
    def observed_sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return sample(self, *args, **kwargs)
        finally:
            end(self.__dict__.get("_sweep_steps"))

    observed_execute.observed_by_sweep = True  # type: ignore[attr-defined]
    cls.execute_model, cls.sample_tokens = observed_execute, observed_sample
    return names


def start(runner: Any, place: Place) -> Steps:
    """The recorder of a runner's steps."""
    rank = pipeline_facts.rank()
    described: dict[str, Any] = {}

    def describe() -> Mapping[str, Any]:
        if not described:
            described.update(rank=rank, settings=settings(runner))
        return described

    device = getattr(getattr(runner, "device", None), "type", "cpu")
    return Steps(place, rank, device, describe, functools.partial(paged_cache.counts, runner))


def settings(runner: Any) -> dict[str, str]:
    """The runner's settings, as far as they can be read."""
    backends = {group.backend.get_name() for groups in getattr(runner, "attn_groups", None) or () for group in groups}
    found = {
        "runner": type(runner).__name__,
        "tp_size": _at(runner, "parallel_config.tensor_parallel_size"),
        "pp_size": _at(runner, "parallel_config.pipeline_parallel_size"),
        "dtype": str(_at(runner, "model_config.dtype") or "").removeprefix("torch."),
        "quantization": _at(runner, "model_config.quantization") or "none",
        "enforce_eager": _at(runner, "model_config.enforce_eager"),
        "cuda_graphs": _at(runner, "compilation_config.cudagraph_mode.name"),
        "async_scheduling": _at(runner, "scheduler_config.async_scheduling"),
        "attention_backend": "+".join(sorted(backends)),
        "max_model_len": _at(runner, "model_config.max_model_len"),
        "max_num_seqs": _at(runner, "scheduler_config.max_num_seqs"),
        "max_num_batched_tokens": _at(runner, "scheduler_config.max_num_batched_tokens"),
        "gpu_memory_utilization": _at(runner, "cache_config.gpu_memory_utilization"),
        "enable_prefix_caching": _at(runner, "cache_config.enable_prefix_caching"),
        "kv_cache_dtype": _at(runner, "cache_config.cache_dtype"),
        "block_size": _at(runner, "cache_config.block_size"),
        "gpu": pipeline_facts.visible_gpu(),
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _at(owner: Any, path: str) -> Any:
    """The attribute at a dotted path; None where it ends early."""
    for name in path.split("."):
        owner = getattr(owner, name, None)
    return owner
