"""Requests, phases and telemetry of a cell count from known moments, whatever the engine counts from."""

from pathlib import Path

import pytest

from profiling.phases import PhaseRecord
from sweep.engines.process.failures import EngineFailure
from sweep.engines.protocol import Output, Request
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult
from sweep.run.measurement import Measurement
from tests import stored

BATCH = [Request("r000", "a red fox", 0, 0, 64, 64, 8, 4.0)]


def measured(folder: Path, epoch_s: float | None) -> Measurement:
    """One batch at 5 s of the engine's clock, which the machine's shows `epoch_s` later; measured from 100 s on."""
    phases = (PhaseRecord(0, "request", 0, 5.0, 1000.0),)
    output = Output(("r000",), 5.0, 1.0, ("",), ("",), 261, (12,), phases, (), epoch_s=epoch_s)
    measurement = Measurement(stored.template(), SweepFolder(folder))
    measurement.start = 100.0
    measurement.outputs = [(0, BATCH, output)]
    return measurement


def test_the_first_request_is_known_on_the_clock_of_telemetry(tmp_path: Path) -> None:
    measurement = measured(tmp_path, epoch_s=97.5)
    result = measurement.result(None, "", None)
    assert result.first_request_s == 2.5
    assert (result.requests[0].start_s, measurement.phases[0].start_s) == (0.0, 0.0)
    assert RunResult.from_bytes(result.to_bytes()).first_request_s == 2.5


def test_an_engine_that_does_not_tell_leaves_it_open(tmp_path: Path) -> None:
    assert measured(tmp_path, epoch_s=None).result(None, "", None).first_request_s is None


def test_a_request_that_failed_counts_from_the_first_as_the_others_do(tmp_path: Path) -> None:
    measurement = measured(tmp_path, epoch_s=97.5)
    measurement.failed = [(1, BATCH, 104.0, 0.5)]
    failed = measurement.result(None, "", EngineFailure("crash", "it ended")).failed
    assert failed[0].start_s == pytest.approx(1.5)
