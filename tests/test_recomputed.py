"""summary.csv says what an independent script computes from the files of the cells, to 1e-9."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.report.build import rebuild
from sweep.results.folder import SweepFolder
from tests import recompute
from tests.conftest import ROOT
from tests.golden import outputs

SMALL = ("-m", "engine=noop", "plots=false", "workload.num_prompts=5", "workload.repeats=4", "aa=2", "interleave=false")


def test_numbers_of_a_sweep_are_what_its_files_say(sweep, tmp_path: Path) -> None:
    """Without an interleaved baseline; tests/test_sweep_cli.py has one with it."""
    done = sweep(*SMALL, "feature=teacache,vae_slicing", "combine=2", "batch=1,2", "hydra.sweep.dir=out")
    assert done.code == 1, "a feature cannot engage in an engine that does nothing"
    wrong, compared = recompute.differences(tmp_path / "out")
    assert not wrong, "\n".join(wrong)
    rows = recompute.Sweep(tmp_path / "out").rows
    assert compared > 25 * len(rows)
    judged = [row for row in rows if row["role"] == "feature"]
    assert all(row["p_value"] and not row["baseline_beside_s"] for row in judged)
    assert all(row["interaction_gain"] for row in judged if "+" in row["features"])
    requests = json.loads(next((tmp_path / "out").glob("teacache-b1*/result.json")).read_text())["requests"]
    assert {request["queue_s"] for request in requests} == {None}, "nothing measured it"


def test_numbers_of_a_stored_sweep_are_what_its_files_say(tmp_path: Path) -> None:
    """A sweep of two models in two starts each, interleaved, as version 1 stored it."""
    folder = outputs.unpack("cpu", tmp_path / "cpu")
    rebuild(SweepFolder(folder), plots=False)
    wrong, compared = recompute.differences(folder)
    assert not wrong, "\n".join(wrong)
    assert compared > 700


def test_the_script_knows_nothing_of_the_framework() -> None:
    code = "import sys, tests.recompute; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "numpy" in done.stdout
    assert not {"sweep", "profiling", "scipy", "PIL"} & set(ast.literal_eval(done.stdout))


@pytest.mark.parametrize("column", ["latency_p90_s", "images_per_s", "speedup_low", "p_holm", "ssim", "cpu_pct"])
def test_a_number_that_is_wrong_is_seen(column: str, tmp_path: Path) -> None:
    folder = outputs.unpack("cpu", tmp_path / "cpu")
    rebuild(SweepFolder(folder), plots=False)
    path = folder / "summary.csv"
    value = next(row[column] for row in recompute.Sweep(folder).rows if row[column] not in ("", "1.0"))
    path.write_text(path.read_text().replace(value, str(float(value) * (1 + 1e-8))))
    wrong, _ = recompute.differences(folder)
    assert any(f": {column} is" in line for line in wrong)


def test_numbers_of_loads_are_what_their_files_say(sweep, tmp_path: Path) -> None:
    """Closed and open ones with noise of their own, next to an offline cell."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvloop")
    loads = ("load=closed", "load.max_concurrency=1,3", "load.num_requests=60", "load.slo={ttft: null, e2el: 8}")
    done = sweep(*SMALL, "feature=teacache", *loads, "hydra.sweep.dir=out")
    assert done.code == 1, "a feature cannot engage in an engine that does nothing"
    rate = ("load=open", "load.request_rate=100", "load.num_requests=80", "batch=2", "load.batch_wait_ms=5")
    sweep(*SMALL, *rate, "hydra.sweep.dir=out")
    sweep(*SMALL, "hydra.sweep.dir=out")
    wrong, compared = recompute.differences(tmp_path / "out")
    assert not wrong, "\n".join(wrong)
    assert compared > 300
    rows = recompute.Sweep(tmp_path / "out").rows
    assert {row["load"] for row in rows} == {"", "closed, 1 in flight", "closed, 3 in flight", "open, 100/s poisson"}
