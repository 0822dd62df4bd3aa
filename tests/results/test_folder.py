"""What a cell's folder has when the cell begins, whatever an earlier attempt left there."""

from pathlib import Path

from sweep.results.folder import SweepFolder
from tests import stored


def test_pictures_of_an_earlier_attempt_are_no_turns_of_this_one(tmp_path: Path) -> None:
    folder, cell = SweepFolder(tmp_path / "sweep"), stored.template()
    folder.prepare()
    images = folder.cell_path(cell) / "images"
    images.mkdir(parents=True)
    (images / "prompt_00_seed_0.png").touch()
    assert folder.start_cell(cell) == images.parent
    assert not list(images.iterdir())
    images.rmdir()
    elsewhere = tmp_path / "mine"
    elsewhere.mkdir()
    (elsewhere / "holiday.png").touch()
    images.symlink_to(elsewhere)
    folder.start_cell(cell)
    assert (elsewhere / "holiday.png").exists(), "a link may lead anywhere"
