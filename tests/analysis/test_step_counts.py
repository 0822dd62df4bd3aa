"""A number of denoising steps that does not take effect is a FAIL, by counts and by pictures."""

import dataclasses
import random

import pytest

from sweep.analysis import step_counts
from sweep.analysis.engine_starts import Measured
from sweep.analysis.summary import summarise
from sweep.findings import Finding
from sweep.plan.cells import Cell, build_plan
from sweep.results.records import RunResult
from tests.stored import many_cells, result_of, store

CELLS = many_cells(8).cells
TWO_AND_ONE = [next(cell for cell in CELLS if cell.label == f"teacache b1 steps={steps}") for steps in (2, 1)]


def ran(steps: int, settings: dict[str, str], asked: int = 20) -> RunResult:
    """A result whose engine counted this number of steps in its last batch."""
    cell = dataclasses.replace(CELLS[0], config={**CELLS[0].config, "workload": {"steps": asked}})
    result = result_of(cell, random.Random(0))
    last = result.batches[-1]
    evidence = tuple(dataclasses.replace(one, denoise_steps=steps, settings=settings) for one in last.evidence)
    batches = (*result.batches[:-1], dataclasses.replace(last, evidence=evidence))
    return dataclasses.replace(result, batches=batches)


@pytest.mark.parametrize(
    ("steps", "settings", "right"),
    [
        (20, {}, True),
        (10, {}, False),
        (50, {}, False),
        (19, {}, True),  # a sampler that leaves out the last one
        (39, {}, True),  # of second order
        (0, {}, True),  # nothing was counted
        (80, {"pipeline_calls": "4"}, True),
        (40, {"pipeline_calls": "4"}, False),
        (20, {"pipeline_calls": "unknown"}, True),
    ],
)
def test_steps_that_an_engine_did_not_run(steps: int, settings: dict[str, str], right: bool) -> None:
    found = step_counts.judge([ran(20, {}), ran(steps, settings)])
    assert [one.code for one in found] == ([] if right else ["other_steps"])
    assert (
        right
        or found[0].text == f"{steps / int(settings.get('pipeline_calls', 1)):g} denoising steps ran, 20 were requested"
    )


def compared(*digests: str, fault: str = "", **config: object) -> list[list[Finding]]:
    """Findings of a cell with two steps and one with one step, whose pictures have these hashes."""
    rows = [{"cell_key": cell.key, "findings": []} for cell in TWO_AND_ONE]
    measured = {}
    for cell, digest in zip(TWO_AND_ONE, digests, strict=True):
        result = result_of(cell, random.Random(0), prompts=1, repeats=1)
        requests = tuple(
            dataclasses.replace(one, image="a.png", image_hash=digest, image_fault=fault) for one in result.requests
        )
        changed = cell if cell is TWO_AND_ONE[1] else dataclasses.replace(cell, config=cell.config | config)
        measured[cell.key] = Measured(changed, (dataclasses.replace(result, requests=requests),))
    step_counts.compare(rows, measured)
    return [row["findings"] for row in rows]


def test_more_steps_that_make_the_same_pictures_have_no_effect() -> None:
    two, one = compared("same", "same")
    assert [found.code for found in two] == ["steps_without_effect"]
    assert "1 step makes the same pictures" in two[0].text
    assert one == [], "which of the two is wrong is not known; the cell with more steps says it"


@pytest.mark.parametrize("config", [{"batch": 2}, {"seed": 1}])
def test_cells_that_differ_in_more_than_steps_are_not_compared(config: dict[str, object]) -> None:
    assert compared("same", "same", **config) == [[], []]


def test_other_pictures_and_those_that_are_none_are_no_sign() -> None:
    assert compared("one", "other") == [[], []]
    assert compared("black", "black", fault="blank") == [[], []]


def test_the_row_of_an_engine_that_ignores_steps_fails(tmp_path) -> None:
    cell: Cell = CELLS[0]
    plan = build_plan([cell])
    folder = store(tmp_path, plan)
    wanted = cell.config["workload"]["steps"]
    (row,) = summarise(folder, plan, {cell.key: (ran(4 * wanted, {}, wanted), "")}).rows
    assert (row["status"], row["reason_code"]) == ("FAIL", "other_steps")
