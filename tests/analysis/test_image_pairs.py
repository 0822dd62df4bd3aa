"""Image differences of a whole sweep: measured together, the same as one by one, and never twice."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from PIL import Image

from sweep.analysis import image_metrics, image_pairs
from sweep.analysis.summary import summarise
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan, build_plan
from sweep.report.build import rebuild
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult
from tests import stored

PROMPTS = 3


@pytest.fixture
def sweep(tmp_path: Path) -> tuple[SweepFolder, Plan]:
    """A baseline, three features that differ from it, and an A/A with the same images; three images of 24×24 each."""
    made = stored.many_cells(4)
    folder = stored.store(tmp_path, made)
    for number, cell in enumerate(made.cells):
        draw(folder, cell, 0 if cell.role == "aa" else number)
    return folder, made


def draw(folder: SweepFolder, cell: Cell, change: int, prompts: int = PROMPTS) -> None:
    """Give a cell images that differ from those of change 0 by `change` at most."""
    result = folder.load_result(cell)
    assert result is not None
    (folder.cell_path(cell) / "images").mkdir(exist_ok=True)
    rows = []
    for request in result.requests:
        if request.repeat == 0 and request.prompt_index < prompts:
            rng = np.random.default_rng(request.prompt_index)
            drawn = rng.integers(0, 200, (24, 24, 3)) + rng.integers(0, change + 1, (24, 24, 3))
            pixels = drawn.astype(np.uint8)
            name = f"images/prompt_{request.prompt_index:02}.png"
            Image.fromarray(pixels).save(folder.cell_path(cell) / name)
            request = structs.replace(request, image=name, image_hash=hashlib.sha256(pixels.tobytes()).hexdigest())
        rows.append(request)
    folder.save_result(cell, dataclasses.replace(result, requests=tuple(rows)))


def results_of(folder: SweepFolder, made: Plan) -> dict[str, RunResult | None]:
    return {cell.key: folder.load_result(cell) for cell in made.cells}


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple]:
    """Arguments of every call of a function of `quality`."""
    calls: list[tuple] = []
    inner = getattr(image_metrics, name)
    monkeypatch.setattr(image_metrics, name, lambda *given: (calls.append(given), inner(*given))[1])
    return calls


def test_together_as_one_by_one(sweep: tuple[SweepFolder, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, made = sweep
    loaded = folder.load_results(made)
    alone = summarise(folder, made, loaded).rows
    kept = {cell.key: folder.load_quality(cell) for cell in made.cells}
    for path in folder.path.glob("*/quality.json"):
        path.unlink()
    image_pairs.measure(folder, made, results_of(folder, made))
    assert {cell.key: folder.load_quality(cell) for cell in made.cells} == kept
    assert sorted(map(len, kept.values())) == [0, 0, PROMPTS, PROMPTS, PROMPTS]
    calls = counted(monkeypatch, "compare")
    assert summarise(folder, made, loaded).rows == alone
    assert not calls, "the summary has nothing left to compare"
    assert len({row["mean_diff"] for row in alone}) == 4


def test_an_image_that_many_are_compared_with_is_read_once(
    sweep: tuple[SweepFolder, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = sweep
    calls = counted(monkeypatch, "read")
    image_pairs.measure(folder, made, results_of(folder, made))
    assert len(calls) == PROMPTS + 3 * PROMPTS  # the baseline's, and those of three cells


def test_nothing_is_measured_twice(sweep: tuple[SweepFolder, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, made = sweep
    changed = next(cell for cell in made.cells if cell.features == ("teacache",))
    rebuild(folder, plots=False)
    folder.save_quality(changed, {**folder.load_quality(changed), "clip:a:b": 0.5})
    calls = counted(monkeypatch, "compare")
    rebuild(folder, plots=False)
    assert not calls
    draw(folder, changed, 7)
    rebuild(folder, plots=False)
    assert len(calls) == PROMPTS
    known = folder.load_quality(changed)
    assert known["clip:a:b"] == 0.5, "what others keep there stays"
    assert len(known) == 2 * PROMPTS + 1


@pytest.mark.parametrize(
    ("harm", "facts"),
    [
        ("cut", ["images/prompt_01.png"]),
        ("gone", ["[Errno 2]", "prompt_01.png"]),
        ("size", ["prompt_01.png (8×8 RGB)"]),
        ("fewer", ["2 images", "baseline", "3"]),
        ("broken", []),
    ],
)
def test_what_cannot_be_compared_is_said_of_its_cell_alone(
    sweep: tuple[SweepFolder, Plan], harm: str, facts: list[str]
) -> None:
    folder, made = sweep
    cell = next(cell for cell in made.cells if cell.features == ("teacache",))
    image = folder.cell_path(cell) / "images" / "prompt_01.png"
    if harm == "cut":
        image.write_bytes(image.read_bytes()[:-20])
    elif harm == "gone":
        image.unlink()
    elif harm == "size":
        Image.new("RGB", (8, 8)).save(image)
    elif harm == "broken":
        content = image.read_bytes()
        image.write_bytes(content[:60] + b"\0" * (len(content) - 72) + content[-12:])
    else:
        result = folder.load_result(cell)
        assert result is not None
        fewer = [structs.replace(r, image="") if r.prompt_index == 2 else r for r in result.requests]
        folder.save_result(cell, dataclasses.replace(result, requests=tuple(fewer)))
    rebuild(folder, plots=False)
    cells = {one["cell_key"]: one for one in json.loads((folder.path / "report.json").read_text())["cells"]}
    assert [(one["status"], one["code"]) for one in cells[cell.key]["findings"]] == [("ERROR", "images_not_comparable")]
    assert all(fact in cells[cell.key]["reason"] for fact in facts)
    others = [one for key, one in cells.items() if key != cell.key]
    assert all(one["quality"]["mean_diff"] is not None for one in others)


def test_an_interrupted_measurement_keeps_what_it_has(
    sweep: tuple[SweepFolder, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = sweep
    monkeypatch.setattr(image_pairs.os, "cpu_count", lambda: 1)
    inner, images = image_metrics.compare, []

    def compare(first: image_metrics.Bitmap, second: image_metrics.Bitmap) -> image_metrics.ImageDifference:
        images.append(first.name)
        if len(images) > 3:
            raise KeyboardInterrupt
        return inner(first, second)

    monkeypatch.setattr(image_metrics, "compare", compare)
    with pytest.raises(KeyboardInterrupt):
        image_pairs.measure(folder, made, results_of(folder, made))
    assert sum(len(folder.load_quality(cell)) for cell in made.cells) == 3


def test_controls_are_measured_together_with_the_rest(
    sweep: tuple[SweepFolder, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same cells in another engine: each against its baseline, and against the same cell of the native pipeline."""
    folder, made = sweep
    keys = {cell.key: f"{'e' * 8}{cell.key[:8]}" for cell in made.cells}
    others = [
        dataclasses.replace(
            cell,
            key=keys[cell.key],
            origin=keys[cell.origin],
            baseline_key=keys[cell.baseline_key],
            interleaved=keys.get(cell.interleaved, ""),
            engine_key=f"other {cell.engine_key}",
            config={**cell.config, "engine": {**cell.config["engine"], "name": "vllm_omni"}},
        )
        for cell in made.cells
    ]
    both = build_plan([*made.cells, *others])
    stored.store(folder.path, both)
    for number, cell in enumerate([*made.cells, *others]):
        draw(folder, cell, number)
    image_pairs.measure(folder, both, results_of(folder, both))
    calls = counted(monkeypatch, "compare")
    found = summarise(folder, both, folder.load_results(both))
    assert len(found.control.compared) == 4
    assert all(one.images is not None and not one.images_problem for one in found.control.compared)
    assert not calls


def hand_over(folder: SweepFolder, cell: Cell, *tokens: str) -> None:
    """Make a cell's first batches record which AR tokens they were painted from, batch by batch."""
    result = folder.load_result(cell)
    assert result is not None
    marked = [
        structs.replace(
            batch,
            evidence=tuple(
                structs.replace(one, settings={**one.settings, "tokens_sent": sent}) for one in batch.evidence
            ),
        )
        for batch, sent in zip(result.batches, tokens, strict=False)
    ]
    folder.save_result(cell, dataclasses.replace(result, batches=(*marked, *result.batches[len(marked) :])))


@pytest.mark.parametrize(
    ("sent", "status", "code", "noted"),
    [
        ("4:aa", "FAIL", "lossless_images_differ", []),
        ("4:bb", "PASS", "engaged", ["1", "3"]),
    ],
)
def test_images_painted_from_other_tokens_of_the_ar_stage_are_not_compared(
    sweep: tuple[SweepFolder, Plan], sent: str, status: str, code: str, noted: list[str]
) -> None:
    folder, made = sweep
    cell = next(cell for cell in made.cells if cell.features == ("vae_slicing",))
    draw(folder, cell, 0)  # as the baseline's, but for one
    Image.new("RGB", (24, 24)).save(folder.cell_path(cell) / "images" / "prompt_01.png")
    result = folder.load_result(cell)
    assert result is not None
    requests = [structs.replace(r, image_hash="black") if r.prompt_index == 1 else r for r in result.requests]
    folder.save_result(cell, dataclasses.replace(result, requests=tuple(requests)))
    hand_over(folder, made.by_key[cell.baseline_key], "4:aa", "4:aa", "4:aa")
    hand_over(folder, cell, "4:aa", sent, "4:aa")
    rebuild(folder, plots=False)
    row = next(row for row in summarise(folder, made, folder.load_results(made)).rows if row["cell_key"] == cell.key)
    assert (row["status"], row["reason_code"]) == (status, code)
    notes = [note for note in row["notes"] if note.code == "other_tokens"]
    assert [re.findall(r"\d+", note.text) for note in notes] == [noted] * bool(noted), "1 of 3 images"


def test_where_the_ar_stage_wrote_other_tokens_for_every_image_pixels_judge_nothing(
    sweep: tuple[SweepFolder, Plan],
) -> None:
    folder, made = sweep
    cell = next(cell for cell in made.cells if cell.features == ("teacache",))
    hand_over(folder, made.by_key[cell.baseline_key], "4:aa", "4:aa", "4:aa")
    hand_over(folder, cell, "4:bb", "4:cc", "4:dd")
    rebuild(folder, plots=False)
    row = next(row for row in summarise(folder, made, folder.load_results(made)).rows if row["cell_key"] == cell.key)
    assert (row["status"], row["reason_code"]) == ("PASS", "engaged")
    assert "mean_diff" not in row
    (note,) = [note for note in row["notes"] if note.code == "other_tokens"]
    assert re.findall(r"\d+", note.text) == ["3", "3"], "of 3 images"
