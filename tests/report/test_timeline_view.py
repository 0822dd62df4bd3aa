"""The timeline on the page: what is drawn, what is left out and said so, what it costs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from profiling.measured_cell import UNKNOWN, Reading, RecordedCell, read_cell
from profiling.phases import PhaseRecord
from profiling.timeline.bottleneck import held_up_by, phase_times
from profiling.timeline.lanes import LEFT_OUT, window_of
from sweep.plan.plans import Plan
from sweep.report.page import contents
from sweep.report.page.html import CellView, render
from sweep.report.page.timeline_view import PROCESSES, bottleneck_words, view
from sweep.results.folder import SweepFolder
from tests import processor_time
from tests.recorded import unpack
from tests.report import made_up, shapes
from tests.report.test_html import NASTY, Page, context


@pytest.fixture(scope="module")
def glm(tmp_path_factory) -> RecordedCell:
    return read_cell(unpack("glm_b4", tmp_path_factory.mktemp("glm")), first_batch=True)


def section(cell: RecordedCell | None, **fields: object) -> Page:
    shown = CellView("glm b4", "PASS", shapes.row(""), timeline=view(cell) if cell else None, **fields)
    return Page(render(context([shown])))


def numbers(d: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.?\d*", d)]


def test_stages_lanes_and_curves_of_a_recorded_cell(glm: RecordedCell) -> None:
    found = view(glm)
    assert found.title == "request r000.0, 8.48 s"
    assert [(lane.process, lane.name) for lane in found.lanes] == [
        *(("engine", "request"), ("AR stage", "GPU"), ("", "host")),
        *(("DiT stage", "GPU"), ("", "dit_forward"), ("", "host")),
    ]
    assert [(curve.name, curve.scale) for curve in found.curves] == [
        ("GPU busy", "0–100 %"),
        ("GPU memory", "max 67.8 GB"),
        ("GPU power", "max 681 W"),
    ]
    assert [words for _, words in found.ticks] == ["0 s", "2 s", "4 s", "6 s", "8 s"]
    assert sum(len(path.d) for lane in found.lanes for path in lane.paths) < 15_000
    for path in (path for lane in found.lanes for path in lane.paths):
        starts = [float(x) for x in re.findall(r"M(-?[\d.]+)", path.d)]
        assert all(0 <= x <= 1000 for x in starts)


def test_the_page_says_what_the_bottleneck_waits_for(glm: RecordedCell) -> None:
    row = shapes.row("") | {"bottleneck": "ar_decode", "ar_decode_share": 0.346}
    words = bottleneck_words(row, glm)
    (decode,) = [time for time in phase_times(glm, window_of(glm)) if time.phase == "ar_decode"]
    assert "GPU 2.93 s, host 2.70 s" in held_up_by(decode)
    assert words == f"ar_decode, 35 % of a request (first batch: {held_up_by(decode)})"
    assert bottleneck_words(row, None) == "ar_decode, 35 % of a request"
    assert bottleneck_words({}, glm) == ""
    seen = section(glm, bottleneck=words)
    assert f"Bottleneck {words}" in seen.text
    assert "Timeline of the first batch: request r000.0, 8.48 s." in seen.text
    assert seen.tags.count("svg") == 9


def test_a_cell_without_gpu_has_its_phases_cpu_and_memory() -> None:
    phases = [PhaseRecord(0, "request", 0, 0.0, 400.0), PhaseRecord(0, "ar_decode", 0, 0.01, 300.0)]
    readings = tuple(Reading(n / 10, None, {"cpu_pct": 98.0, "rss_gb": 0.4}) for n in range(5))
    found = view(RecordedCell("c", tuple(phases), readings))
    assert [(lane.process, lane.name) for lane in found.lanes] == [("rank 0", "request"), ("", "phases")]
    assert [(curve.name, curve.scale) for curve in found.curves] == [
        ("CPU busy", "max 98.0 % of a core"),
        ("memory", "max 0.400 GB"),
    ]
    assert [words for _, words in found.ticks] == ["0 ms", "100 ms", "200 ms", "300 ms", "400 ms"]
    assert found.notes == []


def test_lines_of_several_gpus_are_told_apart(glm: RecordedCell) -> None:
    two = tuple(Reading(r.time_s, gpu, r.values) for r in glm.telemetry for gpu in (0, 1))
    found = view(replace(glm, telemetry=two))
    assert [name for name, _ in found.lines] == ["GPU 0", "GPU 1"]
    assert len({path.colour for path in found.curves[0].lines}) == 2
    assert found.curves[0].area == ""
    assert "GPU 1" in section(replace(glm, telemetry=two)).text


def test_what_is_left_out_is_said(glm: RecordedCell) -> None:
    ranks = tuple(replace(phase, rank=rank) for rank in range(PROCESSES + 3) for phase in glm.phases[:1])
    notes = view(RecordedCell("c", ranks, clock=UNKNOWN)).notes
    assert LEFT_OUT in notes
    assert "3 more processes are in phases.csv." in notes


def test_a_phase_that_takes_no_time_is_drawn() -> None:
    found = view(RecordedCell("c", (PhaseRecord(0, "request", 0, 0.0, 0.0, None, "r"),)))
    assert found.lanes[0].paths
    assert len(found.ticks) < 10


def test_what_comes_from_files_is_escaped(glm: RecordedCell) -> None:
    phases = tuple(replace(phase, request_id=NASTY, phase=NASTY) for phase in glm.phases[:3])
    seen = section(replace(glm, label=NASTY, phases=phases), bottleneck=NASTY)
    assert seen.tags.count("script") == 2
    assert NASTY in seen.text
    assert "<script>alert(1)</script>" in section(None, no_timeline=NASTY).text


def many(folder: Path, cells: int) -> tuple[SweepFolder, Plan, list[dict]]:
    """A sweep of `cells` cells, each with the recorded one's phases and telemetry."""
    sweep = SweepFolder(folder)
    plan = Plan(tuple(made_up.cell((f"f{i}",), 1, extra=f" n={i}") for i in range(cells)), ())
    for one in plan.cells:
        unpack("int8_b2", sweep.cell_path(one))
    return sweep, plan, [shapes.row("teacache", cell=one.label) for one in plan.cells]


def test_of_many_cells_the_first_have_a_timeline_and_the_others_say_so(tmp_path: Path) -> None:
    sweep, plan, rows = many(tmp_path, contents.TIMELINES + 5)
    few = contents.TIMELINES // 4
    few_s = processor_time.of(lambda: contents.write(sweep, Plan(plan.cells[:few], ()), rows[:few], {}, []))
    all_s = processor_time.of(lambda: contents.write(sweep, plan, rows, {}, []))
    assert all_s < 2 * 4 * few_s, "make bench has seconds"
    path = sweep.path / "report.html"
    seen = Page(path.read_text())
    assert seen.classes.count("timeline") == contents.TIMELINES
    assert seen.text.count(f"This page has timelines for {contents.TIMELINES} cells only.") == 5
    assert path.stat().st_size < contents.TIMELINES * 20_000


def test_damaged_phases_cost_the_timeline_and_nothing_else(tmp_path: Path) -> None:
    sweep, plan, rows = many(tmp_path, 3)
    (sweep.cell_path(plan.cells[0]) / "phases.csv").write_text("request_id,rank,phase,start_s,host_ms\nr,0,x,0,ten\n")
    (sweep.cell_path(plan.cells[1]) / "phases.csv").unlink()
    seen = Page(contents.write(sweep, plan, rows, {}, []).read_text())
    problem = sweep.recorded(plan.cells[0])[1]
    assert re.search(r"phases\.csv .*line 2.*host_ms.*'ten'", problem)
    assert problem in seen.text
    views = contents.gather(sweep, plan, rows, {}, []).cells
    assert [bool(one.no_timeline) for one in views] == [True, False, False], "nothing was recorded: nothing to say"
    assert seen.classes.count("timeline") == 1
    assert str(tmp_path) not in seen.text


def test_a_profiled_cell_links_its_trace_and_says_what_it_found(tmp_path: Path) -> None:
    sweep, plan, rows = many(tmp_path, 2)
    rows[0]["trace"] = f"{plan.cells[0].folder}/trace.nsys-rep"
    lines = [
        "phase,process,verdict,sentence",
        f"ar_decode,7,launch-bound,ar_decode is launch-bound {NASTY}".replace('"', ""),
    ]
    lines += ["dit_forward,8,compute-bound,dit_forward is compute-bound", "cub::Sort,8,compute-bound,cub::Sort is"]
    (sweep.cell_path(plan.cells[0]) / "nsys_phases.csv").write_text("\n".join([*lines, "request,8,,launched nothing"]))
    seen = Page(contents.write(sweep, plan, rows, {}, []).read_text())
    assert seen.tags.count("script") == 2
    assert "ar_decode is launch-bound" in seen.text
    assert "(process 7)" in seen.text
    assert "dit_forward is compute-bound (process 8)" in seen.text
    assert "cub::Sort" not in seen.text, "a library's range is no phase"
    assert "launched nothing" not in seen.text
    assert seen.text.count("trace.nsys-rep") == 1
