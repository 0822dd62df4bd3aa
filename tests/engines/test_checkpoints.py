"""The tiny checkpoints: built once, the same everywhere, usable with no network and no torchvision."""

import hashlib
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from sweep.engines.diffusers.tiny_models.checkpoints import BUILDERS, ensure_checkpoint
from tests.engines.conftest import answers

PIPELINES = {"tiny_glm_image": "GlmImagePipeline", "tiny_qwen_image": "QwenImagePipeline"}


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


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("disk full")

    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path))
    monkeypatch.setitem(BUILDERS, "tiny_glm_image", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        ensure_checkpoint("tiny_glm_image")
    assert list(tmp_path.iterdir()) == []


def test_unknown_checkpoint_is_refused() -> None:
    with pytest.raises(KeyError, match="huge_glm_image"):
        ensure_checkpoint("huge_glm_image")
