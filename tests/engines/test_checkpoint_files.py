"""The fingerprint of a checkpoint differs after every change that matters, and only after those."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.engines import checkpoint_files
from sweep.engines.checkpoint_files import fingerprint


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its weights are larger than what is read whole."""
    monkeypatch.setattr(checkpoint_files, "WHOLE_BYTES", 100)
    monkeypatch.setattr(checkpoint_files, "PIECE_BYTES", 4)
    folder = tmp_path / "checkpoint"
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "random_weights.json").write_text('{"seed": 0}')
    (folder / "transformer" / "config.json").write_text('{"layers": 2}')
    (folder / "transformer" / "model.safetensors").write_bytes(b"w" * 1000)
    return folder


def overwrite(folder: Path, start: int, count: int) -> None:
    with (folder / "transformer" / "model.safetensors").open("r+b") as handle:
        handle.seek(start)
        handle.write(b"v" * count)


CHANGES: dict[str, Callable[[Path], object]] = {
    "another seed": lambda folder: (folder / "random_weights.json").write_text('{"seed": 1}'),
    "another depth": lambda folder: (folder / "transformer" / "config.json").write_text('{"layers": 3}'),
    "larger weights": lambda folder: (folder / "transformer" / "model.safetensors").write_bytes(b"w" * 1001),
    "other weights of the same size": lambda folder: overwrite(folder, 0, 1000),
    "a tensor in the middle": lambda folder: overwrite(folder, 400, 200),
    "the last byte": lambda folder: overwrite(folder, 999, 1),
    "a file more": lambda folder: (folder / "transformer" / "more.json").write_text("{}"),
    "a file less": lambda folder: (folder / "model_index.json").unlink(),
    "a file renamed": lambda folder: (folder / "model_index.json").rename(folder / "index.json"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_another_fingerprint(change: str, checkpoint: Path) -> None:
    before = fingerprint(checkpoint)
    CHANGES[change](checkpoint)
    assert fingerprint(checkpoint) not in (before, "")


def test_a_later_copy_and_links_to_its_files_have_the_same(checkpoint: Path, tmp_path: Path) -> None:
    """As in a download's cache, where a folder of links leads to the files."""
    before = fingerprint(checkpoint)
    shutil.copytree(checkpoint, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "transformer" / "model.safetensors", (1, 1))
    assert fingerprint(tmp_path / "copy") == before
    for file in [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]:
        file.unlink()
        file.symlink_to(checkpoint / file.relative_to(tmp_path / "copy"))
    assert fingerprint(tmp_path / "copy") == before


def test_hidden_files_do_not_count(checkpoint: Path) -> None:
    before = fingerprint(checkpoint)
    (checkpoint / ".cache").mkdir()
    (checkpoint / ".cache" / "lock").touch()
    (checkpoint / ".gitattributes").touch()
    assert fingerprint(checkpoint) == before


def test_one_file_has_a_fingerprint_and_nothing_has_none(checkpoint: Path) -> None:
    assert fingerprint(checkpoint / "model_index.json") != fingerprint(checkpoint / "random_weights.json")
    assert fingerprint(checkpoint / "nowhere") == ""
    (checkpoint / "empty").mkdir()
    assert fingerprint(checkpoint / "empty") == ""
