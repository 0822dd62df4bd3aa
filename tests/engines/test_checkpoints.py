"""The tiny checkpoints: built once, the same everywhere, usable with no network and no torchvision."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.engines.diffusers.tiny_models.checkpoints import BUILDERS, ensure_checkpoint

BUILD = """
import sys
from sweep.engines.diffusers.tiny_models.checkpoints import ensure_checkpoint
print(ensure_checkpoint(sys.argv[1]))
"""
LOAD = """
import socket, sys
def refuse(*args, **kwargs): raise OSError("no network in this test")
socket.socket.connect = refuse
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)
assert not any(name.split(".")[0] == "torchvision" for name in sys.modules), "torchvision was imported"
print(type(pipe).__name__, sum(p.numel() for p in pipe.transformer.parameters()))
"""


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("model", sorted(BUILDERS))
def test_two_processes_building_at_once_get_the_one_complete_folder(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, model], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = [builder.communicate(timeout=120) for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], answers
    folders = {answer[0].strip().splitlines()[-1] for answer in answers}
    assert len(folders) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [Path(folders.pop()).name]  # no leftovers

    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "again"))
    again = ensure_checkpoint(model)
    assert digests(again) == digests(tmp_path / "cache" / again.name)
    weights = sum(path.stat().st_size for path in again.rglob("*.safetensors"))
    assert 5e6 < weights < 30e6


@pytest.mark.parametrize(
    ("model", "pipeline"), [("tiny_glm_image", "GlmImagePipeline"), ("tiny_qwen_image", "QwenImagePipeline")]
)
def test_loads_without_network_and_without_torchvision(model: str, pipeline: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(ensure_checkpoint(model))], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(pipeline)


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
