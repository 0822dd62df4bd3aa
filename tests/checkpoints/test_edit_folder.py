"""Edits of the world in several turns: the shipped folder, what each turn must show, and how far it drifts."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweep.checkpoints.world import edit_checks, edits
from sweep.checkpoints.world.__main__ import main
from sweep.workload import edit_files
from sweep.workload.edit_files import EditTurn


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float32) / 255


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edits")
    assert main([str(folder)]) == 0
    return folder


def done_by(folder: Path, line: tuple[EditTurn, ...]) -> list[edits.Edit]:
    """What the instructions of a line ask for, read from its picture."""
    scene = edit_checks.read_scene(picture(folder / line[0].pictures[0].file))
    found = []
    for turn in line:
        assert scene is not None
        edit = edits.read(turn.instruction, scene)
        assert edit is not None, turn.instruction
        found.append(edit)
        scene = edit.target
    return found


def test_the_shipped_folder_is_what_the_command_writes(made: Path) -> None:
    assert (edit_files.SHIPPED / "edits.jsonl").read_text("utf-8") == (made / "edits.jsonl").read_text("utf-8")
    for path in sorted(edit_files.SHIPPED.glob("*.png")):
        assert np.abs(picture(path) - picture(made / path.name)).max() <= 1 / 255, "as far as processors round alike"


def test_every_turn_of_the_truth_is_right_and_nothing_drifts(made: Path) -> None:
    lines = edit_files.read_edits(str(made))
    assert sorted({len(line) for line in lines}) == [1, 3]
    assert {edit.kind for line in lines for edit in done_by(made, line)} == {"recolour", "move", "remove", "rewrite"}
    for number, line in enumerate(lines, start=1):
        source = given = picture(made / line[0].pictures[0].file)
        done = done_by(made, line)
        for turn, edit in enumerate(done, start=1):
            truth = picture(made / "truth" / f"scene_{number:02d}_turn_{turn}.png")
            assert all(fact.right for fact in edit_checks.facts(given, truth, edit))
            assert not edit_checks.drift(source, truth, done[:turn])
            given = truth


def test_a_turn_that_does_nothing_is_wrong_and_so_are_those_after_it(made: Path) -> None:
    (line, *_) = edit_files.read_edits(str(made))
    source, done = picture(made / line[0].pictures[0].file), done_by(made, line)
    assert any(not fact.right for fact in edit_checks.facts(source, source, done[0]))
    second = picture(made / "truth" / "scene_01_turn_2.png")
    assert all(fact.right for fact in edit_checks.facts(source, second, done[1]) if fact.kind != edit_checks.REST)
    assert any(not fact.right for fact in edit_checks.facts(second, second, done[2])), "as the second turn left it"


def test_drift_is_of_what_no_turn_names(made: Path) -> None:
    """In the second line, turns change the two things on the right; the green ones on the left stay."""
    first, line, *_ = edit_files.read_edits(str(made))
    source, done = picture(made / line[0].pictures[0].file), done_by(made, line)
    last = picture(made / "truth" / "scene_02_turn_3.png").copy()
    last[:32, :32] *= 0.5
    drift = edit_checks.drift(source, last, done)
    assert drift == pytest.approx(float(source[:32, :32].mean()) / 2, abs=1e-4)
    last[:32, 32:] = 0
    assert edit_checks.drift(source, last, done) == drift, "what a turn has changed may differ"
    assert edit_checks.drift(source, last, done_by(made, first)) is None, "turns name all that the first line has"


@pytest.mark.parametrize("arguments", [("--lines", "0"), ("--turns", "9"), ("--side", "100")])
def test_what_cannot_be_written_is_one_line(
    arguments: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "new"), *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {arguments[0]}") or arguments[0] in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_larger_pictures_show_the_same(made: Path, tmp_path: Path) -> None:
    assert main([str(tmp_path), "--lines", "1", "--side", "256"]) == 0
    assert json.loads((tmp_path / "edits.jsonl").read_text()) == json.loads(
        (made / "edits.jsonl").read_text().splitlines()[0]
    )
    assert picture(tmp_path / "scene_01.png").shape == (256, 256, 3)
    large, small = (edit_checks.read_scene(picture(folder / "scene_01.png")) for folder in (tmp_path, made))
    assert large == small is not None
