"""Loads next to the queueing model, as shown: plot, dashboard, table, report.json, of a recorded ladder."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import matplotlib.figure
import numpy
import pytest

from profiling.plot_style import style
from sweep.analysis.queueing import CLOSE, Queueing, long_loads, replayed
from sweep.predict.__main__ import main
from sweep.report import report_json, stored
from sweep.report.build import rebuild
from sweep.report.plots import sheet
from sweep.report.plots.queues import draw_queues
from sweep.report.queue_charts import queue_charts
from sweep.report.stored import Stored
from sweep.results.folder import SweepFolder
from tests import recompute, recompute_queueing
from tests.conftest import ROOT
from tests.report.test_plots import texts

RECORDED = ROOT / "tests" / "data" / "loads" / "slept.tar.gz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server that takes up to four requests at once and sleeps: offline, one in flight, and four rates."""
    base = tmp_path_factory.mktemp("recorded")
    with tarfile.open(RECORDED) as archive:
        archive.extractall(base, filter="data")
    return base / "sweep"


@pytest.fixture(scope="module")
def found(folder: Path) -> Stored:
    return stored.read(SweepFolder(folder))


@pytest.fixture(scope="module")
def ladder(found: Stored) -> Queueing:
    (opened,) = [one for one in found.summary.queues if one.is_open]
    return opened


def test_p50_and_p95_of_a_recorded_ladder_are_within_15_percent_below_saturation(ladder: Queueing) -> None:
    assert len(ladder.judged) == 4
    assert ladder.rungs[0].station.batch == 4
    for rung in ladder.judged:
        assert set(rung.errors) == {"p50", "p95"}
        assert all(abs(error) <= CLOSE for error in rung.errors.values()), (rung.level, rung.errors)
    assert "within" in ladder.text


def test_with_its_own_service_times_in_order_each_load_is_within_10_percent(ladder: Queueing) -> None:
    """What remains is how requests wait, which the model has right."""
    for rung in ladder.rungs:
        assert replayed(rung) == pytest.approx(rung.measured, rel=0.1)


def test_columns_are_what_a_plain_simulation_of_every_event_says(folder: Path) -> None:
    rebuild(SweepFolder(folder), plots=False)
    sweep = recompute.Sweep(folder)
    again = recompute_queueing.columns(
        sweep.cells, sweep.results, {row["cell_key"]: row["status"] for row in sweep.rows}
    )
    rows = {row["cell_key"]: row for row in sweep.rows if row["load"]}
    assert len(rows) == 5
    assert set(again) == set(rows)
    for key, expected in again.items():
        found = {name: float(rows[key][name]) for name, value in expected.items() if value is not None}
        assert set(expected) - set(found) == {"predicted_goodput_share"}, "there is no SLO"
        assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-9)


def drawn(queues: Sequence[Queueing]) -> matplotlib.figure.Figure:
    with style():
        figure = draw_queues(queues)
    assert figure is not None
    return figure


def test_the_plot_has_the_curve_of_long_loads_and_what_was_measured(found: Stored, ladder: Queueing) -> None:
    figure = drawn(found.summary.queues)
    latency, done = figure.axes
    lines = [numpy.array(line.get_data()) for line in latency.lines]
    rates, curve = long_loads(ladder)
    for place, name in ((1, "p50_s"), (2, "p95_s")):
        expected = [getattr(one, name) for one in curve]
        assert any(len(x) == len(rates) and y == pytest.approx(expected) for x, y in lines), place
    measured = [line for line in lines if len(line[0]) == len(ladder.rungs)]
    assert [list(y) for _, y in measured[:2]] == [[one.measured[place] for one in ladder.rungs] for place in (0, 1)]
    assert any("saturation" in text for text in texts(figure))
    at = ladder.rungs[0].station.saturates_at
    assert any(list(line.get_xdata()) == [at, at] for line in latency.lines)
    assert latency.get_ylim()[1] < 2 * max(one.measured[1] or 0 for one in ladder.rungs)
    assert "requests done a second" in done.get_ylabel()


def test_the_plot_fits_a_column_of_paper(found: Stored) -> None:
    with sheet.drawing_on(sheet.Sheet(width=3.3)):
        figure = drawn(found.summary.queues)
    assert figure.get_figwidth() == pytest.approx(3.3)


def test_nothing_is_drawn_without_a_prediction(found: Stored, ladder: Queueing) -> None:
    (closed,) = [one for one in found.summary.queues if not one.is_open]
    assert not closed.tells, "one request in flight is its own source"
    for queues in ([], [closed]):
        assert draw_queues(queues) is None
        assert queue_charts(queues) == []


def test_the_dashboard_has_the_same(found: Stored, ladder: Queueing) -> None:
    (chart,) = queue_charts(found.summary.queues)
    (figure,) = chart.figures
    traces = {trace["name"]: trace for trace in figure.data}
    for name, place in (("p50", 0), ("p95", 1)):
        assert traces[f"{name}, measured"]["y"] == [one.measured[place] for one in ladder.rungs]
        assert len(traces[f"{name}, predicted of long loads"]["x"]) == len(long_loads(ladder)[0])
        assert len(traces[f"{name}, predicted as sent"]["x"]) == len(ladder.rungs)
    assert figure.layout["shapes"][0]["x0"] == ladder.rungs[0].station.saturates_at
    objects = pytest.importorskip("plotly.graph_objects")
    objects.Figure(data=figure.data, layout=figure.layout)


def test_report_json_says_where_service_times_come_from_and_fits_its_schema(found: Stored) -> None:
    document = report_json.document(found.plan, found.summary, found.results, found.manifest, "")
    document = json.loads(json.dumps(document))
    jsonschema.validate(document, json.loads((ROOT / "sweep" / "report" / "report.schema.json").read_text()))
    opened = max(document["queueing"], key=lambda one: len(one["cells"]))
    assert opened["worst_error"] <= CLOSE
    assert [one["batch"] for one in opened["service_times"]] == [1, 2, 3, 4]
    assert opened["judged"] == opened["cells"]
    metrics = {cell["cell_key"]: cell["metrics"] for cell in document["cells"]}
    assert all(metrics[key]["predicted_p95_s"] > metrics[key]["predicted_p50_s"] for key in opened["cells"])


def test_the_command_prints_measured_and_predicted_and_what_more_servers_would_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["queue", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "predicted from measured service times" in shown
    assert "measured service times, assumed law: poisson" in shown
    assert "off, in order" in shown
    asked = ["--rates", "5,40", "--servers", "2", "--batch", "2", "--slo-ms", "300", "--arrivals", "constant"]
    assert main(["queue", str(folder), *asked]) == 0
    changed = capsys.readouterr().out
    assert "assumed law: constant), 2 servers, batches of up to 2, SLO 300 ms" in changed
    assert "grows" in changed, "40 a second are too many"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--rates", "0"], "--rates=0"),
        (["--rates", "a"], "--rates=a"),
        (["--servers", "0"], "at least 1"),
        (["--batch-wait-ms", "-1"], "finite"),
        (["--batch-wait-ms", "nan"], "finite"),
        (["--slo-ms", "-3"], "--slo-ms=-3"),
    ],
)
def test_nonsense_gives_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert main(["queue", str(folder), *arguments]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


def test_what_is_no_sweep_gives_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
