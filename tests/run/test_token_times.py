"""TTFT and TPOT belong to a request: neither its batch's mean nor another's value is in its row."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
from msgspec import structs

from profiling.phases import PhaseRecord
from sweep.analysis import columns
from sweep.analysis.cell_data import CellData
from sweep.analysis.summary import summarise
from sweep.engines.protocol import Output, Request
from sweep.plan.cells import Cell
from sweep.results.folder import SweepFolder
from sweep.results.records import TOKEN_TIMES, RequestRow, RunResult
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


def rows(
    cell: Cell, folder: Path, phases: tuple[PhaseRecord, ...], tokens: int = 261, **times: tuple[float | None, ...]
) -> RunResult:
    """What is stored of one batch of three requests."""
    names = tuple(request.request_id for request in BATCH)
    output = Output(names, 5.0, 1.0, ("",) * 3, ("",) * 3, tokens, (12,) * 3, phases, (), **times)
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


FIRST_S, LAST_S = 5.1 + 0.05 - 5.0, 5.3 + 0.004 - 5.0  # ends of the prefill and of the last decode, from the start


def test_without_the_engines_own_a_batch_that_was_prefilled_at_once_shares_those_of_rank_0s_phases(
    cell: Cell, tmp_path: Path
) -> None:
    result = rows(cell, tmp_path, PHASES)
    tpot_s = (LAST_S - FIRST_S) / (261 - 1)
    assert times_of(result.requests) == [(pytest.approx(FIRST_S), pytest.approx(tpot_s))] * 3
    assert result.token_times == TOKEN_TIMES
    assert result.requests[0].queue_s is None, "offline nothing measures how long a request waits"


def one_after_the_other(tokens: int) -> tuple[PhaseRecord, ...]:
    """Three requests with a prefill of 100 ms and decodes of 10 ms, each 0.5 s after the one before."""
    found = [PhaseRecord(0, "request", 0, 5.0, 2000.0)]
    for number in range(3):
        start_s = 5.2 + number / 2
        found.append(PhaseRecord(0, "ar_prefill", number, start_s, 100.0))
        found += [PhaseRecord(0, "ar_decode", n, start_s + 0.1 + n / 50, 10.0) for n in range(tokens - 1)]
    return tuple(found)


def test_requests_that_were_prefilled_one_after_the_other_have_their_own(cell: Cell, tmp_path: Path) -> None:
    result = rows(cell, tmp_path, one_after_the_other(3), tokens=3)
    tpot_s = pytest.approx((0.02 + 0.01) / 2)
    assert times_of(result.requests) == [(pytest.approx(0.3 + number / 2), tpot_s) for number in range(3)]


def test_requests_whose_steps_mingle_have_none(cell: Cell, tmp_path: Path) -> None:
    mingled = one_after_the_other(3)[:-1]  # decodes that belong to several requests are fewer than tokens
    assert times_of(rows(cell, tmp_path, mingled, tokens=3).requests) == [(None, None)] * 3


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
        structs.replace(request, batch_index=0, ttft_s=ttft_s, tpot_s=ttft_s / 10)
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
    data = json.loads(path.read_text())
    for request in data["requests"]:
        del request["tpot_s"]
    for number, batch in enumerate(data["batches"]):
        batch["tpot_s"] = 0.001 * (1 + number % 2)
    path.write_text(json.dumps(data))
    assert summary_row(folder)["tpot_mean_s"] == pytest.approx(0.0015)


def codes(folder: SweepFolder) -> set[str]:
    made = folder.load_plan()
    return {note.code for note in summarise(folder, made, folder.load_results(made)).rows[0]["notes"]}


def test_times_of_an_earlier_definition_are_told_and_never_mixed_with_todays(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    folder = stored.store(tmp_path, made)
    cell = made.cells[0]
    today = folder.load_result(cell)
    assert "older_token_times" not in codes(folder)
    older = dataclasses.replace(
        today, token_times="", requests=tuple(structs.replace(r, ttft_s=9.0, tpot_s=9.0) for r in today.requests)
    )
    both = CellData(cell, (older, today))
    assert (set(both.ttfts_s), set(both.tpots_s)) == ({0.02}, {0.001})
    folder.save_result(cell, older)
    assert "older_token_times" in codes(folder)
    assert summary_row(folder)["ttft_mean_s"] == 9.0


def test_tokens_without_times_say_so(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    folder = stored.store(tmp_path, made)
    today = folder.load_result(made.cells[0])
    blind = tuple(structs.replace(request, ttft_s=None, tpot_s=None) for request in today.requests)
    folder.save_result(made.cells[0], dataclasses.replace(today, requests=blind))
    assert "no_token_times" in codes(folder)
    assert summary_row(folder)["ttft_mean_s"] is None


def test_tokens_are_told_per_ar_time_and_per_request_time(tmp_path: Path) -> None:
    """Twelve requests of 261 tokens, 300 ms of them in the AR stage."""
    folder = stored.store(tmp_path, stored.many_cells(4))
    row = summary_row(folder)
    assert row["ar_tokens_per_s"] == pytest.approx(261 / 0.3)
    assert row["output_tokens_per_s"] == pytest.approx(261 * row["images_per_s"])
    assert row["output_tokens_per_s"] < row["ar_tokens_per_s"]
    assert row["image_tokens_per_s"] is None, "there are text tokens"


@pytest.mark.parametrize(("task", "tokens"), [("text_to_image", 16), ("image_edit", None)])
def test_without_text_tokens_image_tokens_are_counted(task: str, tokens: int | None) -> None:
    """A block saw 16 image tokens; of an edit, its input image's are among them."""
    cell = stored.template()
    cell = dataclasses.replace(cell, config={**cell.config, "workload": {**cell.config["workload"], "task": task}})
    result = stored.result_of(cell, random.Random(0))
    result = dataclasses.replace(result, requests=tuple(structs.replace(r, output_tokens=0) for r in result.requests))
    row = columns.computed(CellData(cell, (result,)))
    assert row["image_tokens_per_s"] == (tokens and pytest.approx(tokens * row["images_per_s"]))
    assert (row["output_tokens_per_s"], row["ar_tokens_per_s"]) == (None, None)


@pytest.mark.parametrize("feature", ["ulysses", "ring"])
def test_image_tokens_of_all_shards_are_counted(feature: str) -> None:
    cell = stored.template(feature)
    result = stored.result_of(stored.template(), random.Random(0))
    result = dataclasses.replace(result, requests=tuple(structs.replace(r, output_tokens=0) for r in result.requests))
    row = columns.computed(CellData(cell, (result,)))
    assert row["image_tokens_per_s"] == pytest.approx(2 * 16 * row["images_per_s"])
