"""CLIP similarity with a tiny CLIP made from a seed: the numbers mean nothing, the path is the real one."""

import csv
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from PIL import Image

from sweep.analysis.clip_worker import similarities
from tests.engines.conftest import answers

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def make(pipe: Connection, folder: str) -> None:
    """Build a checkpoint in `folder`, in a separate process; sends its path."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=16, **SHAPE)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    pipe.send(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (folder,) = answers(1, make, str(tmp_path_factory.mktemp("clip")))
    return Path(folder)


def test_similarity_is_a_column_of_cells_that_differ_and_1_where_images_are_identical(sweep, clip, tmp_path) -> None:
    small = (
        "model=tiny_qwen_image",
        "workload.num_prompts=2",
        "workload.repeats=1",
        "workload.steps=4",
        "aa=0",
        "interleave=false",
        "plots=false",
    )
    done = sweep("-m", "feature=teacache,vae_slicing", f"clip={clip}", *small, "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    with (tmp_path / "sweep" / "summary.csv").open() as handle:
        rows = {row["features"]: row for row in csv.DictReader(handle)}
    assert rows["vae_slicing"]["clip_similarity"] == "1.0"
    assert 0.5 < float(rows["teacache"]["clip_similarity"]) < 1


def test_a_folder_without_a_checkpoint_is_refused_before_anything_runs(sweep, tmp_path: Path) -> None:
    done = sweep("-m", "feature=teacache", f"clip={tmp_path}", "hydra.sweep.dir=sweep")
    assert done.code == 2
    assert f"clip={tmp_path}:" in done.err
    assert not (tmp_path / "sweep").exists()


def embed(pipe: Connection, checkpoint: str, pairs: list[tuple[str, str]]) -> None:
    """Send the cosines from a separate process, as the worker does."""
    pipe.send(similarities(Path(checkpoint), pairs))


def test_the_same_image_twice_is_1(clip: Path, tmp_path: Path) -> None:
    Image.effect_noise((70, 48), 80).save(tmp_path / "a.png")
    Image.effect_noise((70, 48), 20).save(tmp_path / "b.png")
    a, b = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    ((same, other),) = answers(1, embed, str(clip), [(a, a), (a, b)])
    assert same == pytest.approx(1, abs=1e-6)
    assert other < same
