"""Stored sweeps as data frames: from a folder, from its report.json, and shown in a notebook."""

import csv
import dataclasses
import gzip
import json
import re
import shutil
from pathlib import Path

import pandas
import pytest

from sweep.frames import SweepTables, load
from sweep.plan.plans import Plan, build_plan
from sweep.refusals import ConfigError
from sweep.report.build import rebuild
from sweep.report.page import published
from sweep.results.folder import SweepFolder
from tests import stored
from tests.conftest import ROOT
from tests.golden import outputs

RESULTS = sorted((ROOT / "docs" / "results").glob("*/report.json"))


def swept() -> Plan:
    """Two thresholds of TeaCache at two guidance scales, and a combination with another feature."""
    cells = []
    for scale in (1.0, 4.0):
        baseline = stored.template()
        for threshold in (None, 0.1, 0.5):
            cell = stored.template(*(() if threshold is None else ("teacache",)))
            cell.config["workload"]["guidance_scale"] = scale
            if threshold is not None:
                cell.config["feature"]["teacache"]["rel_l1_thresh"] = threshold
            key, base = stored.key_of(scale, threshold), stored.key_of(scale, None)
            given = (f"workload.guidance_scale={scale}", f"feature.teacache.rel_l1_thresh={threshold}", "batch=1")
            cells.append(
                dataclasses.replace(
                    cell, key=key, origin=key, baseline_key=base, overrides=given, label=f"{threshold} {scale}",
                    engine_key=stored.key_of(threshold), interleaved="" if cell.role == baseline.role else base,
                )
            )  # fmt: skip
    return build_plan(cells)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("swept")
    rebuild(stored.store(made, swept(), tables=False), plots=False)
    return made


def test_options_are_columns_that_a_baseline_leaves_empty(folder: Path) -> None:
    with (folder / "summary.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["option.teacache.rel_l1_thresh"] for row in rows] == ["", "", "0.1", "0.1", "0.5", "0.5"]
    assert [row["option.workload.guidance_scale"] for row in rows] == ["1.0", "4.0"] * 3
    assert not {"option.batch", "option.teacache.limits", "option.teacache.gate"} & set(rows[0]), "no options"
    report = json.loads((folder / "report.json").read_text())
    assert report["cells"][2]["options"] == {"teacache.rel_l1_thresh": 0.1, "workload.guidance_scale": 1.0}


def test_an_option_that_a_sweep_does_not_vary_is_a_column_too(tmp_path: Path) -> None:
    """So that sweeps can be put together; another field is one only where it varies."""
    shape = stored.template("teacache")
    one = dataclasses.replace(shape, overrides=("workload.guidance_scale=4.0",))
    rebuild(stored.store(tmp_path, build_plan([one]), tables=False), plots=False)
    options = [name for name in load(tmp_path).summary if name.startswith("option.")]
    assert options == ["option.teacache.rel_l1_thresh"]


def test_pandas_keeps_baselines_in_groups(folder: Path) -> None:
    means = pandas.read_csv(folder / "summary.csv").groupby("features").latency_mean_s.mean()
    assert list(means.index) == ["baseline", "teacache"]
    assert list(load(folder).summary.groupby("features").latency_mean_s.mean()) == pytest.approx(list(means))


def test_a_page_is_made_of_a_summary_of_this_version_too(tmp_path: Path) -> None:
    """The page of a published sweep reads summary.csv: `baseline` there is no feature in its matrix."""
    rebuild(SweepFolder(outputs.unpack("cpu", tmp_path)), plots=False)
    before = published.page(tmp_path, plots=False)
    path = tmp_path / "summary.csv"
    table = pandas.read_csv(path, dtype=str, keep_default_na=False)
    assert "baseline" in set(table.features)
    table.assign(features=table.features.replace("baseline", "")).to_csv(path, index=False)
    assert before == published.page(tmp_path, plots=False)


def test_published_reports_are_read_whatever_version_wrote_them() -> None:
    """Those under docs/results say [] for a baseline and have no options."""
    for path in RESULTS:
        summary = load(path).summary
        without = summary[summary.role.isin(["baseline", "aa"])]
        assert set(without.features) <= {"baseline"}, path
        assert summary.latency_mean_s.notna().any(), path


@pytest.mark.parametrize("name", ["cpu", "mixed-before"])
def test_a_report_says_what_its_folder_does(name: str, tmp_path: Path) -> None:
    """Every column; an empty text and no text are the same."""
    folder = outputs.unpack(name, tmp_path / name)
    rebuild(SweepFolder(folder), plots=False)
    of_folder, of_report = load(folder), load(folder / "report.json")
    assert list(of_report.summary) == list(of_folder.summary)
    for column in of_folder.summary:
        assert values(of_report, column) == values(of_folder, column), column
    assert of_report.plan is None
    assert of_report.requests.empty
    assert not of_folder.requests.empty


def values(tables: SweepTables, column: str) -> list[object]:
    """Those of a column of the summary, None where it says nothing."""
    found = tables.summary[column]
    return [None if pandas.isna(value) or value == "" else value for value in found]


def test_a_published_folder_and_a_packed_report_are_read(tmp_path: Path) -> None:
    published = RESULTS[0].parent
    of_file = load(RESULTS[0]).summary
    pandas.testing.assert_frame_equal(load(published).summary, of_file)
    packed = tmp_path / "report.json.gz"
    packed.write_bytes(gzip.compress(RESULTS[0].read_bytes()))
    pandas.testing.assert_frame_equal(load(packed).summary, of_file)


def broken(report: dict[str, object], how: str) -> bytes:
    """A report.json with something wrong in it."""
    cells = report["cells"]
    assert isinstance(cells, list)
    if how == "version":
        report["schema_version"] = 2
    elif how == "status":
        cells[0]["status"] = "FINE"
    elif how == "batch":
        cells[0]["batch"] = {"a": 1}
    elif how == "metrics":
        cells[0]["metrics"] = {"latency_mean_s": [1]}
    elif how == "cells":
        del report["cells"]
    data = json.dumps(report).encode()
    return data[:-20] if how == "cut" else data


@pytest.mark.parametrize("how", ["version", "status", "batch", "metrics", "cells", "cut", "not packed", "absent"])
def test_what_is_no_report_is_refused_in_one_line(how: str, tmp_path: Path) -> None:
    path = tmp_path / ("report.json.gz" if how == "not packed" else "report.json")
    if how != "absent":
        path.write_bytes(broken(json.loads(RESULTS[0].read_text()), how))
    with pytest.raises(ConfigError, match=re.escape(str(path))) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_notebook_shows_the_summary_and_runs_nothing_of_it(tmp_path: Path) -> None:
    report = json.loads((ROOT / "docs" / "results" / "batch-2-gpus" / "report.json").read_text())
    report["cells"][3]["cell"] = "<script>alert(1)</script> $x$ \x1b[31m"
    report["cells"][3]["options"] = {"<b>.threshold": "<i>"}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    shown = load(path)._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "&lt;b&gt;.threshold" in shown
    assert not re.search(r"<(script|b|i)\b", shown)
    assert "\x1b" not in shown
    assert shown.startswith('<div class="tex2jax_ignore'), "else MathJax typesets what is between dollars"
    assert "68 cells: " in shown
    assert "8 more rows are not shown" in shown


def test_readme_answers_in_three_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The snippet is run as it is; its answer is recomputed from report.json without pandas."""
    (snippet,) = re.findall(r"```python\n(.*?psnr_db.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = snippet.strip().splitlines()
    assert len([line for line in lines if line and "import" not in line]) == 3
    monkeypatch.chdir(ROOT)
    exec(compile("\n".join([*lines[:-1], f"print({lines[-1].partition('  #')[0]})"]), "README.md", "exec"), {})
    (path,) = re.findall(r"docs/results/[\w-]+", snippet)
    best: dict[int, tuple[float, str]] = {}
    for cell in json.loads((ROOT / path / "report.json").read_text())["cells"]:
        quality, speedup = cell["quality"], cell["speedup"]
        good = quality["identical"] or (quality["psnr_db"] or 0) >= 35
        if good and cell["status"] == "PASS" and speedup["called"] == "faster":
            found = speedup["ratio"], "+".join(cell["features"])
            best[cell["batch"]] = max(found, best.get(cell["batch"], found))
    printed = capsys.readouterr().out
    assert best
    for batch, (ratio, features) in best.items():
        assert re.search(rf"\b{batch} +{re.escape(features)} +{ratio:.6f}", printed), printed


def test_a_sweep_that_is_none_is_refused(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(ConfigError, match=r"no plan\.json"):
        load(tmp_path)
