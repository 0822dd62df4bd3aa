"""A number of denoising steps that has no effect is a FAIL, by counts and by pictures."""

import dataclasses
import random

import pytest
from msgspec import structs

from sweep.analysis import step_counts
from sweep.analysis.engine_starts import Measured
from sweep.analysis.summary import summarise
from sweep.findings import Finding
from sweep.plan.cells import Cell
from sweep.plan.plans import build_plan
from sweep.results.records import RunResult
from tests.stored import many_cells, result_of, store

CELLS = many_cells(8).cells
TWO_AND_ONE = [next(cell for cell in CELLS if cell.label == f"teacache b1 steps={steps}") for steps in (2, 1)]


def ran(steps: int, calls: str | None, asked: int = 20, batch: int = 1) -> RunResult:
    """A result whose engine counted this number of steps in its last batch, of so many calls of its pipeline."""
    cell = dataclasses.replace(CELLS[0], config={**CELLS[0].config, "workload": {"steps": asked}})
    result = result_of(cell, random.Random(0))
    last = result.batches[-1]
    settings = {} if calls is None else {"pipeline_calls": calls}
    evidence = tuple(structs.replace(one, denoise_steps=steps, settings=settings) for one in last.evidence)
    batches = (*result.batches[:-1], structs.replace(last, evidence=evidence))
    requests = (*result.requests, *[result.requests[-1]] * (batch - 1))
    return dataclasses.replace(result, batches=batches, requests=requests)


@pytest.mark.parametrize(
    ("steps", "calls", "batch", "right"),
    [
        (20, None, 1, True),
        (20, None, 4, True),
        (10, None, 1, False),
        (50, None, 1, False),
        (80, None, 4, False),
        (19, None, 1, True),  # a sampler that leaves out the last one
        (39, None, 1, True),  # of second order
        (0, None, 1, True),  # nothing was counted
        (20, "1", 4, True),  # vLLM-Omni, all requests together
        (80, "4", 4, True),  # one by one
        (80, "1", 4, True),  # each joined when the one before was almost done
        (40, "4", 4, False),
        (10, "1", 4, False),
        (200, "4", 4, False),
        (20, "unknown", 1, True),
    ],
)
def test_steps_that_an_engine_did_not_run(steps: int, calls: str | None, batch: int, right: bool) -> None:
    found = step_counts.judge([ran(20, None), ran(steps, calls, batch=batch)])
    assert [one.code for one in found] == ([] if right else ["other_steps"])
    ran_each = steps / int(calls or 1) if calls != "unknown" else steps
    assert all(one.text == f"{ran_each:g} denoising steps ran, 20 were requested" for one in found)


def compared(*digests: str, fault: str = "", **config: object) -> list[list[Finding]]:
    """Findings of a cell with two steps and one with one step, whose pictures have these hashes."""
    rows = [{"cell_key": cell.key, "findings": []} for cell in TWO_AND_ONE]
    measured = {}
    for cell, digest in zip(TWO_AND_ONE, digests, strict=True):
        result = result_of(cell, random.Random(0), prompts=1, repeats=1)
        requests = tuple(
            structs.replace(one, image="a.png", image_hash=digest, image_fault=fault) for one in result.requests
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
    (row,) = summarise(folder, plan, {cell.key: (ran(4 * wanted, None, wanted), "")}).rows
    assert (row["status"], row["reason_code"]) == ("FAIL", "other_steps")
