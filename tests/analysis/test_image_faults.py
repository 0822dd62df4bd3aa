"""Images that are no pictures: found in a stored sweep before any comparison, and never PASS."""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from PIL import Image

from sweep.analysis import image_faults, summary
from sweep.analysis.engine_starts import Measured
from sweep.engines.images import BLANK, NOT_FINITE, WRONG_SIZE
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan, build_plan
from sweep.report.build import rebuild
from sweep.results.folder import SweepFolder
from sweep.results.records import RequestRow
from tests import stored
from tests.analysis.test_image_pairs import draw

Change = Callable[[RequestRow], RequestRow]


@pytest.fixture
def sweep(tmp_path: Path) -> tuple[SweepFolder, Plan]:
    """A baseline, three features and an A/A, all with the same three images."""
    made = stored.many_cells(4)
    folder = stored.store(tmp_path, made)
    for cell in made.cells:
        draw(folder, cell, 0)
    return folder, made


def change(folder: SweepFolder, cells: list[Cell], how: Change) -> None:
    """Change every request of these cells."""
    for cell in cells:
        result = folder.load_result(cell)
        assert result is not None
        folder.save_result(cell, dataclasses.replace(result, requests=tuple(how(r) for r in result.requests)))


def told(folder: SweepFolder) -> dict[str, dict[str, Any]]:
    """Cells of the rebuilt report by label, each with the codes of its findings that are not PASS."""
    rebuild(folder, plots=False)
    cells = json.loads((folder.path / "report.json").read_text())["cells"]
    return {
        one["cell"]: one | {"codes": [f["code"] for f in one["findings"] if f["status"] != "PASS"]} for one in cells
    }


def blank(request: RequestRow) -> RequestRow:
    return structs.replace(request, image_fault=BLANK, image_hash="black")


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (NOT_FINITE, "images_not_finite", "1 of 4 images was "),
        (WRONG_SIZE, "images_wrong_size", "1 of 4 images does not have the requested size"),
    ],
)
def test_a_cell_whose_images_are_no_pictures_fails_alone(
    fault: str, code: str, said: str, sweep: tuple[SweepFolder, Plan]
) -> None:
    folder, made = sweep
    assert {one["status"] for one in told(folder).values()} == {"PASS"}
    hit = [cell for cell in made.cells if cell.features == ("teacache",)]

    def second(request: RequestRow) -> RequestRow:
        return structs.replace(request, image_fault=fault if request.prompt_index == 1 else "")

    change(folder, hit, second)
    cells = told(folder)
    found = cells.pop(hit[0].label)
    assert (found["status"], found["codes"]) == ("FAIL", [code])
    assert found["reason"].startswith(said)
    assert found["quality"]["identical"] is None, "not compared, although its pixels are the baseline's"
    assert {one["status"] for one in cells.values()} == {"PASS"}
    assert all(one["quality"]["identical"] for one in cells.values())


def test_nothing_is_judged_by_a_baseline_that_is_no_picture(sweep: tuple[SweepFolder, Plan]) -> None:
    """Black against black is identical. An A/A run of black images does not show how far pictures differ either."""
    folder, made = sweep
    cache = next(cell for cell in made.cells if cell.features == ("cache_dit",))
    change(folder, [cell for cell in made.cells if cell is not cache], blank)
    cells = told(folder)
    own = cells.pop(cache.label)
    assert (own["status"], own["codes"]) == ("WARN", ["baseline_images"])
    assert "4 of 4 images are blank" in own["reason"]
    assert own["quality"]["mean_diff"] is None
    for label, one in cells.items():
        assert (one["status"], one["codes"][0]) == ("FAIL", "images_blank"), label
        assert one["quality"]["identical"] is None
    assert "PASS" not in {one["status"] for one in cells.values()}


def test_another_engine_is_not_compared_by_images_that_are_no_pictures(sweep: tuple[SweepFolder, Plan]) -> None:
    folder, made = sweep
    change(folder, list(made.cells[:1]), blank)
    mine, theirs = (Measured(cell, (folder.load_result(cell),)) for cell in made.cells[:2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="blank"):
        summary._control_images(folder, mine, theirs)


@pytest.mark.parametrize("colour", ["black", "white"])
def test_black_and_white_images_of_results_without_the_engines_word(
    sweep: tuple[SweepFolder, Plan], colour: str
) -> None:
    """Results of earlier versions have only pixel hashes, which are enough."""
    folder, made = sweep
    image = Image.new("RGB", (64, 64), colour)
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    change(folder, list(made.cells), lambda request: structs.replace(request, image_hash=digest))
    assert {(one["status"], one["codes"][0]) for one in told(folder).values()} == {("FAIL", "images_blank")}


def test_one_image_is_called_so() -> None:
    plan = build_plan([stored.many_cells(4).cells[0]])
    result = stored.result_of(plan.cells[0], random.Random(0), prompts=1, repeats=2)
    assert image_faults.faults([result]) == []
    (found,) = image_faults.faults([dataclasses.replace(result, requests=tuple(map(blank, result.requests)))])
    assert found.text.startswith("the image is blank")
    assert image_faults.no_comparison([]) == []


@pytest.mark.parametrize("size", [(0, 64), (-8, -8), (10**9, 10**9), (10**9, 1)])
def test_a_size_that_no_image_has_costs_nothing(size: tuple[int, int]) -> None:
    """Sizes come from files; an engine without images stores the hash of no pixels."""
    assert not image_faults._blank(*size)
