"""Loads of two sweeps: stored ones through both command lines, and single decisions."""

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from profiling.evidence import RankEvidence
from sweep.compare.loads import BETTER, OTHER_SLO, SAME, WORSE, Load, change
from sweep.plan.cells import BASELINE, FEATURE, Cell, again
from sweep.plan.plans import build_plan
from sweep.results.folder import SweepFolder
from sweep.results.records import DONE, BatchRow, RequestRow, RunResult
from tests import stored
from tests.analysis.test_loads import closed
from tests.conftest import Finished, environment, finished

SLO_MS = 2300.0
LIMITS = {"ttft": None, "tpot": None, "e2el": SLO_MS}


def cell(feature: str, level: int, slo_ms: float | None) -> Cell:
    """Under a closed load, with a key that the SLO is no part of."""
    shape = stored.template(*([feature] if feature else []))
    slo = {"ttft": None, "tpot": None, "e2el": slo_ms}
    load = {**shape.config["load"], "name": "closed", "max_concurrency": level, "slo": slo}
    key = stored.key_of(feature, level)
    return dataclasses.replace(
        shape,
        key=key,
        origin=key,
        engine_key=stored.key_of(feature),
        baseline_key=stored.key_of("", level),
        label=f"{feature or 'baseline'} b1 {level} in flight",
        suffix=f"{level} in flight",
        role=FEATURE if feature else BASELINE,
        config={**shape.config, "load": load},
        interleaved="",
    )


def result(one: Cell, service_s: float, noise: random.Random, failed: int = 0) -> RunResult:
    """300 requests to a server that handles one at a time; each start has its own 1 % of noise."""
    level = one.config["load"]["max_concurrency"]
    start = noise.gauss(1, 0.01)
    made: list[RequestRow] = []
    for row in closed(300, level, service_s * start):
        made.append(msgspec.structs.replace(row, e2e_s=row.e2e_s * noise.gauss(1, 0.02), image_hash="0" * 64))
    lost = tuple(
        msgspec.structs.replace(
            made[n], request_id=f"lost{n}", exit_code=1, failure="http", error="HTTP 500", image_hash=""
        )
        for n in range(failed)
    )
    evidence = RankEvidence(0, 8, 4, 16, 0, 16, 9, settings={"vae_slicing": "on"} if one.features else {})
    batches = tuple(
        BatchRow(n, 0, row.e2e_s, {"request": 1e3 * service_s}, {"request": 1}, (evidence,))
        for n, row in enumerate(made)
    )
    rows = tuple(msgspec.structs.replace(row, batch_index=n) for n, row in enumerate(made))
    return RunResult(one.key, one.label, DONE, requests=rows, batches=batches, failed=lost, prompts=("p",) * 300)


def store(folder: Path, slower: float = 1.0, failed: int = 0, slo_ms: float | None = SLO_MS, seed: int = 1) -> None:
    """A stored sweep: two loads of a baseline, one of them with A/A runs, and of a feature."""
    own = [cell(feature, level, slo_ms) for feature in ("", "vae_slicing") for level in (1, 4)]
    plan = build_plan([*own, *(again(own[0], start) for start in (1, 2, 3))])
    sweep = SweepFolder(folder)
    sweep.prepare()
    sweep.save_plan(plan)
    sweep.save_manifest({"command": "python -m sweep -m …", "start": "2026-11-21T08:00:00+00:00", "versions": {}})
    noise = random.Random(seed)
    for one in plan.cells:
        of_feature = slower if one.features else 1.0
        sweep.save_result(one, result(one, 0.5 * of_feature, noise, failed if one.features else 0))
    done = finished("sweep.report", (folder.name, "--no-plots"), folder.parent, environment())
    assert done.code == int(failed > 0), done.err


def compare(folder: Path, *arguments: str) -> Finished:
    return finished("sweep.compare", ("before", "after", *arguments), folder, environment())


def cells(done: Finished) -> dict[str, dict[str, Any]]:
    (comparison,) = json.loads(done.out)["comparisons"]
    return {one["cell"]: one for one in comparison["cells"]}


def test_a_slower_load_is_a_regression_and_what_it_got_done_is_told(tmp_path: Path) -> None:
    store(tmp_path / "before")
    store(tmp_path / "after", slower=1.3, seed=2)
    done = compare(tmp_path, "--format", "json")
    assert done.code == 1, done
    found = cells(done)
    assert found["vae_slicing b1 4 in flight"]["speed"]["verdict"] == "slower", (
        "with the noise of loads, which has A/A runs"
    )
    load = found["vae_slicing b1 4 in flight"]["load"]
    assert load["before"]["requests_per_s"] == pytest.approx(2.0, rel=0.05)
    assert load["after"]["requests_per_s"] == pytest.approx(2.0 / 1.3, rel=0.05)
    assert (load["goodput"], load["before"]["slo"]) == ("worse", {"e2el": SLO_MS})
    assert found["baseline b1 4 in flight"]["load"]["goodput"] == ""
    assert found["baseline b1 4 in flight"]["failures"] == []
    said = " ".join(compare(tmp_path).out.split())
    assert "goodput worse: 100 % -> 0 %" in said
    assert re.search(r"requests/s 2\S* -> 1.5\S* \(-2\d %\)", said), said


def test_the_same_loads_again_are_no_change(tmp_path: Path) -> None:
    store(tmp_path / "before")
    store(tmp_path / "after", seed=2)
    done = compare(tmp_path, "--format", "json")
    assert done.code == 0, done
    for one in cells(done).values():
        assert one["speed"]["verdict"] in ("no difference", ""), one
        assert one["load"]["goodput"] == one["load"]["failed"] == ""


def test_failed_requests_and_another_slo_are_said(tmp_path: Path) -> None:
    store(tmp_path / "before")
    store(tmp_path / "after", failed=60, slo_ms=1000.0, seed=2)
    done = compare(tmp_path, "--format", "json")
    assert done.code == 1, "the status is worse"
    one = cells(done)["vae_slicing b1 1 in flight"]
    assert one["status"]["change"] == "worse"
    assert (one["load"]["failed"], one["load"]["goodput"]) == ("worse", "other slo")
    said = " ".join(compare(tmp_path).out.split())
    assert "0 of 300 -> 60 of 360" in said
    assert "SLO e2el 2300 ms -> e2el 1000 ms" in said


def test_other_loads_have_nothing_in_common(tmp_path: Path) -> None:
    store(tmp_path / "before")
    of_another_load(tmp_path / "before", tmp_path / "after")
    done = compare(tmp_path)
    assert done.code == 2
    assert "before has load closed, 1 in flight, closed, 4 in flight, after has closed, 9 in flight" in done.err


def of_another_load(source: Path, target: Path) -> None:
    """The same report, as if for another load."""
    target.mkdir()
    report = json.loads((source / "report.json").read_text())
    for one in report["cells"]:
        one["cell_key"] = one["cell_key"][::-1]
        one["load"] = "closed, 9 in flight"
    (target / "report.json").write_text(json.dumps(report))


def load(share: float, count: int = 100, failed: int = 0, **more: Any) -> Load:
    from sweep.checkpoints.world.shares import wilson

    low, high = wilson(round(share * count), count)
    fields: dict[str, Any] = {"slo": {"e2el": 100.0}, "requests_per_s": 2.0} | more
    return Load(
        "closed, 4 in flight",
        goodput_share=share,
        goodput_low=low,
        goodput_high=high,
        sent=count,
        failed=failed,
        **fields,
    )


@pytest.mark.parametrize(
    ("before", "after", "goodput", "failed"),
    [
        (load(0.98), load(0.70), WORSE, SAME),
        (load(0.70), load(0.98), BETTER, SAME),
        (load(0.98), load(0.95), SAME, SAME),
        (load(0.98), load(0.70, slo={"e2el": 50.0}), OTHER_SLO, SAME),
        (load(0.9), load(0.9, failed=1), SAME, SAME),
        (load(0.9), load(0.9, failed=20), SAME, WORSE),
        (load(0.9, failed=20), load(0.9), SAME, BETTER),
        (Load("l", {}, 1.0), Load("l", {}, 2.0), SAME, SAME),
    ],
)
def test_shares_changed_where_their_intervals_do_not_meet(before: Load, after: Load, goodput: str, failed: str) -> None:
    found = change(before, after)
    assert found is not None
    assert (found.goodput, found.failed) == (goodput, failed)
    assert found.worse == (WORSE in (goodput, failed))


def test_offline_there_is_no_change_of_load() -> None:
    assert change(None, load(0.5)) is change(None, None) is None


def test_a_change_reads_well() -> None:
    found = change(load(0.98), load(0.70, failed=20, requests_per_s=1.5))
    assert found is not None
    said = "requests/s 2 -> 1.5 (-25 %); goodput worse: 98 % -> 70 %; failed worse: 0 of 100 -> 20 of 100"
    assert found.text == said


def test_the_best_cells_are_ranked_among_those_of_their_load(tmp_path: Path) -> None:
    store(tmp_path / "before")
    done = finished("sweep.compare", ("before", "--best", "--format", "json"), tmp_path, environment())
    assert done.code == 0, done.err
    found = {
        one["context"]["load"]: [cell["cell"] for cell in one["cells"]] for one in json.loads(done.out)["rankings"]
    }
    assert found == {f"closed, {n} in flight": [f"vae_slicing b1 {n} in flight"] for n in (1, 4)}
