"""timeline.json against the rules of the Trace Event Format, as Perfetto's importer applies them."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiling.measured_cell import UNKNOWN, RecordedCell, read_cell
from profiling.phases import PhaseRecord
from profiling.timeline.lanes import LEFT_OUT, Slice, Window, processes, span
from profiling.timeline.trace import nesting, trace
from tests.recorded import unpack


@pytest.fixture(params=["glm_b4", "int8_b2"])
def cell(request: pytest.FixtureRequest, tmp_path: Path) -> RecordedCell:
    return read_cell(unpack(request.param, tmp_path))


def check(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Events by kind, after every rule was applied to them."""
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in document["traceEvents"]:
        kinds[event["ph"]].append(event)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        assert isinstance(event["args"], dict)
    assert set(kinds) <= {"X", "C", "M"}
    for event in kinds["M"]:
        assert event["name"] in ("process_name", "process_sort_index", "thread_name", "thread_sort_index")
    named = {(e["pid"], e["tid"]) for e in kinds["M"] if e["name"] == "thread_name"}
    tracks = defaultdict(list)
    for event in kinds["X"]:
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        assert (event["pid"], event["tid"]) in named
        tracks[event["pid"], event["tid"]].append(event)
    for track in tracks.values():
        opened: list[float] = []
        for event in track:  # as written: in order of time, outer ones first
            while opened and opened[-1] <= event["ts"] + 0.0005:  # half a nanosecond: sums of floats
                opened.pop()
            end = event["ts"] + event["dur"]
            assert not opened or end <= opened[-1] + 0.0005, "events of a thread nest"
            opened.append(end)
        starts = [event["ts"] for event in track]
        assert starts == sorted(starts)
    for event in kinds["C"]:
        assert event["ts"] >= 0
        assert all(isinstance(value, float) for value in event["args"].values())
    return kinds


def test_a_recorded_cell_follows_the_format(cell: RecordedCell) -> None:
    kinds = check(trace(cell, Window(*span(cell))))
    gpu = sum(phase.gpu_ms is not None for phase in cell.phases)
    assert len(kinds["X"]) == len(cell.phases) + gpu, "every phase once on the host, and once on its GPU"
    names = {event["args"]["name"] for event in kinds["M"] if event["name"] == "process_name"}
    assert names == {process.name for process in processes(cell.phases)} | {"telemetry"}
    counters = {event["name"] for event in kinds["C"]}
    assert {"GPU busy, GPU 0", "GPU memory, GPU 0", "GPU power, GPU 0", "CPU busy"} <= counters
    assert not any("energy" in name for name in counters)


def identity(phase: PhaseRecord) -> tuple[str, int, str]:
    return phase.phase, phase.index, phase.request_id


def test_times_are_those_of_the_files(cell: RecordedCell) -> None:
    host = [e for e in trace(cell, Window(*span(cell)))["traceEvents"] if e["ph"] == "X" and e["tid"] == 1]
    phase = cell.phases[100]
    event = next(e for e in host if (e["name"], e["args"]["index"], e["args"]["request"]) == identity(phase))
    assert event["ts"] == pytest.approx(phase.start_s * 1e6, abs=6)
    assert event["dur"] == pytest.approx(phase.host_ms * 1e3, abs=6)
    assert event["args"]["gpu_ms"] == phase.gpu_ms


def test_a_part_holds_what_touches_it(cell: RecordedCell) -> None:
    part = check(trace(cell, Window(1.0, 1.5)))
    assert 0 < len(part["X"]) < len(check(trace(cell, Window(*span(cell))))["X"])
    assert all(event["ts"] <= 1.5e6 and event["ts"] + event["dur"] >= 1.0e6 - 10 for event in part["X"])
    assert all(1.0e6 <= event["ts"] <= 1.5e6 for event in part["C"])


def test_ranks_that_begin_before_the_first_request_have_no_negative_time() -> None:
    phases = (
        PhaseRecord(1, "request", 0, -0.003, 100.0, None, "r000.0"),
        PhaseRecord(0, "request", 0, 0.0, 100.0, None, "r000.0"),
    )
    document = trace(RecordedCell("c", phases), Window(-0.003, 0.1))
    assert sorted(event["ts"] for event in check(document)["X"]) == [0.0, 3000.0]
    assert "0.003000 s" in document["otherData"]["clock"]
    usual = trace(RecordedCell("c", phases[1:]), Window(0.0, 0.1))
    assert usual["otherData"]["clock"] == "microseconds from the start of the first request"


def test_telemetry_of_an_unknown_clock_is_left_out_and_said_so(cell: RecordedCell) -> None:
    document = trace(replace(cell, telemetry=(), clock=UNKNOWN), Window(*span(cell)))
    assert check(document)["C"] == []
    assert document["otherData"]["telemetry"] == LEFT_OUT


def test_what_overlaps_goes_to_another_track_and_roundings_do_not() -> None:
    def one(start_s: float, end_s: float) -> Slice:
        return Slice(PhaseRecord(0, "dit_forward", 0, start_s, 0.0), start_s, end_s)

    outer, inner, beside = one(0.0, 1.0), one(0.1, 0.5), one(0.5 - 1e-6, 1.0 + 1e-6)
    assert [len(track) for track in nesting([outer, inner, beside])] == [3]
    overlapping = one(0.9, 1.4)
    assert [len(track) for track in nesting([overlapping, outer, inner])] == [2, 1]
