"""Which cells are measured again: pure decisions over a plan and made-up results."""

import csv
import dataclasses
import json
import random
from pathlib import Path

import pytest

from sweep.analysis.adaptive_repeats import further_starts
from sweep.plan.cells import AA, REPEAT, again
from sweep.plan.plans import Plan, build_plan
from sweep.results.records import ERROR
from tests import stored
from tests.conftest import to_run


def measured(made: Plan, noise_seed: int = 0) -> dict:
    noise = random.Random(noise_seed)
    return {cell.key: stored.result_of(cell, noise) for cell in made.cells}


def asking(**options: object) -> Plan:
    """Four cells and an A/A, all with these options."""
    cells = [dataclasses.replace(c, config={**c.config, **options}) for c in stored.many_cells(4).cells]
    return build_plan(cells)


def test_one_start_is_all_by_default() -> None:
    made = asking(repeat=1)
    assert further_starts(made, measured(made)) == []


def test_a_number_of_starts_is_reached_and_no_more() -> None:
    made = asking(repeat=3)
    first = further_starts(made, measured(made))
    assert [cell.role for cell in first] == [REPEAT] * 3 + [AA]
    assert all(cell.interleaved for cell in first)
    made = build_plan([*made.cells, *first])
    second = further_starts(made, measured(made))
    assert sorted(c.repeat for c in second if c.role == REPEAT) == [2, 2, 2]
    made = build_plan([*made.cells, *second])
    assert further_starts(made, measured(made)) == []


@pytest.mark.parametrize(
    ("precision", "aa", "more"),
    [(0.2, 3, 0), (0.001, 3, 4), (0.2, 2, 4)],
    ids=["precise", "not precise", "precise, but perhaps by luck"],
)
def test_auto_goes_on_until_precise_beyond_luck(precision: float, aa: int, more: int) -> None:
    made = asking(repeat="auto", precision=precision)
    (first,) = [cell for cell in made.cells if cell.role == AA]
    baseline = made.by_key[first.origin]
    repeated = [dataclasses.replace(again(baseline, n), interleaved=baseline.key) for n in range(2, aa + 1)]
    made = build_plan([*made.cells, *repeated])
    assert len(further_starts(made, measured(made))) == more


def test_auto_stops_at_its_limit() -> None:
    made = asking(repeat="auto", precision=0.001, max_repeat=2)
    made = build_plan([*made.cells, *further_starts(made, measured(made))])
    assert further_starts(made, measured(made)) == []


def test_what_failed_is_not_tried_again() -> None:
    made = asking(repeat=2)
    results = measured(made)
    bad = next(cell for cell in made.cells if cell.features)
    results[bad.key] = dataclasses.replace(results[bad.key], state=ERROR)
    assert bad.key not in {cell.origin for cell in further_starts(made, results)}


def test_a_further_start_has_a_key_of_its_own_and_an_engine_of_its_own() -> None:
    cell = stored.many_cells(4).cells[1]
    twice = again(cell, 1), again(cell, 1)
    assert twice[0] == twice[1]
    assert len({cell.key, twice[0].key, again(cell, 2).key}) == 3
    assert twice[0].engine_key != cell.engine_key
    assert (twice[0].origin, twice[0].baseline_key) == (cell.key, cell.baseline_key)


def test_two_starts_through_the_command_line(sweep, tmp_path: Path) -> None:
    """The embedded model: a second engine for the feature, and one more A/A to know the noise."""
    small = ("model=tiny_qwen_image", "workload.num_prompts=1", "workload.repeats=2", "workload.steps=2", "plots=false")
    command = ("-m", "feature=vae_slicing", "aa=1", "repeat=2", *small, "hydra.sweep.dir=sweep")
    done = sweep(*command)
    assert done.code == 0, done.out + done.err
    assert "baseline b1 #2 A/A, vae_slicing b1 start 2" in done.out, "what the sweep adds"
    with (tmp_path / "sweep" / "summary.csv").open() as handle:
        rows = {row["cell"]: row for row in csv.DictReader(handle)}
    assert set(rows) == {"baseline b1", "vae_slicing b1", "baseline b1 A/A", "baseline b1 #2 A/A"}
    assert rows["vae_slicing b1"]["starts"] == "2"
    assert rows["vae_slicing b1"]["called"], "A/A tells what starts differ by"
    report = json.loads((tmp_path / "sweep" / "report.json").read_text())
    (cell,) = [cell for cell in report["cells"] if cell["cell"] == "vae_slicing b1"]
    assert [(len(start["samples"]), len(start["reference"])) for start in cell["starts"]] == [(2, 2), (2, 2)]
    manifest = json.loads((tmp_path / "sweep" / "manifest.json").read_text())
    assert manifest["engine_starts"] == 6, "3, 2 further ones, and the baseline beside those"
    assert {cell["state"] for cell in manifest["cells"]} == {"done"}

    again = sweep(*command)
    assert again.code == 0
    assert to_run(again.out) == (0, 3)
    manifest = json.loads((tmp_path / "sweep" / "manifest.json").read_text())
    assert manifest["engine_starts"] == 0
