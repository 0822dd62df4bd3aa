"""TTFT and TPOT belong to a request: neither its batch's mean nor another's value stands in its row."""

import dataclasses
import json
import random
from pathlib import Path

import pytest

from profiling.phases import PhaseRecord
from sweep.analysis.summary import summarise
from sweep.engines.protocol import Output, Request
from sweep.plan.cells import Cell
from sweep.results.folder import SweepFolder
from sweep.results.records import RequestRow, RunResult
from sweep.run.drivers import Record
from sweep.run.measurement import Measurement
from sweep.run.schedule import Turn
from tests import stored

BATCH = [Request(f"r00{seed}", "a red fox", 0, seed, 64, 64, 8, 4.0) for seed in range(3)]
PHASES = (
    PhaseRecord(0, "request", 0, 5.0, 1000.0),
    PhaseRecord(0, "ar_prefill", 0, 5.1, 50.0),
    PhaseRecord(0, "ar_decode", 0, 5.2, 2.0),
    PhaseRecord(0, "ar_decode", 1, 5.3, 4.0),
    PhaseRecord(1, "ar_prefill", 0, 5.0, 1.0),
)


@pytest.fixture
def cell() -> Cell:
    return stored.template()


def rows(cell: Cell, folder: Path, phases: tuple[PhaseRecord, ...], **times: tuple[float | None, ...]) -> RunResult:
    """What is stored of one batch of three requests."""
    names = tuple(request.request_id for request in BATCH)
    output = Output(names, 5.0, 1.0, ("",) * 3, ("",) * 3, 261, (12,) * 3, phases, (), **times)
    measurement = Measurement(cell, SweepFolder(folder))
    measurement.records = [Record(Turn(tuple(BATCH), 0, "generating"), output, 0.0)]
    return measurement.result(None, "", None)


def times_of(requests: tuple[RequestRow, ...]) -> list[tuple[float | None, float | None]]:
    return [(request.ttft_s, request.tpot_s) for request in requests]


def test_each_request_keeps_what_the_engine_measured_of_it(cell: Cell, tmp_path: Path) -> None:
    result = rows(cell, tmp_path, PHASES, ttft_s=(0.02, None, 0.9), tpot_s=(0.002, 0.003, None))
    assert times_of(result.requests) == [(0.02, 0.002), (None, 0.003), (0.9, None)]
    assert times_of(RunResult.from_bytes(result.to_bytes()).requests) == times_of(result.requests)


def test_what_the_engine_measured_is_not_mixed_with_phases(cell: Cell, tmp_path: Path) -> None:
    result = rows(cell, tmp_path, PHASES, ttft_s=(0.02, 0.03, 0.04))
    assert times_of(result.requests) == [(0.02, None), (0.03, None), (0.04, None)]


def test_without_the_engines_own_the_batch_shares_those_of_rank_0s_phases(cell: Cell, tmp_path: Path) -> None:
    result = rows(cell, tmp_path, PHASES)
    assert times_of(result.requests) == [(pytest.approx(0.15), pytest.approx(0.003))] * 3


def test_without_an_ar_stage_there_are_none(cell: Cell, tmp_path: Path) -> None:
    assert times_of(rows(cell, tmp_path, PHASES[:1]).requests) == [(None, None)] * 3


def summary_row(folder: SweepFolder) -> dict[str, object]:
    made = folder.load_plan()
    return summarise(folder, made, folder.load_results(made)).rows[0]


def test_percentiles_are_of_requests_and_not_of_batches(tmp_path: Path) -> None:
    """Two requests of one batch of 21 wait long: the 95th percentile is the shorter of the two."""
    made = stored.many_cells(4)
    folder = stored.store(tmp_path, made)
    result = stored.result_of(made.cells[0], random.Random(0), prompts=7)
    took_s = (3.0, 2.0, *[0.02] * 19)
    requests = tuple(
        dataclasses.replace(request, batch_index=0, ttft_s=ttft_s, tpot_s=ttft_s / 10)
        for request, ttft_s in zip(result.requests, took_s, strict=True)
    )
    folder.save_result(made.cells[0], dataclasses.replace(result, requests=requests, batches=result.batches[:1]))
    row = summary_row(folder)
    assert (row["ttft_p95_s"], row["tpot_p95_s"]) == (2.0, 0.2)
    assert row["tpot_mean_s"] == pytest.approx((19 * 0.002 + 0.5) / 21)


def test_a_result_stored_when_tpot_was_of_the_batch_is_still_read(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    folder = stored.store(tmp_path, made)
    path = folder.cell_path(made.cells[0]) / "result.json"
    told = json.loads(path.read_text())
    for request in told["requests"]:
        del request["tpot_s"]
    for number, batch in enumerate(told["batches"]):
        batch["tpot_s"] = 0.001 * (1 + number % 2)
    path.write_text(json.dumps(told))
    assert summary_row(folder)["tpot_mean_s"] == pytest.approx(0.0015)
