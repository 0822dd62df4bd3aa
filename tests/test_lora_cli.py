"""`feature=lora` with an adapter that cannot work ends with one line before anything is loaded."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sweep.engines import lora_files
from sweep.engines.tensor_files import Shape

LAYERS = {"transformer_blocks.0.attn.to_q": (8, 4), "transformer_blocks.0.attn.to_k": (8, 4)}
"""Layers of the DiT: outputs and inputs."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base" / "transformer").mkdir(parents=True)
    (tmp_path / "base" / "model_index.json").write_text("{}")
    write_tensors(
        tmp_path / "base/transformer/diffusion_pytorch_model.safetensors",
        {f"{layer}.weight": shape for layer, shape in LAYERS.items()},
    )


def write_tensors(path: Path, shapes: Mapping[str, Shape]) -> None:
    """A safetensors file of zeros."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(end))


def adapter(folder: Path, rank: int = 2, layers: Mapping[str, Shape] = LAYERS, **config: Any) -> Path:
    """An adapter of PEFT's format."""
    folder.mkdir()
    fields = {"r": rank, "lora_alpha": rank, "target_modules": ["to_q"], "bias": "none", **config}
    (folder / lora_files.CONFIG).write_text(json.dumps(fields))
    shapes: dict[str, Shape] = {}
    for layer, (outputs, inputs) in layers.items():
        shapes[f"base_model.model.transformer.{layer}{lora_files.A}"] = (rank, inputs)
        shapes[f"base_model.model.transformer.{layer}{lora_files.B}"] = (outputs, rank)
    write_tensors(folder / lora_files.WEIGHTS, shapes)
    return folder


def run(sweep: Any, path: Path | str, *more: str) -> Any:
    asked = [] if path == "" else [f"feature.lora.path={path}"]
    base = ["model=qwen_image", "model.path=base", "engine.device=cpu", "feature=lora", "dry_run=true"]
    return sweep("-m", *base, *asked, *more)


def refused(done: Any) -> str:
    assert done.code == 2, done.err
    (line,) = done.err.strip().splitlines()
    assert not list(Path.cwd().glob("outputs/**/plan.json"))
    return str(line)


def test_an_adapter_that_fits_is_planned(sweep: Any, tmp_path: Path) -> None:
    done = run(sweep, adapter(tmp_path / "mine"))
    assert done.code == 0, done.err
    assert "lora b1" in done.out


def test_no_adapter_at_all(sweep: Any, tmp_path: Path) -> None:
    assert "feature.lora.path is missing" in refused(run(sweep, ""))
    assert "no such folder" in refused(run(sweep, "nowhere"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pytorch_lora_weights.safetensors").write_bytes(b"")
    error = refused(run(sweep, "other"))
    assert "feature.lora.path=other: not a LoRA adapter" in error
    assert "no adapter_config.json" in error
    assert "pytorch_lora_weights.safetensors" in error


def test_an_adapter_of_another_model(sweep: Any, tmp_path: Path) -> None:
    layers = {**LAYERS, "transformer_blocks.9.attn.to_q": (8, 4)}
    names = refused(run(sweep, adapter(tmp_path / "names", layers=layers, base_model_name_or_path="Else/Model")))
    assert "an adapter of another model, which was made for Else/Model" in names
    assert "no layer transformer_blocks.9.attn.to_q" in names
    wide = {name: (outputs, 2 * inputs) for name, (outputs, inputs) in LAYERS.items()}
    shapes = refused(run(sweep, adapter(tmp_path / "shapes", layers=wide)))
    assert "to_q takes 8 values to 8, and that of base 4 x 8" in shapes


def test_a_rank_above_what_vllm_takes(sweep: Any, tmp_path: Path) -> None:
    error = refused(run(sweep, adapter(tmp_path / "mine", rank=1024)))
    assert "its rank of 1024 is above 512" in error


def test_tensors_of_another_rank_than_the_configuration_says(sweep: Any, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "mine")
    config = json.loads((folder / lora_files.CONFIG).read_text())
    (folder / lora_files.CONFIG).write_text(json.dumps(config | {"r": 4}))
    assert "to_q is not of rank 4" in refused(run(sweep, folder))


def test_damage(sweep: Any, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "mine")
    (folder / lora_files.WEIGHTS).write_bytes(b"\xff" * 20)
    assert "adapter_model.safetensors cannot be read" in refused(run(sweep, folder))
    (folder / lora_files.CONFIG).write_text("[]")
    assert "adapter_config.json is no JSON object" in refused(run(sweep, folder))


def test_an_adapter_for_another_base_that_fits_is_said(sweep: Any, tmp_path: Path) -> None:
    done = run(sweep, adapter(tmp_path / "mine", base_model_name_or_path="Qwen/Qwen-Image-Edit"))
    assert done.code == 0
    assert "made for Qwen/Qwen-Image-Edit, and the model is qwen_image" in done.err
    quiet = run(sweep, adapter(tmp_path / "own", base_model_name_or_path="Qwen/Qwen-Image"))
    assert "made for" not in quiet.err


def test_another_adapter_in_the_same_folder_is_another_cell(sweep: Any, tmp_path: Path) -> None:
    def keys() -> dict[str, Any]:
        done = sweep(
            *("-m", "model=qwen_image", "model.path=base", "engine.device=cpu", "feature=lora"),
            *(f"feature.lora.path={folder}", "dry_run=json"),
        )
        assert done.code == 0, done.err
        return {cell["label"]: cell["key"] for cell in json.loads(done.out)["cells"]}

    folder = adapter(tmp_path / "mine")
    before = keys()
    write_tensors(folder / "more.safetensors", {"any": (3,)})
    after = keys()
    assert before["lora b1"] != after["lora b1"]
    assert before["baseline b1"] == after["baseline b1"]
