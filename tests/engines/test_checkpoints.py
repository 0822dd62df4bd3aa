"""The tiny checkpoints: built once, the same everywhere, usable with no network and no torchvision."""

import hashlib
import os
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from sweep.engines.diffusers.tiny_models.checkpoints import BUILDERS, RECORD, TRAINED, ensure_checkpoint
from tests.conftest import ROOT
from tests.engines.conftest import answers

PIPELINES = {
    "tiny_glm_image": "GlmImagePipeline",
    "tiny_glm_image_random": "GlmImagePipeline",
    "tiny_qwen_image": "QwenImagePipeline",
}


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def build(pipe: Connection, model: str) -> None:
    pipe.send(ensure_checkpoint(model))


@pytest.mark.parametrize("model", sorted(BUILDERS))
def test_two_processes_building_at_once_get_the_one_complete_folder(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    one, other = answers(2, build, model)
    assert one == other
    assert list((tmp_path / "cache").iterdir()) == [one], "no leftovers"

    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "again"))
    again = ensure_checkpoint(model)
    assert again.name == one.name
    assert digests(again) == digests(one)
    weights = sum(path.stat().st_size for path in again.rglob("*.safetensors"))
    assert 5e6 < weights < 30e6


@pytest.mark.parametrize("how", ["cut short", "altered", "missing", "not recorded"])
def test_a_damaged_checkpoint_is_built_again(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path))

    def build(folder: Path) -> None:
        (folder / "unet").mkdir()
        (folder / "unet" / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setitem(BUILDERS, "tiny_glm_image_random", build)
    folder = ensure_checkpoint("tiny_glm_image_random")
    weights = folder / "unet" / "model.safetensors"
    changed = weights.stat()
    if how == "missing":
        weights.unlink()
    elif how == "not recorded":
        (folder / RECORD).write_text("")
    else:
        weights.write_bytes(b"weight" if how == "cut short" else b"WEIGHTS")
        os.utime(weights, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    assert ensure_checkpoint("tiny_glm_image_random") == folder
    assert weights.read_bytes() == b"weights"
    assert str(folder) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [folder]
    before = weights.stat().st_ino
    assert ensure_checkpoint("tiny_glm_image_random") == folder
    assert weights.stat().st_ino == before, "one that is whole stays"
    assert capsys.readouterr().err == ""


def load_offline(pipe: Connection, folder: Path) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("no network in this test")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    from diffusers import DiffusionPipeline

    loaded = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.send((type(loaded).__name__, [name for name in sys.modules if name.split(".")[0] == "torchvision"]))


@pytest.mark.parametrize(("model", "pipeline"), PIPELINES.items())
def test_loads_without_network_and_without_torchvision(model: str, pipeline: str) -> None:
    assert answers(1, load_offline, ensure_checkpoint(model)) == [(pipeline, [])]


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_trained_weights_come_with_the_package(name: str) -> None:
    """Small, without pickle, with a card and the licence of what they were trained on."""
    folder = ensure_checkpoint(name)
    assert folder.is_relative_to(ROOT / "sweep")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".jinja", ".md", ".safetensors"}
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") <= 10e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"## {part}" in card for part in ("Data", "Recipe", "Scores", "Limits", "Licence"))


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("disk full")

    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path))
    monkeypatch.setitem(BUILDERS, "tiny_glm_image_random", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        ensure_checkpoint("tiny_glm_image_random")
    assert list(tmp_path.iterdir()) == []


def test_unknown_checkpoint_is_refused() -> None:
    with pytest.raises(KeyError, match="huge_glm_image"):
        ensure_checkpoint("huge_glm_image")
