"""An interleaved baseline has its own GPUs: what disturbs those disturbs the cell's speed-up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from profiling.telemetry.sampler import ProcessTreeSampler
from profiling.telemetry.samples import GpuUser, TelemetrySample, window
from sweep.engines.process.host import EngineHost
from sweep.engines.protocol import Output
from sweep.machine.gpu_neighbours import Before
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult
from sweep.run.baseline_engine import BaselineEngine
from sweep.run.measurement import Measurement
from tests import stored

MINE, THEIRS, STRANGER = 11, 12, 4242
HOT = "GPU 1 was throttled (hw_thermal_slowdown) in 2 of 2 samples (100%)"


class Sampler:
    """Saw one GPU between `mark` and `rest`, at two moments; `pid` and a stranger were on it."""

    problem = ""

    def __init__(self, gpu: int, pid: int, reasons: str, stranger: bool) -> None:
        self.gpu, self.pid, self.reasons, self.stranger = gpu, pid, reasons, stranger
        self.marked_s = 0.0

    def mark(self) -> float:
        self.marked_s = 100.0
        return self.marked_s

    def rest(self) -> None:
        assert self.marked_s, "rests before it was marked"

    def window(self, start_s: float, end_s: float, turns: Any = None) -> Any:
        seen = {"rss_gb": 1.0, "cpu_pct": 0.0, "gpu_index": self.gpu, "throttle_reasons": self.reasons}
        moments = (self.marked_s, self.marked_s + 1.0)
        return window([TelemetrySample(at_s, **seen) for at_s in moments], start_s, end_s, turns)

    def gpu_users(self) -> tuple[GpuUser, ...]:
        users = (GpuUser(self.gpu, self.pid, "python", 1.0), GpuUser(self.gpu, STRANGER, "python", 3.1))
        return users if self.stranger else users[:1]

    def tree_pids(self) -> frozenset[int]:
        return frozenset({self.pid})


def host() -> EngineHost:
    output = Output(("r000",), 5.0, 1.0, ("",), ("",), 261, (12,), (), ())
    return cast(EngineHost, SimpleNamespace(generate=lambda *_: output))


def sampler(*what: Any) -> ProcessTreeSampler:
    return cast(ProcessTreeSampler, Sampler(*what))


@pytest.mark.parametrize(
    ("reasons", "stranger", "said"),
    [
        ("none", False, ()),
        ("hw_thermal_slowdown", False, ("baseline", HOT)),
        ("none", True, ("baseline", "4242", "GPU 1", "3.1 GB")),
    ],
)
def test_what_disturbs_the_baseline_beside_it_makes_a_cell_doubtful(
    reasons: str, stranger: bool, said: tuple[str, ...], tmp_path: Path
) -> None:
    baseline = BaselineEngine(host(), Before((1,)), sampler(1, THEIRS, reasons, stranger))
    measurement = Measurement(stored.template(), SweepFolder(tmp_path))
    measurement.warm_up(host(), baseline)
    measurement.measure(host(), sampler(0, MINE, "none", False), Before((0,)), baseline)
    result = RunResult.from_bytes(measurement.result(1.0, "", None).to_bytes())
    assert (len(result.foreign), result.throttled) == (bool(said), ())
    assert all(fact in result.foreign[0] for fact in said)
    assert result.batches[0].baseline_s == 1.0


def test_on_a_cpu_the_cells_own_sampler_sees_all() -> None:
    baseline = BaselineEngine(host())
    baseline.watch()
    assert baseline.doubts(0.0, 1.0) == ()
