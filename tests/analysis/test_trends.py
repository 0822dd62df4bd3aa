"""Long loads whose truth is known: healthy ones, leaks, degradation, restarts."""

import dataclasses
import random

import pytest

from sweep.analysis import trends
from sweep.plan.cells import Cell, at_level
from sweep.results.records import DONE, BatchRow, RunResult
from tests.analysis.test_loads import cell_with, request

PARTS = 12


def cells() -> list[Cell]:
    root = cell_with({"name": "closed", "max_concurrency": 2, "search": "soak", "parts": PARTS, "duration_s": 60.0})
    root = dataclasses.replace(root, key="root", suffix="part 1", label="baseline b1 part 1", role="baseline")
    return [root, *(at_level(root, part) for part in range(1, PARTS))]


def soak(
    seed: int, slower: float = 0.0, leak_gb: float = 0.0, restart_at: int | None = None
) -> tuple[list[Cell], dict[str, RunResult]]:
    """Parts of a minute with two in flight. `slower`: share a minute; `leak_gb`: a request."""
    rng, planned, results = random.Random(seed), cells(), {}
    served, load_s = 0, 1.0
    for part, cell in enumerate(planned):
        if part == restart_at:
            served, load_s = 0, 2.0
        clock, made, level = 0.0, [], 0.0
        while clock < 60.0:
            level = 0.7 * level + rng.gauss(0, 0.03)  # neighbours are alike, as on a shared machine
            took = 0.5 * (1 + slower * (part + clock / 60)) * max(0.5, 1 + level + rng.gauss(0, 0.05))
            made.append(request(len(made), clock, 2 * took))
            clock += took
        served += len(made)
        batches = tuple(BatchRow(number, 0, one.e2e_s, {}, {}, ()) for number, one in enumerate(made))
        memory = 1.0 + leak_gb * served + abs(rng.gauss(0, 0.003)) + (0.004 if part else 0.0)
        results[cell.key] = RunResult(
            *(cell.key, cell.label, DONE),
            requests=tuple(made),
            batches=batches,
            load_s=load_s,
            telemetry={"peak_memory_gb": memory},
        )
    return planned, results


def codes(seed: int, **truth: float) -> list[str]:
    (found,) = trends.trends(*soak(seed, **truth))
    return [one.code for one in found.findings]


def test_a_healthy_load_is_called_ill_in_at_most_one_of_twenty_runs() -> None:
    assert sum(bool(codes(seed)) for seed in range(20)) <= 1
    (found,) = trends.trends(*soak(0))
    assert "no leak, no degradation" in found.text
    assert found.parts == PARTS
    assert found.hours == pytest.approx(0.19, abs=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_a_megabyte_a_request_is_named(seed: int) -> None:
    (found,) = trends.trends(*soak(seed, leak_gb=0.001))
    assert [one.code for one in found.findings] == [trends.LEAK]
    low, high = (
        float(part) for part in found.findings[0].text.partition("interval ")[2].partition(")")[0].split(" to ")
    )
    assert low <= 1.01
    assert high >= 0.99


@pytest.mark.parametrize("seed", range(20))
def test_one_percent_a_minute_is_named(seed: int) -> None:
    found = codes(seed, slower=0.01)
    assert trends.SLOWER in found
    assert set(found) <= {trends.SLOWER, trends.LESS}


def test_memory_is_compared_within_one_engine_start() -> None:
    """A new process starts afresh: its memory says nothing about the one before."""
    assert trends.LEAK in codes(1, leak_gb=0.001, restart_at=5)
    assert codes(1, restart_at=5) == []


def test_a_load_of_one_part_has_no_trend() -> None:
    planned, results = soak(0)
    assert trends.trends(planned, {"root": results["root"]}) == []
    assert trends.trends(planned[:1], results) == []
