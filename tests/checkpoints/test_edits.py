"""The control group of Qwen-Image-Edit: the native pipeline of diffusers, through the real command line.

Every picture to edit is scaled to about 1024² pixels, which a CPU encodes in ten seconds; here it is 128².
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.engines.conftest import make_request, make_spec
from tests.faults.conftest import Sweep, sweep

if TYPE_CHECKING:
    from sweep.engines.diffusers.engine import DiffusersEngine

__all__ = ["sweep"]  # a fixture

SMALLER = """
whole = calculate_dimensions

def calculate_dimensions(area, ratio):
    return whole(area / 64, ratio)
"""
MODULE = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit"


@pytest.fixture
def edits(sweep: Sweep, tiny: Callable[[str], Path]) -> Callable[..., None]:
    sweep.inject(MODULE, SMALLER)
    path = tiny("qwen_image_edit")

    def run(*arguments: str) -> None:
        work = ("workload=image_edit", "workload.steps=2", "workload.repeats=1", "workload.num_prompts=2")
        own = (
            "engine.device=cpu",
            "engine.warmup=0",
            "model=qwen_image_edit",
            f"model.path={path}",
            "plots=false",
            "aa=0",
        )
        done = sweep.run("-m", *own, *work, *arguments)
        assert done.code == 0, done.out + done.err

    return run


def noise(path: Path) -> str:
    Image.effect_noise((64, 64), 50).save(path)
    return str(path)


def pictures(sweep: Sweep, label: str) -> list[np.ndarray]:
    found = sorted((sweep.cell_path(label) / "images").glob("*.png"))
    return [np.asarray(Image.open(path), dtype=float) / 255 for path in found]


def test_native_edits_alone_and_in_a_batch(sweep: Sweep, edits: Callable[..., None]) -> None:
    """A batch is one call with a picture and a prompt each, and gives what the pipeline gives one by one."""
    edits("batch=1,2", "workload.width=96", "workload.height=64")
    alone, together = (pictures(sweep, f"baseline b{batch}") for batch in (1, 2))
    assert [picture.shape for picture in alone] == [(64, 96, 3)] * 2
    assert np.abs(alone[0] - alone[1]).mean() > 0.01
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() < 1.5 / 255, "rounding"
    result = json.loads((sweep.cell_path("baseline b2") / "result.json").read_text())
    (batch,) = result["batches"]
    assert batch["evidence"][0]["settings"]["pipeline"] == "QwenImageEditPipeline"
    assert batch["evidence"][0]["dit_forwards"] == 4, "two steps, two branches, both pictures at once"
    own, source = (96 // 16) * (64 // 16), 10 * 6  # 160×96 pixels have about 128² at 3:2
    assert batch["evidence"][0]["block_sequence"] == own + source
    assert batch["phase_count"] == {
        **{"request": 1, "text_encode": 2, "image_encode": 2, "denoise_step": 2, "dit_forward": 4, "vae_decode": 1}
    }


@contextmanager
def loaded(checkpoint: Path) -> Iterator["DiffusersEngine"]:
    from sweep.engines.diffusers.engine import DiffusersEngine

    engine = DiffusersEngine(replace(make_spec("qwen_image_edit"), checkpoint=str(checkpoint), embedded=False))
    engine.load()
    yield engine
    engine.close()


def test_a_native_edit_is_what_the_pipeline_makes_and_reads_all_of_a_long_prompt(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine always passes a list; the pipeline would not scale a single picture for its text encoder."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as module

    whole = module.calculate_dimensions
    monkeypatch.setattr(module, "calculate_dimensions", lambda area, ratio: whole(area / 64, ratio))
    picture = noise(tmp_path / "picture.png")
    made = []
    with loaded(tiny("qwen_image_edit")) as engine:
        runner = engine._runner
        assert runner is not None
        for tokens in (1024, 2560):
            request = make_request(steps=2, prompt_tokens=tokens, input_image=picture)
            made.append(engine.generate([request], None))
            arguments = runner.adapter.shared_arguments([request], [runner.adapter.fit_prompt(request)])
            (alone,) = runner.pipe(**{**arguments, "image": arguments["image"][0]}).images
            assert made[-1].image_hashes == (hashlib.sha256(alone.tobytes()).hexdigest(),)
    assert [one.prompt_tokens for one in made] == [(1024,), (2560,)]
    assert len({one.image_hashes for one in made}) == 2
    assert ["prompts_cut" in one.evidence[0].counts for one in made] == [False, False]


def test_the_pipeline_since_2509_takes_several_pictures_for_one_prompt(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    monkeypatch.setattr(module, "VAE_IMAGE_SIZE", 128 * 128)
    monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", 64 * 64)
    folder = shutil.copytree(tiny("qwen_image_edit"), tmp_path / "plus")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "QwenImageEditPlusPipeline"}))
    one, two = noise(tmp_path / "one.png"), noise(tmp_path / "two.png")
    request = make_request(steps=2, input_image=one)
    with loaded(folder) as engine:
        alone, both = (
            engine.generate([replace(request, further_images=further)], None).evidence[0].block_sequence
            for further in ((), (two,))
        )
        with pytest.raises(ValueError, match="batch=1"):
            engine.generate([request, request], None)
    assert (alone, both) == (4 * 4 + 8 * 8, 4 * 4 + 2 * 8 * 8)
