"""The dashboard: its charts as values, and the page in a real browser, with hostile texts and no network."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sweep.analysis.ladders import KNEE, Ladder
from sweep.analysis.summary import Summary
from sweep.plan.plans import Plan
from sweep.report import dashboard
from sweep.report.charts import REQUESTS, Chart, charts
from sweep.report.load_cells import LoadCell
from sweep.report.stored import Stored
from sweep.results.folder import SweepFolder
from tests.analysis.test_loads import CLOSED, OPEN, closed, opened
from tests.report import browser as driver
from tests.report.loads import load_cell
from tests.report.made_up import HOSTILE


@dataclasses.dataclass(frozen=True)
class Made(Stored):
    """A sweep with cells that were made up."""

    made: tuple[LoadCell, ...] = ()

    @property
    def loads(self) -> list[LoadCell]:  # type: ignore[override]
        return list(self.made)


def stored(folder: Path, *cells: LoadCell, ladders: tuple[Ladder, ...] = ()) -> Made:
    found = Summary([dict(one.row) for one in cells], {}, {}, ladders=list(ladders))
    plan = Plan(tuple(one.data.cell for one in cells), ())
    manifest = {"command": f"python -m sweep -m {HOSTILE}", "start": "2026-11-29T10:00:00+00:00"}
    return Made(SweepFolder(folder), plan, {}, found, manifest, HOSTILE, made=cells)


def at(level: int, name: str = "baseline b1", **more: Any) -> LoadCell:
    slo = {"slo": {"ttft": None, "tpot": None, "e2el": 1e4}}
    return load_cell(CLOSED | slo | {"max_concurrency": level}, closed(60, level, 0.5), name, **more)


def ladder(folder: Path) -> Made:
    """Closed with 1, 2 and 4 in flight and the knee at 2, one open load, hostile names and prompts."""
    lost = tuple(msgspec.structs.replace(one, exit_code=1, error=HOSTILE) for one in closed(2, 1, 0.1))
    prompts = tuple(f"{HOSTILE} {n}" for n in range(60))
    cells = [at(1, prompts=prompts), at(2, failed=lost, prompts=prompts), at(4), at(1, HOSTILE, prompts=prompts)]
    cells.append(load_cell(OPEN, opened(400, 1.0, 0.5, 0), "baseline b1"))
    rungs = tuple(one.row for one in cells[:3])
    return stored(folder, *cells, ladders=(Ladder(HOSTILE, "concurrency", rungs, KNEE, f"knee {HOSTILE}", 2.0),))


@pytest.fixture
def shown(tmp_path: Path) -> dict[str, Chart]:
    return {one.title: one for one in charts(ladder(tmp_path))}


def test_every_chart_of_a_load_is_there(shown: dict[str, Chart]) -> None:
    assert list(shown) == [
        *("Throughput by requests in flight", "Latency by requests in flight", "Goodput by requests in flight"),
        *("Waiting in the server by requests in flight", "Throughput by request rate", "Latency by request rate"),
        *("Waiting in the server by request rate", "Requests in flight by request rate"),
        *("Distribution of latency", "Requests over time"),
    ]


def test_lines_are_the_rows_and_the_knee_has_a_ring(shown: dict[str, Chart], tmp_path: Path) -> None:
    cells = ladder(tmp_path).loads[:3]
    line = shown["Throughput by requests in flight"].figures[0].data[0]
    assert line["x"] == [1, 2, 4]
    assert line["y"] == [one.row["requests_per_s"] for one in cells]
    assert line["marker"]["line"]["width"] == [0, 3, 0]
    latency = {one.name: one.data for one in shown["Latency by requests in flight"].figures}
    assert latency["p95"][0]["y"] == [one.row["latency_p95_s"] for one in cells]
    assert "p99" not in latency, "60 requests are too few"
    alone = shown["Latency by request rate"].figures[0].data
    assert [one["name"] for one in alone] == [f"baseline b1, p{q}" for q in (50, 90, 95, 99)]


def test_distributions_and_timelines_are_those_of_the_requests(shown: dict[str, Chart], tmp_path: Path) -> None:
    cells = ladder(tmp_path).loads
    distribution = shown["Distribution of latency"].figures[0].data
    assert [one["name"] for one in distribution] == ["1 in flight", "2 in flight, 2 failed", "4 in flight"]
    assert distribution[1]["x"] == sorted(one.e2e_s for one in cells[1].data.judged)
    figures = shown["Requests over time"].figures
    assert figures[0].name == "baseline b1 2 in flight", "the one at the knee comes first"
    bars = {one["name"]: one for one in figures[0].data}
    assert len(bars["generating"]["y"]) == 60
    assert len(bars["failed"]["y"]) == 2
    window = cells[1].data.windows[0]
    assert [figures[0].layout["shapes"][0][name] for name in ("x0", "x1")] == [window.from_s, window.to_s]
    assert figures[-1].name == f"baseline b1 5/s (first {REQUESTS} of 400)"
    assert len(figures[-1].data[0]["y"]) == REQUESTS


def test_texts_of_users_are_escaped(shown: dict[str, Chart]) -> None:
    text = json.dumps([dataclasses.asdict(figure)["data"] for one in shown.values() for figure in one.figures])
    assert "&lt;script&gt;" in text
    assert "<script>" not in text


def test_figures_have_only_what_plotly_knows(shown: dict[str, Chart]) -> None:
    objects = pytest.importorskip("plotly.graph_objects")
    for chart in shown.values():
        for figure in chart.figures:
            objects.Figure(data=figure.data, layout=figure.layout)


def test_the_page_needs_no_network_and_lets_only_its_own_scripts_run(tmp_path: Path) -> None:
    page = dashboard.page(ladder(tmp_path), "window.Plotly = {react() {}}")
    assert "default-src 'none'" in page
    assert "unsafe-inline'; script" in page, "of styles alone"
    assert page.count("<script") == 3
    assert "<script>alert(1)</script>" not in page
    assert 'src="http' not in page


@pytest.fixture(scope="module")
def opened_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[driver.Browser, Path]]:
    pytest.importorskip("plotly")
    if driver.executable() is None:
        pytest.skip("no Chromium here")
    path = dashboard.write(ladder(tmp_path_factory.mktemp("dashboard")))
    with driver.started(limit_s=300) as found:
        yield found, path


DRAWN = """new Promise(done => {
    const drawn = () => document.querySelectorAll('.card .main-svg').length >= 10
    const look = () => drawn() ? setTimeout(done, 100) : setTimeout(look, 50)
    look()
})"""


@pytest.mark.parametrize("width", [1440, 390])
def test_the_dashboard_draws_in_a_browser(opened_page: tuple[driver.Browser, Path], width: int) -> None:
    browser, path = opened_page
    browser.window(width, 1000)
    browser.open("about:blank")
    browser.open(path.as_uri())
    browser.evaluate(DRAWN)
    assert browser.evaluate("document.title") == "Loads of tiny_glm_image"
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(
        "[...document.querySelectorAll('.card > div')].every(one => one.querySelector('.main-svg'))"
    )
    seen = {event.get("method") for event in browser.seen}
    assert not {"Page.javascriptDialogOpening", "Log.entryAdded", "Runtime.exceptionThrown"} & seen
    asked = [e["params"]["request"]["url"] for e in browser.seen if e.get("method") == "Network.requestWillBeSent"]
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    assert path.stat().st_size < 8e6


def test_another_cell_can_be_chosen(opened_page: tuple[driver.Browser, Path]) -> None:
    browser, path = opened_page
    browser.open(path.as_uri())
    browser.evaluate(DRAWN)
    count = "document.querySelector('.card:last-child > div').data.reduce((sum, one) => sum + one.y.length, 0)"
    before = browser.evaluate(count)
    choose = "choice => { choice.selectedIndex = 4; choice.dispatchEvent(new Event('change')) }"
    browser.evaluate(f"({choose})(document.querySelector('.card:last-child select'))")
    assert browser.evaluate(count) > before
