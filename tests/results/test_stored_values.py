"""Values that no measurement can give: the cell is an ERROR that names file and field, and the rest is reported."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sweep.frames
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from sweep.report.build import rebuild
from sweep.results import stored_events
from sweep.results.folder import SweepFolder
from sweep.run.group import is_finished
from sweep.run.progress import CellStates
from tests import stored

BATCH, REQUEST = ("batches", 3), ("requests", 5)

HARMS: tuple[tuple[tuple[Any, ...], Any, str], ...] = (
    ((*BATCH, "latency_s"), 0, "latency_s"),
    ((*BATCH, "latency_s"), -1, "latency_s"),
    ((*BATCH, "latency_s"), 5e-324, "latency_s"),
    ((*BATCH, "latency_s"), float("nan"), "JSON"),
    ((*BATCH, "latency_s"), 1e300, "latency_s"),
    ((*BATCH, "baseline_s"), -0.5, "baseline_s"),
    ((*BATCH, "phase_ms"), {"request": 300.0, "thinking": 5.0}, "thinking"),
    ((*BATCH, "phase_ms"), {"request": -1.0}, "phase_ms"),
    ((*BATCH, "phase_ms"), [], "phase_ms"),
    ((*BATCH, "evidence", 0, "dit_forwards"), -4, "evidence"),
    ((*BATCH, "evidence", 0, "denoise_steps"), 10**400, "evidence"),
    ((*REQUEST, "prompt_index"), -1, "prompt_index"),
    ((*REQUEST, "e2e_s"), -1, "e2e_s"),
    ((*REQUEST, "output_tokens"), -7, "output_tokens"),
    ((*REQUEST, "image"), "../../../outside.png", "image"),
    ((*REQUEST, "image"), "/etc/hostname", "image"),
    (("telemetry",), {"energy_j": 1e300}, "telemetry"),
    (("trace",), "../trace.nsys-rep", "trace"),
    (("requests",), {}, "requests"),
    (("state",), "finished", "state"),
    (("wall_s",), 5e-324, "wall_s"),
)


@pytest.fixture(scope="module")
def made() -> Plan:
    return stored.many_cells(len(HARMS) + 8)


@pytest.fixture(scope="module")
def whole(made: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored.store(tmp_path_factory.mktemp("stored"), made).path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> SweepFolder:
    """A stored sweep of the test's own."""
    return SweepFolder(Path(shutil.copytree(whole, tmp_path / "sweep")))


def damage(path: Path, place: tuple[Any, ...], value: Any) -> None:
    """Give one field of a stored JSON file another value."""
    values = json.loads(path.read_text(encoding="utf-8"))
    inner = values
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_text(json.dumps(values), encoding="utf-8")


def rows(folder: SweepFolder) -> dict[str, dict[str, str]]:
    with (folder.path / "summary.csv").open(encoding="utf-8") as handle:
        return {row["cell"]: row for row in csv.DictReader(handle)}


def test_an_implausible_value_costs_its_cell_alone(folder: SweepFolder, made: Plan) -> None:
    features = [cell for cell in made.cells if cell.features]  # none of them is another's baseline
    harmed = dict(zip((cell.label for cell in features), HARMS, strict=False))
    assert len(harmed) == len(HARMS) < len(features)
    for cell in features[: len(HARMS)]:
        place, value, _ = harmed[cell.label]
        damage(folder.cell_path(cell) / "result.json", place, value)
    assert rebuild(folder, plots=False) == 1
    for cell in made.cells:
        row = rows(folder)[cell.label]
        assert (row["reason_code"] == "result_unreadable") == (cell.label in harmed), (cell.label, row["reason"])
        assert is_finished(folder, cell) == (cell.label not in harmed)
        if cell.label in harmed:
            assert row["reason"].startswith("result.json ")
            assert harmed[cell.label][2] in row["reason"], row["reason"]
        else:
            assert float(row["latency_mean_s"]) > 0
    tables = sweep.frames.load(folder.path)
    assert (tables.summary["status"] == "ERROR").sum() == len(HARMS)
    assert len(tables.problems) == len(HARMS)


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("content", [nested(100), nested(200_000), b"[]", b"\xff\xfe", b'"text"', b"{"])
def test_a_side_file_of_any_content_costs_nothing_but_itself(folder: SweepFolder, made: Plan, content: bytes) -> None:
    cell = made.cells[1]
    (folder.path / "manifest.json").write_bytes(content)
    (folder.cell_path(cell) / "quality.json").write_bytes(content)
    (folder.path / "events.jsonl").write_bytes(content + b"\n")
    (folder.cell_path(made.cells[2]) / "result.json").write_bytes(content)
    assert rebuild(folder, plots=False) == 1
    found = {label: row["reason_code"] for label, row in rows(folder).items()}
    assert found.pop(made.cells[2].label) == "result_unreadable"
    assert "result_unreadable" not in found.values()


def test_a_value_of_another_type_in_the_manifest_is_left_out(folder: SweepFolder) -> None:
    damage(folder.path / "manifest.json", ("versions",), [1])
    damage(folder.path / "manifest.json", ("engine_starts",), "many")
    assert folder.load_manifest().keys() == {"command", "start"}


@pytest.mark.parametrize(
    "line",
    [
        {"event": "cell", "state": "done", "clock_s": 1.0},
        {"event": "cell", "key": "a", "clock_s": 1.0},
        {"event": "cell", "key": "a", "state": "done"},
        {"event": "cell", "key": ["a"], "state": "done", "clock_s": 1.0},
        {"event": "cell", "key": "a", "state": "running", "clock_s": 1.0},
        {"event": "cell", "key": "a", "state": "done", "clock_s": float("inf")},
        {"event": "cell", "key": "a", "state": "done", "clock_s": None},
        {"event": 1},
        [],
    ],
)
def test_an_event_that_readers_cannot_use_is_left_out(folder: SweepFolder, made: Plan, line: Any) -> None:
    key = made.cells[0].key
    good = {"event": "cell", "key": key, "state": "running", "clock_s": 1.0, "done": 1, "total": 4}
    text = json.dumps(line).replace('"a"', f'"{key}"')
    (folder.path / "events.jsonl").write_text(f"{text}\n{json.dumps(good)}\n{text}\n", encoding="utf-8")
    assert list(folder.last_states()) == [key]
    states = CellStates(folder, made, set(), 0)
    states.update()
    assert 0 < states.fraction() < 1
    assert list(stored_events.parse(f"{text}\n".encode())) == []


@pytest.mark.parametrize(
    "value", [[-1, 0, 20, 0.5], [0.5, 0.2, 20, 0.5], [0.1, 0.2, None, 0.5], [0.1, 0.2, 3], {}, "0.5", 7.0, True]
)
def test_a_stored_difference_that_no_comparison_gives_is_computed_again(
    folder: SweepFolder, made: Plan, value: Any
) -> None:
    good = {"a:b": [0.1, 0.2, 20.0, 0.9], "a:a": [0.0, 0.0, float("inf"), 1.0], "clip:a:b": 0.8}
    folder.save_quality(made.cells[0], good | {"a:c": value})
    assert folder.load_quality(made.cells[0]) == good


def first_cell(values: dict[str, Any]) -> dict[str, Any]:
    return values["cells"][0]


PLANS: tuple[tuple[Callable[[dict[str, Any]], Any], str], ...] = (
    (lambda plan: first_cell(plan).update(key="../../../../tmp/x"), "key"),
    (lambda plan: first_cell(plan).update(key="0123456789abcde"), "key"),
    (lambda plan: first_cell(plan).update(key=plan["cells"][1]["key"]), "twice"),
    (lambda plan: first_cell(plan).update(label=5), "label"),
    (lambda plan: first_cell(plan).update(role="king"), "role"),
    (lambda plan: first_cell(plan).update(config=[]), "config"),
    (lambda plan: first_cell(plan)["config"].pop("model"), "model"),
    (lambda plan: first_cell(plan)["config"].update(batch="one"), "batch"),
    (lambda plan: first_cell(plan)["config"]["workload"].update(steps=-1), "steps"),
    (lambda plan: first_cell(plan)["config"].update(precision=float("inf")), "precision"),
    (lambda plan: first_cell(plan).update(features=["teacache", "ring"]), "features"),
    (lambda plan: first_cell(plan).update(surprise=1), "surprise"),
    (lambda plan: plan["groups"][0].update(cells=["0" * 16]), "groups[0]"),
    (lambda plan: plan["groups"][0].update(number=7), "groups[0]"),
    (lambda plan: plan.update(cells=json.loads(nested(90))), "nested"),
)


@pytest.mark.parametrize(("harm", "named"), PLANS, ids=range(len(PLANS)))
def test_a_damaged_plan_is_refused_with_the_field(
    folder: SweepFolder, harm: Callable[[dict[str, Any]], Any], named: str
) -> None:
    path = folder.path / "plan.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    harm(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read") as refused:
        folder.load_plan()
    assert str(path) in str(refused.value)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_was_kept_of_a_cell_that_was_cut_off_is_checked_as_well(folder: SweepFolder, made: Plan) -> None:
    cell: Cell = made.cells[0]
    result = folder.load_result(cell)
    assert result is not None
    (folder.cell_path(cell) / "result.json").unlink()
    for batch, request in zip(result.batches[:3], result.requests[:3], strict=True):
        folder.append_record(cell, [request], batch)
    records = folder.cell_path(cell) / "records.jsonl"
    lines = records.read_text(encoding="utf-8").splitlines()
    records.write_text("\n".join([lines[0], lines[1].replace('"latency_s":', '"latency_s":-'), lines[2], "["]))
    kept = folder.load_result(cell)
    assert kept is not None
    assert len(kept.batches) == 2
