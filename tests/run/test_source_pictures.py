"""The picture that edits start from: the world's example, of any size, which the shipped instructions are about."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweep.checkpoints.world import edit_checks, edits
from sweep.run import source_pictures
from sweep.workload.prompts import shipped_prompts


def test_it_depends_on_the_seed_alone(tmp_path: Path) -> None:
    def pixels(name: str, seed: int) -> np.ndarray:
        with Image.open(source_pictures.make(tmp_path / "deep" / name, seed, (64, 32))) as image:
            assert image.format == "PNG"
            assert image.mode == "RGB"
            return np.asarray(image)

    first = pixels("a.png", 3)
    assert first.shape == (32, 64, 3)
    assert np.array_equal(first, pixels("b.png", 3))
    assert not np.array_equal(first, pixels("c.png", 4))
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("size", [(1, 1), (100, 36), (1024, 1024)])
def test_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    with Image.open(source_pictures.make(tmp_path / "dot.png", 0, size)) as image:
        assert image.size == size


@pytest.mark.parametrize("side", [64, 256])
def test_it_shows_what_the_instructions_are_about(tmp_path: Path, side: int) -> None:
    with Image.open(source_pictures.make(tmp_path / "a.png", 5, (side, side))) as image:
        assert edit_checks.read_scene(np.asarray(image, dtype=np.float32) / 255) == edits.EXAMPLE
    instructions = shipped_prompts("world_edits")
    asked = [edits.read(one, edits.EXAMPLE) for one in instructions]
    assert all(asked), instructions
    assert {edit.kind for edit in asked[:4] if edit} == {"recolour", "rewrite", "move", "remove"}, "in a short sweep"
