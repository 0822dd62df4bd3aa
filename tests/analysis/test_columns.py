"""Columns of a single cell, from made-up results."""

import dataclasses
import random
from pathlib import Path

import pytest
from msgspec import structs

from sweep.analysis import columns
from sweep.analysis.cell_data import CellData
from sweep.analysis.summary import summarise
from sweep.plan.cells import Cell
from sweep.plan.plans import build_plan
from sweep.results.records import RunResult
from tests import stored


def priced(device: str) -> Cell:
    """A cell on one device, at 3.60 an hour for a GPU."""
    cell = stored.template()
    return dataclasses.replace(cell, device=device, config={**cell.config, "hardware": {"price_per_gpu_hour": 3.6}})


def with_moments(result: RunResult, apart_s: float) -> RunResult:
    """Its requests as if one had been sent every `apart_s` seconds and each had taken two seconds."""
    requests = tuple(
        structs.replace(request, sent_s=n * apart_s, done_s=n * apart_s + 2.0, e2e_s=2.0)
        for n, request in enumerate(result.requests)
    )
    batches = tuple(structs.replace(batch, latency_s=2.0) for batch in result.batches)
    return dataclasses.replace(result, requests=requests, batches=batches)


@pytest.mark.parametrize(("apart_s", "wall_s"), [(5.0, 24.0), (1.0, 13.0)], ids=["with others between", "overlapping"])
def test_throughput_is_per_wall_time_of_the_cells_own_requests(apart_s: float, wall_s: float) -> None:
    """Twelve requests: what lies between them is another engine's turn; what overlaps is no longer time."""
    cell = stored.template()
    row = columns.computed(CellData(cell, (with_moments(stored.result_of(cell, random.Random(0)), apart_s),)))
    assert row["images_per_s"] == row["requests_per_s"] == pytest.approx(12 / wall_s)
    assert row["output_tokens_per_s"] == pytest.approx(12 * 261 / wall_s)


def test_a_gpu_has_a_price_and_cpu_cores_do_not(tmp_path: Path) -> None:
    result = with_moments(stored.result_of(stored.template(), random.Random(0)), 5.0)
    assert columns.computed(CellData(priced("cuda"), (result,)))["cost_per_image"] == pytest.approx(0.001 * 24 / 12)
    cell = priced("cpu")
    assert columns.computed(CellData(cell, (result,)))["cost_per_image"] is None
    made = build_plan([cell])
    folder = stored.store(tmp_path, made)
    (row,) = summarise(folder, made, folder.load_results(made)).rows
    assert "no_price" in {note.code for note in row["notes"]}


def test_every_column_is_filled_somewhere() -> None:
    """A column that neither a formula nor the summary fills says nothing."""
    by_summary = {"status", "reason", "reason_code", "valid", "invalid_reason", "trace", "evidence", "note", "starts"}
    by_summary |= {
        "speedup",
        "speedup_low",
        "speedup_high",
        "called",
        "p_value",
        "p_holm",
        "interaction_gain",
        "baseline_latency_s",
        "base",
        "gain_over_base",
        "gain_over_base_low",
        "gain_over_base_high",
    }
    by_summary |= {"interaction_low", "interaction_high"}
    by_summary |= {f"predicted_{name}" for name in ("p50_s", "p95_s", "requests_per_s", "goodput_share", "busy")}
    by_summary |= {"predicted_latency_s", "prediction_error", "limit_latency_s", "limit_share", "mfu"}
    by_summary |= {"denoise_step_mfu", "vae_decode_mfu", "ar_decode_bandwidth_share", "predicted_peak_memory_gb"}
    by_summary |= {"mean_diff", "max_diff", "psnr_db", "ssim", "clip_similarity"}
    by_summary |= {
        "pictures_checked",
        "exact_rate",
        "exact_low",
        "exact_high",
        "facts_right",
        "tokens_right",
        "exact_last_turn",
        "drift",
        "text_right",
    }
    assert {column.name for column in columns.COLUMNS if column.value is None} == by_summary
