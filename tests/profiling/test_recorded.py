"""A measured cell's folder: read by column name, on one axis of time, refused in one line when it is none."""

import csv
import json
import os
from pathlib import Path

import pytest

from profiling.errors import Refusal
from profiling.measured_cell import ALIGNED, NEARLY_ALIGNED, UNKNOWN, NoPhases, read_cell
from tests.recorded import unpack


@pytest.fixture
def glm(tmp_path: Path) -> Path:
    return unpack("glm_b4", tmp_path / "baseline-b4-c7185180")


def test_everything_recorded_is_read(glm: Path) -> None:
    cell = read_cell(glm)
    assert cell.label == "baseline b4"
    assert len(cell.phases) == 1535
    assert sum(phase.phase == "ar_decode" and phase.gpu_ms is not None for phase in cell.phases) == 1280
    assert len(cell.telemetry) == 44
    assert cell.telemetry[0].values["power_w"] == 548.057
    assert [request.request_id for request in cell.requests] == ["r000.0", "r001.0", "r002.0", "r003.0"]
    assert cell.batches == ("r000.0",)


def test_only_the_first_batch_is_read_where_that_is_enough(tmp_path: Path) -> None:
    folder = unpack("int8_b2", tmp_path)
    whole, first = read_cell(folder), read_cell(folder, first_batch=True)
    assert whole.batches == ("r000.0", "r002.0")
    assert first.phases == tuple(phase for phase in whole.phases if phase.request_id == "r000.0")


@pytest.mark.parametrize(
    ("result", "offset_s", "clock"),
    [
        ({"first_request_s": 0.75, "batches": [{"reference_s": 0.5}]}, 0.75, ALIGNED),
        ({"batches": [{"baseline_s": 0.5}]}, 0.5, NEARLY_ALIGNED),  # the baseline's batch came first
        ({"batches": [{"reference_s": 0.5}]}, 0.5, NEARLY_ALIGNED),  # as version 1 called it
        ({"batches": [{"reference_s": None}]}, 0.0, NEARLY_ALIGNED),
        ({"batches": []}, None, UNKNOWN),
        ({"batches": "?"}, None, UNKNOWN),
        ([], None, UNKNOWN),
        ({"first_request_s": float("nan")}, None, UNKNOWN),
        ({"first_request_s": 1e308}, None, UNKNOWN),
        ({"batches": [{"baseline_s": 1e308}]}, None, UNKNOWN),
    ],
)
def test_telemetry_lies_on_the_axis_of_the_phases(
    glm: Path, result: object, offset_s: float | None, clock: str
) -> None:
    (glm / "result.json").write_text(json.dumps(result))
    cell = read_cell(glm)
    assert cell.clock == clock
    if offset_s is None:
        assert cell.telemetry == ()
    else:
        assert cell.telemetry[0].time_s == pytest.approx(0.20442598099998577 - offset_s)


def test_columns_may_move_be_missing_and_be_new(glm: Path) -> None:
    with (glm / "telemetry.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    columns = ["throttle_reasons", *(name for name in reversed(rows[0]) if name != "power_w"), "memory_clock_mhz"]
    with (glm / "telemetry.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, "throttle_reasons": "power cap", "memory_clock_mhz": "3201"} for row in rows)
    values = read_cell(glm).telemetry[0].values
    assert values["memory_clock_mhz"] == 3201
    assert values["gpu_util_pct"] == 37
    assert not {"power_w", "throttle_reasons", "time_s", "gpu_index"} & values.keys()


def test_what_is_beside_the_phases_may_be_missing(glm: Path) -> None:
    for name in ("telemetry.csv", "requests.csv", "result.json"):
        (glm / name).unlink()
    cell = read_cell(glm)
    assert (cell.label, cell.telemetry, cell.requests) == ("baseline-b4-c7185180", (), ())


def test_what_is_no_cell_is_refused_with_what_to_name_instead(glm: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, code, name in (
        (tmp_path / "gone", "no_such_folder", "outputs/"),
        (tmp_path, "sweep_folder", "(baseline-b4-c7185180)"),
        (tmp_path / "empty", "no_cell", "phases.csv"),
        (glm / "phases.csv", "not_a_folder", "phases.csv"),
    ):
        with pytest.raises(NoPhases) as refused:
            read_cell(folder)
        assert refused.value.code == code
        assert name in str(refused.value).removeprefix(str(folder))
        assert "\n" not in str(refused.value)


def test_a_cell_that_failed_before_its_first_batch_is_refused(glm: Path) -> None:
    (glm / "phases.csv").write_text((glm / "phases.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(NoPhases) as refused:
        read_cell(glm)
    assert refused.value.code == "no_phases"


@pytest.mark.parametrize(
    ("name", "damage", "codes", "said"),
    [
        ("phases.csv", lambda text: text[: len(text) // 2 - 3], {"cut_short", "bad_number"}, r"line \d+"),
        ("phases.csv", lambda text: text.replace("host_ms", "hosts"), {"no_column"}, "host_ms"),
        (
            "phases.csv",
            lambda text: text.replace("0.00456448999989334", "soon"),
            {"bad_number"},
            "line 3.*start_s.*'soon'",
        ),
        (
            "phases.csv",
            lambda text: text.replace("0.00456448999989334", "nan"),
            {"bad_number"},
            "line 3.*start_s.*'nan'",
        ),
        ("phases.csv", lambda text: text.replace("10.7465", "-1"), {"bad_number"}, "line 3.*host_ms.*'-1'"),
        ("phases.csv", lambda text: text.replace("10.7465", "1e308"), {"bad_number"}, "line 3.*host_ms.*'1e308'"),
        (
            "phases.csv",
            lambda text: text.replace("0.00456448999989334", "1e16"),
            {"bad_number"},
            "line 3.*start_s.*'1e16'",
        ),
        ("phases.csv", lambda text: text.replace("r000.0,0,", "r000.0,1e300,"), {"bad_number"}, "line 2.*rank"),
        ("telemetry.csv", lambda text: text.replace("0.20442598099998577", "1e16"), {"bad_number"}, "line 2.*time_s"),
        ("phases.csv", lambda text: text + "\x00\n", {"unreadable", "cut_short"}, "line"),
        ("phases.csv", lambda text: "", {"no_column"}, "request_id"),
        ("telemetry.csv", lambda text: text[:-40], {"cut_short", "bad_number"}, r"line \d+"),
        ("telemetry.csv", lambda text: text.replace("0.20442598099998577", "?"), {"bad_number"}, "line 2.*time_s"),
    ],
)
def test_damaged_files_are_refused_with_their_line(glm: Path, name: str, damage, codes: set[str], said: str) -> None:
    path = glm / name
    path.write_text(damage(path.read_text()))
    with pytest.raises(Refusal, match=said) as refused:
        read_cell(glm)
    assert refused.value.code in codes
    assert str(path) in str(refused.value)


def test_bytes_that_are_no_text_are_refused(glm: Path) -> None:
    (glm / "phases.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Refusal) as refused:
        read_cell(glm)
    assert refused.value.code == "unreadable"


def test_a_byte_order_mark_as_spreadsheets_write_it_is_no_part_of_a_name(glm: Path) -> None:
    before = read_cell(glm)
    for name in ("phases.csv", "telemetry.csv", "requests.csv"):
        (glm / name).write_bytes(b"\xef\xbb\xbf" + (glm / name).read_bytes())
    assert read_cell(glm) == before


def test_readings_that_cannot_be_true_are_missing(glm: Path) -> None:
    for value in ("1e308", "-inf", "nan"):
        text = (glm / "telemetry.csv").read_text()
        (glm / "telemetry.csv").write_text(text.replace("548.057", value))
        assert "power_w" not in read_cell(glm).telemetry[0].values
        (glm / "telemetry.csv").write_text(text)


def test_names_cannot_trick_a_terminal(glm: Path) -> None:
    (glm / "result.json").write_text(json.dumps({"label": "x\x1b[2J\n", "first_request_s": 0}))
    text = (glm / "phases.csv").read_text()
    (glm / "phases.csv").write_text(text.replace("vae_decode", "vae\x1b_decode"))
    cell = read_cell(glm)
    assert cell.label == r"x\x1b[2J\n"
    assert r"vae\x1b_decode" in {one.phase for one in cell.phases}


@pytest.mark.parametrize("content", ["[" * 100_000, "\xff", "{", "[]", '{"device": []}'])
def test_a_result_that_cannot_be_read_is_as_none(glm: Path, content: str) -> None:
    (glm / "result.json").write_text(content)
    assert read_cell(glm).label == glm.name


def test_a_result_that_is_no_file_is_not_waited_for(glm: Path) -> None:
    (glm / "result.json").unlink()
    os.mkfifo(glm / "result.json")
    assert read_cell(glm).label == glm.name
