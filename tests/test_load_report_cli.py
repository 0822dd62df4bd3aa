"""What is reported of loads, through the command line and from Python: text, plots, bench.json and the dashboard."""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pandas
import pytest

from sweep.refusals import ConfigError
from sweep.report import LoadReport
from tests.conftest import ROOT, Finished, environment, finished

pytest.importorskip("fastapi")
pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

Report = Callable[..., Finished]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of the engine that does nothing: offline, a ladder, and one rate."""
    base = tmp_path_factory.mktemp("measured")
    ladder = ("load=offline,closed", "load.max_concurrency=1,2,4", "load.slo.e2el=60000")
    done = finished("sweep", ("-m", "engine=noop", "aa=0", *ladder, "plots=false", "hydra.sweep.dir=sweep"), base)
    assert done.code == 0, done.out + done.err
    return base / "sweep"


@pytest.fixture
def copied(measured: Path, tmp_path: Path) -> Path:
    """The same, for a test that changes it."""
    return Path(shutil.copytree(measured, tmp_path / "sweep"))


def report(folder: Path, *options: str, **variables: str) -> Finished:
    return finished("sweep.report", (folder.name, *options), folder.parent, environment() | variables)


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open() as handle:
        return {row["cell"]: row for row in csv.DictReader(handle)}


def drawn(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "plots").glob("*.png")}


def test_every_cell_under_load_gets_a_bench_json_and_others_none(measured: Path) -> None:
    found = {
        path.parent.name.rpartition("-")[0]: json.loads(path.read_text()) for path in measured.glob("*/bench.json")
    }
    assert found.keys() == {f"baseline-b1-closed-{level}-in-flight" for level in (1, 2, 4)}
    for cell, row in rows(measured).items():
        if not row["load"]:
            continue
        bench = found[cell.replace(" ", "-")]
        assert bench["num_prompts"] == bench["completed"] == float(row["requests_sent"])
        assert bench["max_concurrency"] == float(row["concurrency"])
        assert bench["request_rate"] == "inf"
        assert bench["request_goodput"] == pytest.approx(bench["request_throughput"])
        with (next(measured.glob(f"{cell.replace(' ', '-')}-*")) / "requests.csv").open() as handle:
            took = [float(one["e2e_s"]) for one in csv.DictReader(handle)]
        assert bench["mean_e2el_ms"] == pytest.approx(1e3 * sum(took) / len(took))


def test_bench_json_is_written_again_from_stored_results(copied: Path) -> None:
    before = {path: path.read_bytes() for path in copied.glob("*/bench.json")}
    for path in before:
        path.unlink()
    done = report(copied, "--no-plots")
    assert done.code == 0, done.err
    assert "bench.json   in the folders of 3 cells under load" in done.out
    assert {path: path.read_bytes() for path in copied.glob("*/bench.json")} == before


def test_report_json_has_the_limits_and_fits_its_schema(measured: Path) -> None:
    found = json.loads((measured / "report.json").read_text())
    jsonschema.validate(found, json.loads((ROOT / "sweep" / "report" / "report.schema.json").read_text()))
    limits = {one["cell"]: one.get("slo") for one in found["cells"]}
    assert limits.pop("baseline b1 offline") is None
    assert list(limits.values()) == [{"ttft": None, "tpot": None, "e2el": 60000.0}] * 3


def test_text_says_of_every_load_what_summary_csv_does(measured: Path) -> None:
    before = (measured / "summary.csv").stat().st_mtime_ns
    done = report(measured, "--text")
    assert (done.code, done.err) == (0, "")
    paragraphs = done.out.split("\n\n")
    for cell, row in rows(measured).items():
        if not row["load"]:
            assert cell not in done.out
            continue
        (mine,) = [one for one in paragraphs if one.startswith(f"{cell} [")]
        assert row["load"] in mine
        assert f"{row['requests_sent']} sent, none failed" in mine
        assert f"{row['requests_judged']} requests in " in mine
        for name, words in (("latency_p50_s", "p50"), ("latency_p90_s", "p90"), ("requests_per_s", "requests/s")):
            value = float(row[name])
            numbers = [float(one) for one in re.findall(r"\d+\.?\d*(?:e-\d+)?", mine)]
            assert any(one == pytest.approx(value, rel=0.01) for one in numbers), f"{words} {value} in {mine}"
        assert "p99 needs 100 requests" in mine
        assert "100% (" in mine, "goodput with its interval"
    (sentence,) = [one["text"] for one in json.loads((measured / "report.json").read_text())["ladders"]]
    assert f"baseline b1: {sentence}" in done.out
    assert (measured / "summary.csv").stat().st_mtime_ns == before, "nothing is rebuilt"


@pytest.mark.parametrize(
    ("option", "expected"),
    [("--throughput", {"concurrency"}), ("--latency", {"concurrency", "queueing", "latency_cdf", "requests"})],
)
def test_only_the_plots_that_were_chosen_are_drawn(copied: Path, option: str, expected: set[str]) -> None:
    done = report(copied, option)
    assert (done.code, done.err) == (0, "")
    assert drawn(copied) == expected
    assert not (copied / "report.html").exists()
    assert all(name in done.out for name in expected)


def test_without_an_option_the_page_has_the_plots_of_loads(copied: Path) -> None:
    done = report(copied)
    assert done.code == 0, done.err
    assert {"concurrency", "queueing", "latency_cdf", "requests"} <= drawn(copied)
    page = (copied / "report.html").read_text()
    for name in ("concurrency", "queueing", "latency_cdf", "requests"):
        assert f'aria-label="open the plot {name} in full width"' in page
    for row in rows(copied).values():
        said = f"{row['requests_judged']} requests in "
        assert not row["load"] or f"<dt>steady state</dt><dd>{said}" in page
    assert page.count("<dt>steady state</dt>") == 3, "not offline"


@pytest.mark.parametrize("option", ["--text", "--throughput", "--latency", "--interactive"])
def test_a_sweep_without_loads_is_refused_in_one_line(tmp_path: Path, option: str) -> None:
    done = finished("sweep", ("-m", "engine=noop", "aa=0", "plots=false", "hydra.sweep.dir=sweep"), tmp_path)
    assert done.code == 0, done.out + done.err
    done = report(tmp_path / "sweep", option)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert "no cell was measured under load; load=closed" in line
    assert not (tmp_path / "sweep" / "plots").exists()


def test_without_plotly_the_dashboard_is_refused_in_one_line_that_says_how_to_install_it(
    copied: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden" / "plotly"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('hidden')\n")
    path = f"{hidden.parent}{os.pathsep}{environment()['PYTHONPATH']}"
    done = report(copied, "--interactive", PYTHONPATH=path)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert re.search(r"needs plotly; run pip install .*\[dashboard\]", line)
    assert not (copied / "dashboard.html").exists()
    everything = report(copied, "--all", PYTHONPATH=path)
    assert everything.code == 2
    assert "baseline b1 closed 2 in flight [" in everything.out, "all the rest is there"
    assert (copied / "report.html").exists()


def test_all_makes_everything(copied: Path) -> None:
    pytest.importorskip("plotly")
    done = report(copied, "--all")
    assert done.code == 0, done.err
    for name in ("report.html", "dashboard.html", "plots/latency_cdf.svg"):
        assert (copied / name).exists()
    assert "baseline b1 closed 2 in flight [" in done.out


def test_the_same_from_python(copied: Path) -> None:
    loads = LoadReport(copied)
    table = loads.table()
    stored = pandas.read_csv(copied / "summary.csv")
    assert list(table["cell"]) == list(stored.loc[stored["load"].notna(), "cell"])
    assert list(table["images_per_s"]) == pytest.approx(list(stored["images_per_s"].dropna())[1:])
    assert "requests_judged" in table
    assert "text_right" not in table
    assert loads.text() == report(copied, "--text").out
    assert {path.stem for path in loads.plots("latency")} == {"concurrency", "queueing", "latency_cdf", "requests"}
    assert {path.name for path in loads.bench()} == {"bench.json"}
    with pytest.raises(ConfigError, match="has no plan"):
        LoadReport(copied / "plots").text()
