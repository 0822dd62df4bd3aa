"""A speed-up without a verdict says so, and why: no A/A run is another reason than one with too few pairs."""

import dataclasses
import random
from pathlib import Path

import pytest
from msgspec import structs

from sweep.analysis.summary import summarise
from sweep.plan.cells import AA, FEATURE
from sweep.plan.plans import Plan, build_plan
from sweep.results.records import ERROR, RunResult
from tests import stored


def told(folder: Path, made: Plan, results: dict[str, RunResult]) -> tuple[str, set[str], str]:
    """Of the first feature: its status, the codes of its findings and notes, and its reason."""
    sweep = stored.store(folder, made)
    loaded = {cell.key: (results[cell.key], "") for cell in made.cells}
    row = next(row for row in summarise(sweep, made, loaded).rows if row["role"] == FEATURE)
    return row["status"], {one.code for one in (*row["findings"], *row["notes"])}, row["reason"]


@pytest.mark.parametrize(
    ("case", "code", "why"),
    [
        ("judged", "", ""),
        ("no A/A", "noise_unknown", "no A/A run"),
        ("failed A/A", "aa_not_finished", "no A/A run finished"),
        ("one pair", "too_few_pairs", "too few pairs"),
        ("alone", "aa_not_interleaved", "no interleaved baseline"),
    ],
)
def test_why_a_speed_up_of_a_fifth_is_not_judged(case: str, code: str, why: str, tmp_path: Path) -> None:
    """The cell is five times slower than its baseline."""
    cells = [cell for cell in stored.many_cells(4).cells if not cell.features or cell.features == ("teacache",)]
    if case == "no A/A":
        cells = [cell for cell in cells if cell.role != AA]
    if case == "alone":
        cells = [cell if cell.role == FEATURE else dataclasses.replace(cell, interleaved="") for cell in cells]
    made = build_plan(cells)
    size = {"prompts": 1, "repeats": 1} if case == "one pair" else {}
    results = {cell.key: stored.result_of(cell, random.Random(0), **size) for cell in made.cells}  # type: ignore[arg-type]
    for cell in made.cells:
        result = results[cell.key]
        if cell.role == FEATURE:
            slow = [structs.replace(b, latency_s=8 * b.latency_s) for b in result.batches]
            results[cell.key] = dataclasses.replace(result, batches=tuple(slow))
        if cell.role == AA and case == "failed A/A":
            results[cell.key] = dataclasses.replace(result, state=ERROR, batches=(), requests=())
    status, codes, reason = told(tmp_path, made, results)
    if case == "judged":
        assert status == "WARN"
        assert "speed_not_judged" not in codes
        return
    assert status == "PASS"
    assert {"engaged", "speed_not_judged", code} <= codes
    assert why in reason
    others = {"noise_unknown", "aa_not_finished", "too_few_pairs", "aa_not_interleaved", "aa_not_comparable"} - {code}
    assert not others & codes
