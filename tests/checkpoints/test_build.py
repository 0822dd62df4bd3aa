"""Building: atomic, repeatable, refusing with reasons; sizes are the real models'."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from sweep.checkpoints import build as builder
from sweep.checkpoints import shards
from sweep.checkpoints.__main__ import main
from sweep.checkpoints.build import build, layout_of
from sweep.checkpoints.recipe import FAMILIES, CheckpointError, resolve
from sweep.config.run import CONF
from sweep.engines.diffusers.tiny_models.checkpoints import TRAINED
from tests.checkpoints.conftest import MODELS
from tests.conftest import Finished

QUIET = {"say": lambda line: None, "device": "cpu"}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def count(model: str, folder: str) -> float:
    """Billions of parameters of one part at the real depth and widths."""
    layout = layout_of(resolve(model, FAMILIES[model].real_layers))
    return next(part.parameters for part in layout.parts if part.folder == folder) / 1e9


@pytest.mark.parametrize("model", MODELS)
def test_at_full_depth_the_dit_has_the_published_size(model: str) -> None:
    published = yaml.safe_load((CONF / "model" / f"{model}.yaml").read_text())["dit"]["params_b"]
    assert count(model, "transformer") == pytest.approx(published, abs=0.006)


def test_at_full_depth_the_ar_model_has_the_published_size() -> None:
    published = yaml.safe_load((CONF / "model" / "glm_image.yaml").read_text())["ar"]["params_b"]
    vision_tower, vq_and_rest = 1.16, 0.02
    assert count("glm_image", "vision_language_encoder") == pytest.approx(
        published + vision_tower + vq_and_rest, abs=0.05
    )


@pytest.mark.parametrize("model", ["qwen_image", "z_image"])
def test_names_and_shapes_are_those_of_the_library_s_default_model(model: str) -> None:
    import torch
    from diffusers import QwenImageTransformer2DModel, ZImageTransformer2DModel

    with torch.device("meta"):
        real = {"qwen_image": QwenImageTransformer2DModel, "z_image": ZImageTransformer2DModel}[model]()
    layout = layout_of(resolve(model, FAMILIES[model].real_layers))
    part = next(part for part in layout.parts if part.folder == "transformer")
    assert part.shapes == {name: tuple(tensor.shape) for name, tensor in real.state_dict().items()}


def test_same_recipe_same_files_other_seed_other_weights(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    first = files(tiny("z_image"))
    build(resolve("z_image", {}, tiny=True), tmp_path / "again", **QUIET)
    assert files(tmp_path / "again") == first
    build(resolve("z_image", {}, tiny=True, seed=1), tmp_path / "other", **QUIET)
    other = files(tmp_path / "other")
    assert set(other) == set(first)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert other[weights] != first[weights]


def test_an_existing_folder_is_kept_when_equal_and_refused_when_not(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tiny("z_image")
    before = files(folder)
    assert not build(resolve("z_image", {}, tiny=True), folder, **QUIET)
    with pytest.raises(CheckpointError, match=r"seed=0\b.*--out"):
        build(resolve("z_image", {}, tiny=True, seed=2), folder, **QUIET)
    assert files(folder) == before
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"/trained\b.*--out"):
        build(resolve("z_image", {}, tiny=True), tmp_path / "trained", **QUIET)
    with pytest.raises(CheckpointError, match=r"model_index\.json\b.*--out"):
        build(resolve("z_image", {}, tiny=True), tmp_path / "trained" / "model_index.json", **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]


@pytest.mark.parametrize("cut", [True, False], ids=["cut short", "missing"])
def test_a_checkpoint_whose_weights_were_damaged_is_built_again(
    cut: bool, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "z_image"
    shutil.copytree(tiny("z_image"), folder)
    whole = files(folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000]) if cut else weights.unlink()
    said: list[str] = []
    assert build(resolve("z_image", {}, tiny=True), folder, say=said.append, device="cpu")
    assert weights.name in said[0]
    assert files(folder) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["z_image"]


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=7_000_000_000))
    with pytest.raises(CheckpointError, match=r"1[5-9]\.\d GB.* 7\.0 GB.*--out"):
        build(resolve("qwen_image", {}), tmp_path / "model", **QUIET)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_build_that_breaks_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path, *rest: object, **more: object) -> None:
        folder.mkdir(parents=True)
        (folder / "half").write_text("written")
        raise error

    monkeypatch.setattr(shards, "write", broken)
    expected = CheckpointError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if expected is CheckpointError else None):
        build(resolve("z_image", {}, tiny=True), tmp_path / "model", **QUIET)
    assert list(tmp_path.iterdir()) == []


def test_two_builders_at_once_end_with_one_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, write = resolve("z_image", {}, tiny=True), builder.write

    def overtaken(*arguments: object) -> None:
        monkeypatch.setattr(builder, "write", write)
        build(recipe, tmp_path / "model", **QUIET)
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builder, "write", overtaken)
    assert build(recipe, tmp_path / "model", **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_depths_are_checked() -> None:
    assert resolve("glm_image", {"ar": 8, "dit": None}).layers == {"ar": 8, "dit": 6, "vision": 2}
    for model, depths, reason in [
        ("qwen_image", {"ar": 4}, "--ar-layers: qwen_image .*--dit-layers"),
        ("qwen_image", {"dit": 61}, "--dit-layers 61: .* 1 to 60"),
        ("qwen_image", {"dit": 0}, "--dit-layers 0: .* 1 to 60"),
        ("z_image", {"text": 1}, "--text-layers 1: .* 2 to 36"),
    ]:
        with pytest.raises(CheckpointError, match=reason):
            resolve(model, depths)
    with pytest.raises(CheckpointError, match="--seed -1"):
        resolve("z_image", {}, seed=-1)


def test_names_tell_what_differs() -> None:
    names = {
        "qwen_image-20-layers-random": resolve("qwen_image", {}),
        "qwen_image-4-layers-seed3-random": resolve("qwen_image", {"dit": 4}, seed=3),
        "qwen_image-20-dit-28-text-layers-random": resolve("qwen_image", {"text": 28}),
        "glm_image-4-ar-6-dit-layers-random": resolve("glm_image", {}),
        "z_image-tiny-2-layers-random": resolve("z_image", {}, tiny=True),
    }
    assert {recipe.name for recipe in names.values()} == set(names)
    assert all(recipe.name == name for name, recipe in names.items())


def test_only_what_vllm_omni_would_build_is_said_to_load_there() -> None:
    assert resolve("z_image", {}).loads_in_vllm_omni
    assert not resolve("z_image", {"dit": 29}).loads_in_vllm_omni
    assert not resolve("z_image", {}, tiny=True).loads_in_vllm_omni
    assert resolve("qwen_image", {"dit": 3}, tiny=True).loads_in_vllm_omni


def test_command_line_builds_says_how_to_use_it_and_does_it_once(
    sweep: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "qwen_image-tiny-1-layers-random"
    done = sweep("qwen_image", "--tiny", "--layers", "1", module="sweep.checkpoints")
    assert done.code == 0, done.err
    assert "parameters: text_encoder 0.001 B, transformer 0.001 B, vae 0.001 B" in done.out
    command = f"python -m sweep engine=vllm_omni model=qwen_image model.path={folder} workload=image_1024"
    assert done.out.splitlines()[-1] == command
    assert json.loads((folder / "transformer" / "config.json").read_text())["num_layers"] == 1
    again = sweep("qwen_image", "--tiny", "--layers", "1", module="sweep.checkpoints")
    assert again.code == 0
    assert not [line for line in again.out.splitlines() if line.startswith("  ")], "no file was written"
    refused = sweep("qwen_image", "--ar-layers", "1", module="sweep.checkpoints")
    assert (refused.code, refused.out) == (2, "")
    assert all(fact in refused.err for fact in ("--ar-layers", "qwen_image", "--dit-layers"))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_the_trained_model_is_copied_for_vllm_omni(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is unchanged, except what vLLM asks its processor at start."""
    folder = tmp_path / "mine"
    assert main(["world", "--out", str(folder)]) == 0
    assert f"engine=vllm_omni model=glm_image model.path={folder} model.weights=world_2" in capsys.readouterr().out
    source = TRAINED["tiny_glm_image"]
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".md"}
    other = {name for name in files if (folder / name).read_bytes() != (source / name).read_bytes()}
    assert other == {Path("processor/preprocessor_config.json")}
    assert main(["world", "--out", str(folder)]) == 2
    assert "is already there" in capsys.readouterr().err
