"""Requests, phases and telemetry of a cell count from known moments, whatever the engine counts from."""

import dataclasses
from pathlib import Path

import pytest

from profiling.phases import PhaseRecord
from sweep.engines.process.failures import EngineFailure
from sweep.engines.protocol import Output, Request
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult
from sweep.run.drivers import Failed, Record
from sweep.run.measurement import Measurement
from sweep.run.schedule import Turn
from tests import stored

TURN = Turn((Request("r000", "a red fox", 0, 0, 64, 64, 8, 4.0),), repeat=0, doing="generating")


def measured(folder: Path, epoch_s: float | None) -> Measurement:
    """One batch at 5 s of the engine's clock, which the machine's shows `epoch_s` later; measured from 100 s on."""
    phases = (PhaseRecord(0, "request", 0, 5.0, 1000.0),)
    output = Output(("r000",), 5.0, 1.0, ("",), ("",), 261, (12,), phases, (), epoch_s=epoch_s)
    measurement = Measurement(stored.template(), SweepFolder(folder))
    measurement.start = 100.0
    measurement.records = [Record(TURN, output, sent_s=102.4)]
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
    measurement.failed = Failed(dataclasses.replace(TURN, repeat=1), 104.0, 0.5)
    failed = measurement.result(None, "", EngineFailure("crash", "it ended")).failed
    assert failed[0].start_s == failed[0].sent_s == pytest.approx(1.5)
    assert failed[0].done_s == pytest.approx(2.0)


def test_a_request_has_moments_of_its_own(tmp_path: Path) -> None:
    (row,) = measured(tmp_path, epoch_s=97.5).result(None, "", None).requests
    assert row.sent_s == pytest.approx(-0.1), "sent at 102.4 s, begun at 97.5 + 5.0 s"
    assert (row.start_s, row.done_s, row.first_token_s, row.intended_s) == (0.0, 1.0, None, None)
    (blind,) = measured(tmp_path, epoch_s=None).result(None, "", None).requests
    assert blind.sent_s is None
