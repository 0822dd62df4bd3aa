"""Summary and report of stored sweeps, small and very large."""

import csv
import dataclasses
import json
import math
import re
from pathlib import Path

import jsonschema
import pytest
from msgspec import structs
from PIL import Image

from sweep.analysis import columns
from sweep.analysis.summary import Summary, summarise
from sweep.findings import Finding
from sweep.plan.cells import Cell, again
from sweep.plan.plans import build_plan
from sweep.report.build import rebuild
from sweep.results.folder import SweepFolder
from tests import processor_time, stored
from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "sweep" / "report" / "report.schema.json").read_text())


def summary_of(folder: SweepFolder) -> Summary:
    made = folder.load_plan()
    return summarise(folder, made, folder.load_results(made))


def test_report_json_follows_its_schema(tmp_path: Path) -> None:
    made = stored.many_cells(8)
    skip = Finding("too_few_devices", "requires 4 GPUs, only 2 available", "SKIP")
    skipped = dataclasses.replace(made.cells[-2], key="0" * 16, origin="0" * 16, skip=skip)
    folder = stored.store(tmp_path, build_plan([*made.cells, skipped]))
    (folder.cell_path(made.cells[-3]) / "result.json").write_text("{")
    rebuild(folder, plots=False)
    report = json.loads((tmp_path / "report.json").read_text())
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(report, SCHEMA, jsonschema.Draft202012Validator)
    assert {cell["status"] for cell in report["cells"]} == {"PASS", "SKIP", "ERROR"}
    assert report["noise"][0]["df"] == 1
    assert len(report["cells"][0]["starts"][0]["samples"]) == 12
    report["cells"][0]["status"] = "FINE"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, SCHEMA, jsonschema.Draft202012Validator)


def test_every_field_of_the_report_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "report.md").read_text()
    for name in SCHEMA["$defs"]["cell"]["required"] + SCHEMA["required"]:
        assert f'"{name}"' in text, name


def test_rows_say_faster_and_by_how_much(tmp_path: Path) -> None:
    rows = {row["cell"]: row for row in summary_of(stored.store(tmp_path, stored.many_cells(4))).rows}
    row = rows["teacache b1 steps=1"]
    assert row["called"] == "faster"
    assert row["speedup_low"] < 1.6 < row["speedup_high"]
    assert rows["vae_slicing b1 steps=1"]["called"] == "no difference"
    assert rows["baseline b1 steps=1"]["speedup"] == 1.0
    assert rows["baseline b1 steps=1 A/A"]["called"] == "", "an A/A does not judge itself"


def test_a_repeat_joins_its_cell(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    cell = next(c for c in made.cells if c.features == ("teacache",))
    folder = stored.store(tmp_path, build_plan([*made.cells, again(cell, 1)]))
    rows = {row["cell"]: row for row in summary_of(folder).rows}
    assert len(rows) == len(made.cells)
    assert rows[cell.label]["starts"] == 2
    rebuild(folder, plots=False)
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(next(c for c in report["cells"] if c["cell"] == cell.label)["starts"]) == 2


@pytest.mark.parametrize(("energies", "expected"), [((1200.0, 600.0), 75.0), ((1200.0, None), 100.0)])
def test_energy_and_images_are_of_the_same_starts(tmp_path: Path, energies: tuple, expected: float) -> None:
    """Two starts of twelve images each; the second start's energy may not be known."""
    made = stored.many_cells(4)
    cell = next(c for c in made.cells if c.features == ("teacache",))
    repeat = again(cell, 1)
    folder = stored.store(tmp_path, build_plan([*made.cells, repeat]))
    for one, energy_j in zip((cell, repeat), energies, strict=True):
        result = folder.load_result(one)
        assert result is not None
        assert len(result.requests) == 12
        folder.save_result(one, dataclasses.replace(result, telemetry={**result.telemetry, "energy_j": energy_j}))
    row = next(row for row in summary_of(folder).rows if row["cell"] == cell.label)
    assert row["starts"] == 2
    assert row["energy_j_per_image"] == pytest.approx(expected)


def test_memory_is_the_most_of_all_starts_and_the_rest_their_mean(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    cell = next(c for c in made.cells if c.features == ("teacache",))
    starts = (cell, again(cell, 1), again(cell, 2))
    folder = stored.store(tmp_path, build_plan([*made.cells, *starts[1:]]))
    for one, memory_gb, gpu_util_pct, load_s in zip(
        starts, (0.5, 0.8, None), (40.0, None, 60.0), (9, 3, 3), strict=True
    ):
        result = folder.load_result(one)
        assert result is not None
        telemetry = {**result.telemetry, "peak_memory_gb": memory_gb, "gpu_util_pct": gpu_util_pct}
        folder.save_result(one, dataclasses.replace(result, telemetry=telemetry, load_s=load_s))
    row = next(row for row in summary_of(folder).rows if row["cell"] == cell.label)
    assert (row["peak_memory_gb"], row["gpu_util_pct"], row["load_s"]) == (0.8, 50.0, 5.0)


def test_throttling_in_any_start_makes_the_row_invalid_and_lost_telemetry_is_a_note(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    cell = next(c for c in made.cells if c.features == ("teacache",))
    repeat = again(cell, 1)
    folder = stored.store(tmp_path, build_plan([*made.cells, repeat]))
    hot = "GPU 0 was throttled (hw_slowdown) in 1 of 4 samples (25%)"
    result = folder.load_result(repeat)
    assert result is not None
    folder.save_result(repeat, dataclasses.replace(result, throttled=(hot,), telemetry_problem="it was ended"))
    row = next(row for row in summary_of(folder).rows if row["cell"] == cell.label)
    assert (row["valid"], row["invalid_reason"]) == (False, hot)
    (note,) = [note for note in row["notes"] if note.code == "no_telemetry"]
    assert note.text.endswith("it was ended")


def test_speedups_against_a_throttled_baseline_are_invalid_but_not_those_beside_it(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    alone = build_plan([dataclasses.replace(cell, interleaved="") for cell in made.cells])
    hot = "GPU 0 was throttled (hw_slowdown) in 1 of 4 samples (25%)"
    for name, plan, doubt in (("alone", alone, ["baseline_doubted"]), ("beside", made, [])):
        folder = stored.store(tmp_path / name, plan)
        baseline = next(cell for cell in plan.cells if cell.baseline_key == cell.key)
        result = folder.load_result(baseline)
        assert result is not None
        folder.save_result(baseline, dataclasses.replace(result, throttled=(hot,)))
        rows = {row["cell_key"]: row for row in summary_of(folder).rows}
        assert rows[baseline.key]["invalid_reason"] == hot
        mine = [cell.key for cell in plan.cells if cell.baseline_key == baseline.key != cell.key]
        assert all([found.code for found in rows[key]["doubts"]] == doubt for key in mine)
        assert all((hot in rows[key]["invalid_reason"]) == bool(doubt) for key in mine)


def test_drift_makes_plain_speedups_invalid_but_not_those_beside_the_baseline(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    alone = build_plan([dataclasses.replace(cell, interleaved="") for cell in made.cells])
    for name, plan, valid in (("alone", alone, False), ("beside", made, True)):  # result_of follows `beside`
        folder = stored.store(tmp_path / name, plan)
        repeat = next(cell for cell in plan.cells if cell.role == "aa")
        result = folder.load_result(repeat)
        assert result is not None
        slow = [structs.replace(batch, latency_s=batch.latency_s * 1.3) for batch in result.batches]
        folder.save_result(repeat, dataclasses.replace(result, batches=tuple(slow)))
        row = next(row for row in summary_of(folder).rows if row["features"] == "teacache")
        assert row["valid"] is valid
        assert [found.code for found in row["doubts"]] == ([] if valid else ["drift"])


def test_same_seed_other_image_is_a_note_and_no_loss(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    folder = stored.store(tmp_path, made)
    cell = made.cells[0]
    result = folder.load_result(cell)
    assert result is not None
    requests = (structs.replace(result.requests[0], image_hash="other"), *result.requests[1:])
    folder.save_result(cell, dataclasses.replace(result, requests=requests))
    row = summary_of(folder).rows[0]
    assert (row["status"], [note.code for note in row["notes"]]) == ("PASS", ["images_vary"])


def test_time_grows_no_faster_than_the_number_of_cells(tmp_path: Path) -> None:
    """Ten thousand take less than five seconds for each of summary and report.json (`make bench`)."""
    seconds = []
    for count in (300, 1_200):
        folder = stored.store(tmp_path / str(count), stored.many_cells(count), tables=False)
        seconds.append(processor_time.of(lambda folder=folder: rebuild(folder, plots=False)))
        with (tmp_path / str(count) / "summary.csv").open() as handle:
            rows = list(csv.DictReader(handle))
        assert len(rows) == count + 1
        assert {name for name in rows[0] if not name.startswith("option.")} == set(columns.NAMES)
        assert all(math.isfinite(float(row["speedup"])) for row in rows)
    assert seconds[1] < 2 * 4 * seconds[0]


def with_images(folder: SweepFolder, cell: Cell, count: int, colour: int) -> None:
    """Store the first `count` prompts' images of a cell, all of one colour."""
    result = folder.load_result(cell)
    assert result is not None
    rows = []
    for request in result.requests:
        name = f"images/prompt_{request.prompt_index}.png" if request.repeat == 0 else ""
        if name and request.prompt_index < count:
            (folder.cell_path(cell) / "images").mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (colour, 0, 0)).save(folder.cell_path(cell) / name)
            request = structs.replace(request, image=name, image_hash=str(colour))
        rows.append(request)
    folder.save_result(cell, dataclasses.replace(result, requests=tuple(rows)))


@pytest.mark.parametrize(
    ("count", "status", "code", "numbers"),
    [(4, "PASS", "engaged", ["0.0026"]), (3, "ERROR", "images_not_comparable", ["3", "4"])],
)
def test_a_missing_image_is_an_error_and_no_number(
    tmp_path: Path, count: int, status: str, code: str, numbers: list[str]
) -> None:
    made = stored.many_cells(4)
    folder = stored.store(tmp_path, made)
    cell = next(c for c in made.cells if c.features == ("teacache",))
    with_images(folder, made.by_key[cell.baseline_key], 4, colour=100)
    with_images(folder, cell, count, colour=102)
    row = next(row for row in summary_of(folder).rows if row["cell"] == cell.label)
    assert (row["status"], row["reason_code"]) == (status, code)
    assert re.findall(r"[\d.]+\b", row["reason"]) == numbers
    assert (row.get("mean_diff") is None) == (status == "ERROR")
