"""The figure of pictures and the plot of what they show, for a sweep whose pictures were checked."""

import dataclasses
import hashlib
import random
from pathlib import Path

import pandas
import pytest
from msgspec import structs
from PIL import Image

from sweep.analysis import columns, prompt_checks
from sweep.analysis.pixel_gates import OUTSIDE
from sweep.analysis.summary import Row, summarise
from sweep.checkpoints.world import pictures as world
from sweep.checkpoints.world import scenes, sentences
from sweep.findings import WARN
from sweep.plan.plans import Plan, build_plan
from sweep.report.plots.draw import PLOTS, cleaned
from sweep.report.plots.pictures import draw_pictures
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult
from tests.stored import result_of, store, template

PROMPTS = ("a red circle in the top left", 'the word "AB" in blue at the top')


def shown(folder: SweepFolder, plan: Plan, wrong: bool) -> dict[str, RunResult | None]:
    """Results of a baseline whose pictures are right, and of teacache, whose first one is `wrong`."""
    results: dict[str, RunResult | None] = {}
    for cell in plan.cells:
        rng = random.Random(1)
        result = result_of(cell, rng, prompts=len(PROMPTS), repeats=1)
        requests = []
        for place, prompt in enumerate(PROMPTS):
            drawn = "a blue square in the top left" if wrong and cell.features and place == 0 else prompt
            wish = sentences.read(drawn)
            assert wish is not None
            image = Image.fromarray((world.render(scenes.arrange(wish, rng), rng) * 255).round().astype("uint8"))
            image.save(folder.cell_path(cell) / f"{place}.png")
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            requests.append(structs.replace(result.requests[place], image=f"{place}.png", image_hash=digest))
        results[cell.key] = dataclasses.replace(result, requests=tuple(requests), prompts=PROMPTS)
    return results


@pytest.mark.parametrize("wrong", [True, False])
def test_broken_pictures_are_framed_and_say_what_is_wrong(tmp_path: Path, wrong: bool) -> None:
    baseline, feature = template(), template("teacache")
    plan = build_plan([baseline, feature])
    folder = store(tmp_path, plan)
    results = shown(folder, plan, wrong)
    prompt_checks.measure(folder, plan, results)
    rows = summarise(folder, plan, {key: (result, "") for key, result in results.items()}).rows
    figure = draw_pictures(folder, plan, rows, results)
    assert figure is not None
    said = [axes.get_xlabel() for axes in figure.axes]
    assert len(said) == 4, "two prompts of two cells"
    assert [bool(text) for text in said] == [False, wrong, False, False]
    assert ("circle" in said[1]) == wrong
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert "100% exact" in titles[0]
    assert ("50% exact" if wrong else "100% exact") in titles[1]
    of_feature = next(row for row in rows if row["features"])
    codes = [one.code for one in of_feature["findings"] if one.status == WARN]
    assert (prompt_checks.BREAKS in codes) == wrong, of_feature["reason"]
    assert OUTSIDE in codes, "drawn anew, they are other pixels: a low PSNR is said of pictures that show the same, too"
    assert exactness(rows) is not None


def test_a_sweep_whose_pictures_were_not_checked_has_neither(tmp_path: Path) -> None:
    plan = build_plan([template(), template("teacache")])
    folder = store(tmp_path, plan)
    loaded = folder.load_results(folder.load_plan())
    found = summarise(folder, plan, loaded)
    assert draw_pictures(folder, plan, found.rows, {key: one for key, (one, _) in loaded.items()}) is None
    assert exactness(found.rows) is None


def exactness(rows: list[Row]) -> object:
    frame = pandas.DataFrame([dict(row) for row in rows], columns=[*columns.NAMES, "findings"])
    return PLOTS["exactness"](cleaned(frame))
