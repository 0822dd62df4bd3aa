"""An engine against the native pipeline: which cells are paired, and what is said about a pair."""

import dataclasses
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec import structs
from PIL import Image

from sweep.analysis import control_group, paired
from sweep.analysis.engine_starts import floors, measured_cells
from sweep.analysis.image_metrics import ImageDifference
from sweep.analysis.summary import summarise
from sweep.findings import Finding
from sweep.plan.cells import AA, Cell, again
from sweep.plan.plans import Plan, build_plan
from sweep.report.build import rebuild
from sweep.report.page import control_view
from sweep.results.folder import SweepFolder
from sweep.results.records import ERROR, RunResult
from tests import stored
from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "sweep" / "report" / "report.schema.json").read_text())
OTHER = "vllm_omni"
BASE, CACHED = stored.template(), stored.template("teacache")


def cell(shape: Cell = BASE, engine: str = control_group.CONTROL, **changes: Any) -> Cell:
    """A cell of an engine; `changes` by path in its configuration, e.g. `workload__steps=4`, or device and gpus."""
    config = json.loads(json.dumps(shape.config))
    config["engine"]["name"] = engine
    fields = {name: changes.pop(name) for name in ("device", "gpus", "skip") if name in changes}
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = config
        for name in outer:
            place = place[name]
        place[last] = value
    key, base = stored.key_of(config, fields), stored.key_of({**config, "feature": {}}, fields)
    label = f"{shape.label} engine={engine}"
    made = dataclasses.replace(shape, key=key, origin=key, baseline_key=base, label=label, config=config)
    return dataclasses.replace(made, interleaved="", engine_key=stored.key_of(engine, shape.features), **fields)


def both(shape: Cell = BASE, **changes: Any) -> list[Cell]:
    """The same cell in the other engine and in the control."""
    return [cell(shape, OTHER, **changes), cell(shape, **changes)]


def result(one: Cell, factor: float = 1.0, seed: int = 0) -> RunResult:
    """Measurements whose latencies are `factor` times those of `seed`, exactly."""
    made = stored.result_of(one, random.Random(seed))
    batches = tuple(structs.replace(b, latency_s=b.latency_s * factor, baseline_s=None) for b in made.batches)
    requests = tuple(structs.replace(r, e2e_s=r.e2e_s * factor) for r in made.requests)
    return dataclasses.replace(made, batches=batches, requests=requests)


def group(
    results: Sequence[tuple[Cell, RunResult | None]], said: dict[str, dict[str, Any]] | None = None, images: Any = None
) -> control_group.ControlGroup:
    """What is said about these cells; `said` adds to rows by cell key."""
    cells = [one for one, _ in results]
    plan = Plan(tuple(cells), ())
    measured = measured_cells(plan, {one.key: found for one, found in results})
    rows = []
    for one in cells:
        row = {"cell_key": one.key, "engine": one.config["engine"]["name"], "status": "PASS", "reason": ""}
        rows.append(row | (said or {}).get(one.key, {}))
    return control_group.compare(plan, rows, measured, floors(plan, measured), images or (lambda mine, theirs: None))


def test_cells_are_paired_that_agree_in_everything_but_the_engine() -> None:
    cells = [one for shape in (BASE, CACHED) for batch in (1, 2) for one in both(shape, batch=batch)]
    cells += [cell(CACHED, OTHER, feature__teacache__rel_l1_thresh=0.3), cell(BASE, OTHER, workload__steps=50)]
    cells += [cell(BASE, OTHER, workload__width=128), cell(BASE, OTHER, seed=7), again(cell(BASE, OTHER, batch=1), 1)]
    assert control_group.match(cells) == list(zip(cells[:8:2], cells[1:8:2], strict=True))


@pytest.mark.parametrize("engines", [[OTHER], [control_group.CONTROL], [OTHER, "noop"]])
def test_nothing_is_said_without_another_engine_or_without_the_control(engines: list[str]) -> None:
    assert not group([(one, result(one)) for one in (cell(BASE, engine) for engine in engines)])


def test_of_several_controls_the_one_with_the_same_settings_is_taken() -> None:
    single, half = cell(engine__dtype="float32"), cell(engine__dtype="bfloat16")
    for mine, theirs in (("auto", single), ("bfloat16", half)):
        one = cell(BASE, OTHER, engine__dtype=mine)  # auto is float32 on a CPU
        (found,) = group([(c, result(c)) for c in (single, half, one)]).compared
        assert found.control.key == theirs.key
        assert found.doubts == ()
    (found,) = group([(c, result(c)) for c in (half, cell(BASE, OTHER, gpus=2))]).compared
    words = [set(re.findall(r"\w+", doubt)) for doubt in found.doubts]
    assert len(words) == 2
    assert words[0] >= {"dtype", "float32", "bfloat16", "diffusers"}
    assert words[1] >= {"devices", "2", "1", "diffusers"}


def repeated(one: Cell, factor: float = 1.0, drift: float = 1.01) -> list[tuple[Cell, RunResult]]:
    """A baseline and three A/A starts, the odd ones `drift` slower."""
    starts = [one, *(again(one, start) for start in (1, 2, 3))]
    return [(start, result(start, factor * drift ** (i % 2))) for i, start in enumerate(starts)]


def test_the_ratio_is_the_controls_latency_over_the_cells_with_the_noise_of_both_engines() -> None:
    mine, theirs = both()
    (found,) = group([*repeated(mine), *repeated(theirs, 1.3)]).compared
    assert found.ratio.ratio == pytest.approx(1.3)
    assert found.ratio.low is not None
    assert found.ratio.high is not None
    assert 1.27 < found.ratio.low < 1.3 < found.ratio.high < 1.33
    assert (found.ratio.called, found.ratio.pairs) == (paired.FASTER, 4)
    (unsure,) = group([*repeated(mine, drift=1.5), *repeated(theirs, 1.3)]).compared
    assert unsure.ratio.called == paired.NO_DIFFERENCE, "A/A of the other engine alone differs by more"


def test_nothing_is_called_when_only_one_engine_has_an_aa() -> None:
    mine, theirs = both()
    (found,) = group([(mine, result(mine)), *repeated(theirs, 1.3, drift=1.21)]).compared
    assert found.ratio.ratio == pytest.approx(1.3 * 1.1), "A/A starts are starts of the baseline"
    assert found.ratio.called == paired.UNKNOWN


def test_repeats_of_a_feature_count_with_its_first_start() -> None:
    mine, theirs = both(CACHED)
    more = again(mine, 1)
    (found,) = group([(mine, result(mine)), (theirs, result(theirs, 1.3)), (more, result(more, 1.21))]).compared
    assert found.ratio.ratio == pytest.approx(1.3 / 1.1)


def test_a_cell_without_numbers_is_named_with_its_reason() -> None:
    mine, theirs = both()
    gone = {mine.key: {"status": "ERROR", "reason": "out of memory"}}
    failed = dataclasses.replace(result(mine), state=ERROR)
    found = group([(mine, failed), (theirs, result(theirs))], gone)
    assert found.compared == ()
    (missing,) = found.missing
    assert all(fact in missing.reason for fact in ("vllm_omni", "ERROR", "out of memory"))
    gone[theirs.key] = {"status": "SKIP", "reason": "requires 2 GPUs"}
    (missing,) = group([(mine, None), (theirs, None)], gone).missing
    mine_why, theirs_why = missing.reason.split("; ")
    assert all(fact in mine_why for fact in ("vllm_omni", "ERROR", "out of memory"))
    assert all(fact in theirs_why for fact in ("diffusers", "SKIP", "requires 2 GPUs"))
    assert (missing.name, missing.control.key) == ("baseline b1", theirs.key)


def test_a_start_that_failed_is_not_replaced_by_its_repeat() -> None:
    mine, theirs = both(CACHED)
    more = again(mine, 1)
    found = group(
        [(mine, dataclasses.replace(result(mine), state=ERROR)), (theirs, result(theirs)), (more, result(more))]
    )
    assert (len(found.compared), len(found.missing)) == (0, 1)


def test_other_prompts_are_not_compared() -> None:
    mine, theirs = both()
    other = dataclasses.replace(result(theirs), prompts=("another", *result(theirs).prompts[1:]))
    found = group([(mine, result(mine)), (theirs, other)])
    assert (len(found.compared), len(found.missing)) == (0, 1)
    assert "prompts" in found.missing[0].reason


def test_a_feature_that_did_not_engage_and_a_doubted_measurement_are_doubts() -> None:
    mine, theirs = both(CACHED)
    said = {mine.key: {"status": "FAIL", "reason": "did not engage"}, theirs.key: {"invalid_reason": "A/A drift"}}
    (found,) = group([(mine, result(mine)), (theirs, result(theirs))], said).compared
    first, second = found.doubts
    assert all(fact in first for fact in ("vllm_omni", "FAIL", "did not engage"))
    assert all(fact in second for fact in ("diffusers", "A/A drift"))


def test_images_that_cannot_be_compared_leave_the_times() -> None:
    def refuse(mine: Any, theirs: Any) -> ImageDifference:
        raise ValueError("64×64 RGB with 32×32 RGB")

    mine, theirs = both()
    (found,) = group([(mine, result(mine)), (theirs, result(theirs))], images=refuse).compared
    assert (found.images, found.images_problem) == (None, "64×64 RGB with 32×32 RGB")
    assert found.ratio.ratio == pytest.approx(1.0)


# -- stored sweeps


def store(path: Path, cells: Sequence[Cell]) -> SweepFolder:
    """A sweep on disk; the other engine takes 1 ÷ 1.3 of the control's time, in less memory."""
    folder = SweepFolder(path)
    folder.prepare()
    folder.save_plan(build_plan(cells))
    folder.save_manifest({"command": "python -m sweep -m …", "start": "2026-11-21T08:00:00+00:00", "versions": {}})
    for one in cells:
        if one.skip:
            continue
        other = one.config["engine"]["name"] == OTHER
        made = result(one, (1.0 if other else 1.3) * (1.002 if one.role == AA else 1.0))
        telemetry = {**made.telemetry, "peak_memory_gb": 20.1 if other else 24.3}
        folder.save_result(one, dataclasses.replace(made, telemetry=telemetry))
    return folder


def draw(folder: SweepFolder, one: Cell, colour: int, side: int = 8) -> None:
    """Give a stored cell an image a prompt, all of one colour."""
    found = folder.load_result(one)
    assert found is not None
    rows = []
    for request in found.requests:
        name = f"images/prompt_{request.prompt_index}.png" if request.repeat == 0 else ""
        if name:
            (folder.cell_path(one) / "images").mkdir(exist_ok=True)
            Image.new("RGB", (side, side), (colour, 0, 0)).save(folder.cell_path(one) / name)
        rows.append(structs.replace(request, image=name, image_hash=f"{colour} {side}" if name else ""))
    folder.save_result(one, dataclasses.replace(found, requests=tuple(rows)))


def compared(folder: SweepFolder) -> control_group.Comparison:
    plan = folder.load_plan()
    (found,) = summarise(folder, plan, folder.load_results(plan)).control.compared
    return found


def test_images_are_compared_with_the_controls(tmp_path: Path) -> None:
    mine, theirs = both()
    folder = store(tmp_path, [mine, theirs])
    assert (compared(folder).images, compared(folder).images_problem) == (None, "")
    draw(folder, mine, 120)
    assert compared(folder).images is None
    assert re.findall(r"\d+", compared(folder).images_problem) == ["4", "0"]
    draw(folder, theirs, 118)
    images = compared(folder).images
    assert images is not None
    assert images.mean_diff == pytest.approx(2 / 255 / 3)
    assert images.max_diff == pytest.approx(2 / 255)
    draw(folder, theirs, 120)
    assert compared(folder).images == ImageDifference(0.0, 0.0, float("inf"), 1.0)
    draw(folder, theirs, 120, side=16)
    assert "8×8 RGB" in compared(folder).images_problem
    damaged = folder.cell_path(theirs) / "images" / "prompt_1.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert compared(folder).images is None
    assert {"images/prompt_1.png", "diffusers"} <= set(compared(folder).images_problem.split())


def test_report_json_terminal_and_compare_tell_of_it(tmp_path: Path, sweep: Any, capsys: pytest.CaptureFixture) -> None:
    cells = [
        *both(),
        *both(CACHED),
        cell(BASE, OTHER, batch=2),
        cell(BASE, batch=2, skip=Finding("too_few_devices", "requires 2 GPUs", "SKIP")),
    ]
    cells += [again(one, 1) for one in cells[:2]]
    folder = store(tmp_path / "sweep", cells)
    for one, colour in zip(cells[:2], (120, 118), strict=True):
        draw(folder, one, colour)
    rebuild(folder, plots=False)
    said = " ".join(capsys.readouterr().out.split())
    plan = folder.load_plan()
    lines = control_view.lines(summarise(folder, plan, folder.load_results(plan)).control)
    assert all(line in said for line in lines)
    assert all(word in lines[0].split() for word in ("vllm_omni", "diffusers:", "1.30x", "20.1", "24.3", "0.00261"))
    assert any("requires 2 GPUs" in line for line in lines)
    report = json.loads((tmp_path / "sweep" / "report.json").read_text())
    jsonschema.validate(report, SCHEMA, jsonschema.Draft202012Validator)
    first = report["control"]["compared"][0]
    assert report["control"]["engine"] == control_group.CONTROL
    assert first["latency_ratio"]["ratio"] == pytest.approx(1.3)
    assert first["latency_ratio"]["low"] < 1.3 < first["latency_ratio"]["high"]
    assert (first["cell"]["peak_memory_gb"], first["control"]["peak_memory_gb"]) == (20.1, 24.3)
    assert first["cell"]["phases_ms"]["ar_decode"] == first["control"]["phases_ms"]["ar_decode"] == 300.0
    assert len(report["control"]["missing"]) == 1
    old = {name: value for name, value in report.items() if name != "control"}
    jsonschema.validate(old, SCHEMA, jsonschema.Draft202012Validator)
    (tmp_path / "old.json").write_text(json.dumps(old))
    done = sweep("old.json", "sweep", module="sweep.compare")
    assert done.code == 0, done


def test_every_field_of_the_control_group_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "report.md").read_text()
    pair = SCHEMA["properties"]["control"]["properties"]["compared"]["items"]["properties"]
    names = [*SCHEMA["properties"]["control"]["required"], *pair, *SCHEMA["$defs"]["side"]["required"]]
    for name in [*names, *pair["latency_ratio"]["required"], *pair["quality"]["required"], "reason"]:
        assert f'"{name}"' in text, name


def test_one_engine_has_no_control_group(tmp_path: Path) -> None:
    folder = stored.store(tmp_path, stored.many_cells(4))
    rebuild(folder, plots=False)
    assert "control" not in json.loads((tmp_path / "report.json").read_text())


def test_two_engines_through_the_command_line(sweep: Any, tmp_path: Path) -> None:
    tiny = [f"workload.{name}" for name in ("num_prompts=1", "repeats=1", "steps=1", "width=32", "height=32")]
    done = sweep("-m", "engine=diffusers,noop", *tiny, "plots=false", "hydra.sweep.dir=two")
    assert done.code == 0, done
    (found,) = json.loads((tmp_path / "two" / "report.json").read_text())["control"]["compared"]
    mine, theirs = found["cell"], found["control"]
    assert found["name"] == "baseline b1"
    assert found["latency_ratio"]["ratio"] == pytest.approx(theirs["latency_mean_s"] / mine["latency_mean_s"])
    loads = [json.loads(path.read_text())["load_s"] for path in (tmp_path / "two").glob("*/result.json")]
    assert sorted(loads) == sorted((mine["load_s"], theirs["load_s"]))
    assert theirs["phases_ms"]["ar_decode"] > 0
    assert found["quality"]["problem"], "noop draws nothing"
    assert found["quality"]["mean_diff"] is None
    assert found["latency_ratio"]["called"] == paired.UNKNOWN, "no A/A run"
    assert any({"baseline", "noop", "diffusers:"} <= set(line.split()) for line in done.out.splitlines())
