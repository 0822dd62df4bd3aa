"""torch.profiler's traces of workers: requested by a file, made by the runners, waited for by the engine."""

import gzip
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from observed import load  # noqa: E402
from omni_doubles import Batch, Here, lines  # noqa: E402
from test_vllm_plugin_autoregressive import first, later, records, step  # noqa: E402
from test_vllm_plugin_autoregressive import runner as ar_runner  # noqa: E402

from profiling.torch_trace import TorchTrace  # noqa: E402
from profiling.vllm_plugin import autoregressive  # noqa: E402
from profiling.vllm_plugin.tracing import Tracing  # noqa: E402
from sweep.engines.vllm_omni import torch_traces  # noqa: E402
from sweep.engines.vllm_omni.torch_traces import Traces  # noqa: E402

__all__ = ["ar_runner"]  # the fixture


def ranges_in(path: Path) -> Counter[str]:
    with gzip.open(path) as handle:
        return Counter(event["name"] for event in json.load(handle)["traceEvents"] if event.get("ph") == "X")


def record_ar_steps(ar_runner: Any, here: Here, folder: Path, steps: int) -> None:
    """A request of the AR stage under the profiler; returns when its trace is written."""
    wanted = Traces(here.folder, ranks=0)
    wanted.ask(folder)
    step(ar_runner, first("a"))
    for _ in range(steps - 1):
        step(ar_runner, later("a"))
    wanted.wait()


def test_the_first_request_after_asking_is_recorded(here: Here, tmp_path: Path) -> None:
    runner, wanted = load(here), Traces(here.folder, ranks=1)
    runner.execute_model(Batch(("before",)))
    wanted.ask(tmp_path)
    for name in ("a", "b"):
        runner.execute_model(Batch((name,)))
    wanted.wait()
    runner.execute_model(Batch(("after",)))
    (trace,) = tmp_path.glob("*.json.gz")
    assert trace.name == "trace-rank0.json.gz"
    seen = ranges_in(trace)
    assert [seen[name] for name in ("request", "denoise_step", "dit_forward", "vae_decode")] == [1, 4, 8, 1]
    assert sum("aten::" in name for name in seen) > 3
    assert [record.requests for record in lines(here.folder)] == [("before",), ("a",), ("b",), ("after",)]
    assert here.reports == []


def test_another_cell_of_the_engine_gets_its_own(here: Here, tmp_path: Path) -> None:
    runner, wanted = load(here), Traces(here.folder, ranks=1)
    for cell in ("one", "two"):
        (tmp_path / cell).mkdir()
        wanted.ask(tmp_path / cell)
        runner.execute_model(Batch((cell,)))
        wanted.wait()
        assert ranges_in(tmp_path / cell / "trace-rank0.json.gz")["request"] == 1


def test_a_request_that_fails_is_recorded_as_far_as_it_came(here: Here, tmp_path: Path) -> None:
    runner, wanted = load(here), Traces(here.folder, ranks=1)
    runner.pipeline.fail_at = "scheduler"
    wanted.ask(tmp_path)
    with pytest.raises(MemoryError):
        runner.execute_model(Batch())
    wanted.wait()
    assert ranges_in(tmp_path / "trace-rank0.json.gz")["dit_forward"] == 2


def test_an_ar_stage_is_recorded_for_its_first_steps(
    ar_runner: Any, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoregressive, "TRACED", 4)
    record_ar_steps(ar_runner, here, tmp_path, 7)
    seen = ranges_in(tmp_path / "trace-ar-rank0.json.gz")
    assert (seen["ar_prefill"], seen["ar_decode"]) == (1, 3)
    assert sum(record.steps for record in records(here, 7)) == 7


def test_a_profiler_that_stops_slowly_loses_no_step(
    ar_runner: Any, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TorchTrace.pause

    def slow(trace: TorchTrace) -> None:
        plain(trace)
        time.sleep(3 * autoregressive.IDLE_S)  # all steps are written meanwhile; on a GPU it takes seconds

    monkeypatch.setattr(autoregressive, "TRACED", 2)
    monkeypatch.setattr(TorchTrace, "pause", slow)
    record_ar_steps(ar_runner, here, tmp_path, 4)
    assert sum(record.steps for record in records(here, 4)) == 4
    assert here.reports == []


def test_a_trace_that_cannot_be_written_costs_the_trace_only(here: Here, tmp_path: Path) -> None:
    runner, wanted = load(here), Traces(here.folder, ranks=1)
    wanted.ask(tmp_path / "gone")
    runner.execute_model(Batch(("a",)))
    with pytest.raises(RuntimeError, match="the trace of rank0 was lost: FileNotFoundError"):
        wanted.wait()
    runner.execute_model(Batch(("b",)))
    assert [record.requests for record in lines(here.folder)] == [("a",), ("b",)]
    assert here.reports == []
    wanted.ask(tmp_path)
    runner.execute_model(Batch(("c",)))
    wanted.wait()


def test_a_rank_that_writes_none_is_named(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_traces, "BEGIN_TIMEOUT_S", 0.2)
    wanted = Traces(here.folder, ranks=2)
    wanted.ask(tmp_path)
    load(here).execute_model(Batch())
    with pytest.raises(RuntimeError, match=r"\brank 1\b"):
        wanted.wait()


def test_nothing_is_recorded_unless_asked_for(here: Here) -> None:
    tracing = Tracing(here, "rank0")
    tracing.begin()
    assert not tracing.active
    tracing.end()
