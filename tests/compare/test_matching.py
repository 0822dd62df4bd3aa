"""Cells of unlike configurations, compared: through the real command line, over made-up and really stored reports."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compare.documents import Document, cell, report, write
from tests.conftest import ROOT, Finished, environment, finished

EAGER = "engine.args.enforce_eager"


def measured(key: str, *cells: Document, **settings: Any) -> Document:
    """A report whose cells have other keys than those of another one, because of these settings."""
    document = report(*copy.deepcopy(cells), settings={"model.name": "tiny_glm_image", "seed": 0, **settings})
    for one in document["cells"]:
        one["cell_key"], one["baseline_key"] = f"{key} {one['cell_key']}", f"{key} {one['baseline_key']}"
        one.setdefault("settings", {"features": "+".join(one["features"]), "batch": one["batch"]})
    return document


def threshold(value: float, name: str) -> Document:
    """A cell of a swept option."""
    return cell(
        name,
        features=["teacache"],
        settings={"features": "teacache", "batch": 1, "feature.teacache.rel_l1_thresh": value},
    )


def compare(folder: Path, before: Document, after: Document, *options: str) -> Finished:
    given = [write(folder / name, told).name for name, told in (("a", before), ("b", after))]
    return finished("sweep.compare", (*given, *options), folder, environment())


def compared(done: Finished) -> dict[str, Any]:
    (one,) = json.loads(done.out)["comparisons"]
    return one


@pytest.mark.parametrize("options", [("--ignore", "engine.args"), ("--ignore", EAGER), ("--by", "features,batch")])
def test_cells_that_differ_in_an_engine_argument_can_be_compared(tmp_path: Path, options: tuple[str, str]) -> None:
    slower = cell("teacache b1", factor=1.3)
    before, after = measured("x"), measured("y", cell("baseline b1"), slower, **{EAGER: True})
    done = compare(tmp_path, before, after, *options, "--format", "json")
    assert done.code == 1, "teacache is slower"
    found = compared(done)
    assert {one["cell"]: one["speed"]["verdict"] for one in found["cells"]} == {
        "baseline b1": "no difference",
        "teacache b1": "slower",
    }
    assert all(one["differs"] == {EAGER: ["absent", "true"]} for one in found["cells"])
    assert f"matched cells differ in {EAGER} absent -> true (2 cells)" in found["notes"]
    shown = compare(tmp_path, before, after, *options).out
    assert f"matched cells differ in {EAGER} absent -> true" in " ".join(shown.split())


def test_without_them_nothing_matches_and_the_answer_names_them(tmp_path: Path) -> None:
    done = compare(tmp_path, measured("x"), measured("y", **{EAGER: True}))
    assert done.code == 2
    assert "--ignore" in done.err
    assert "--by" in done.err


def test_what_is_not_ignored_still_has_to_be_alike(tmp_path: Path) -> None:
    other = measured("y", **{EAGER: True, "seed": 1})
    assert compare(tmp_path, measured("x"), other, "--ignore", "engine.args").code == 2
    assert compare(tmp_path, measured("x"), other, "--ignore", "engine.args", "--ignore", "seed").code == 0


def test_aa_runs_are_noise_and_match_nothing(tmp_path: Path) -> None:
    cells = (cell("baseline b1"), cell("teacache b1"), cell("baseline b1 A/A"), cell("baseline b1 #2 A/A"))
    done = compare(tmp_path, measured("x", *cells), measured("y", *cells), "--by", "features", "--format", "json")
    assert [one["cell"] for one in compared(done)["cells"]] == ["baseline b1", "teacache b1"]


REFUSED = {
    ("--by", "features,batch"): ["a has two such cells", "'cold b1'", "'hot b1'", "feature.teacache.rel_l1_thresh"],
    ("--ignore", "feature.teacache"): ["a has two such cells", "'cold b1'", "'hot b1'"],
    ("--ignore", "enforce_eager"): [f"'{EAGER}'"],
    ("--ignore", "zzz"): ["--ignore zzz: no cell has this setting"],
    ("--by", "featrues"): ["'features'"],
    ("--by", ","): ["features,batch,model"],
    ("--by", "features", "--ignore", "seed"): ["choose one of them"],
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_matched_is_refused_in_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    swept = (cell("baseline b1"), threshold(0.1, "cold b1"), threshold(0.3, "hot b1"))
    done = compare(tmp_path, measured("x", *swept, **{EAGER: False}), measured("y", *swept, **{EAGER: True}), *options)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done
    assert all(fact in done.err for fact in REFUSED[options]), done.err


def test_a_swept_option_may_be_what_cells_are_matched_by(tmp_path: Path) -> None:
    swept = (cell("baseline b1"), threshold(0.1, "cold b1"), threshold(0.3, "hot b1"))
    by = ("--by", "features,feature.teacache.rel_l1_thresh", "--format", "json")
    done = compare(tmp_path, measured("x", *swept), measured("y", *swept, **{EAGER: True}), *by)
    assert len(compared(done)["cells"]) == 3


def test_the_best_of_two_unlike_reports_fails_on_a_regression_too(tmp_path: Path) -> None:
    slower = measured("y", cell("baseline b1"), cell("teacache b1", factor=1.3), **{EAGER: True})
    assert compare(tmp_path, measured("x"), slower, "--best").code == 0, "nothing in common"
    assert compare(tmp_path, measured("x"), slower, "--best", "--ignore", "engine.args").code == 1


def test_reports_from_before_settings_match_by_what_they_hold(tmp_path: Path) -> None:
    """The H200 sweeps in docs/results: single features compiled, and with every engine eager."""
    folders = [str(ROOT / "docs" / "results" / name) for name in ("single-1-gpu", "single-eager-1-gpu")]
    done = finished("sweep.compare", (*folders, "--ignore", "engine.args"), tmp_path, environment())
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "python -m sweep.report" in done.err
    done = finished("sweep.compare", (*folders, "--by", "cell,model", "--format", "json"), tmp_path, environment())
    assert "vae_slicing b2" in {one["cell"] for one in compared(done)["cells"]}


def test_a_report_says_what_each_cell_was_measured_with(tmp_path: Path, sweep: Callable[..., Finished]) -> None:
    swept = ("feature=teacache", "feature.teacache.rel_l1_thresh=0.1,0.3", "workload.steps=8")
    for seed in ("1", "2"):
        done = sweep("-m", "engine=noop", *swept, "aa=0", "plots=false", f"seed={seed}", f"hydra.sweep.dir={seed}")
        assert done.code == 1, "an engine that does nothing skips no block"
    document = json.loads((tmp_path / "1" / "report.json").read_text())
    assert (document["settings"]["seed"], document["settings"]["workload.steps"]) == (1, 8)
    options = [one["settings"].get("feature.teacache.rel_l1_thresh") for one in document["cells"]]
    assert sorted(value for value in options if value) == [0.1, 0.3]
    found = compared(sweep("1", "2", "--ignore", "seed", "--format", "json", module="sweep.compare"))
    assert [one["differs"] for one in found["cells"]] == [{"seed": ["1", "2"]}] * 3
