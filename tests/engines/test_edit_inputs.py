"""What engines are given to edit: several pictures, a mask, pictures of another size than the result."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from sweep.config.engine import EngineConfig
from sweep.config.model import Model
from sweep.config.run import RunConfig
from sweep.config.workload import Workload
from sweep.engines import registry
from sweep.engines.diffusers.engine import check_batch
from sweep.engines.images import read_inputs, read_mask
from sweep.engines.protocol import EngineSpec, Request
from sweep.engines.vllm_omni import stages
from sweep.predict import shapes
from sweep.predict.point import point_of

SPEC = EngineSpec("vllm_omni", "flux2_klein", "flux2_klein", "", False, "cuda", "bfloat16", 1, 1)


@pytest.fixture
def request_of_two(tmp_path: Path) -> Request:
    paths = [tmp_path / name for name in ("a.png", "b.png", "mask.png")]
    for path, colour in zip(paths, ("red", "blue", "white"), strict=True):
        Image.new("RGB", (48, 32), colour).save(path)
    first, second, mask = map(str, paths)
    plain = Request("r000", "join them", 0, 1, 64, 128, 4, 1.0)
    return dataclasses.replace(plain, input_image=first, further_images=(second,), mask=mask)


def test_pictures_and_mask_are_resized_to_the_result_or_to_the_input_size(request_of_two: Request) -> None:
    assert [image.size for image in read_inputs(request_of_two)] == [(128, 64)] * 2
    other = dataclasses.replace(request_of_two, input_size=(32, 96))
    assert [image.size for image in read_inputs(other)] == [(32, 96)] * 2
    mask = read_mask(other)
    assert mask is not None
    assert (mask.mode, mask.size) == ("L", (32, 96))
    assert read_mask(dataclasses.replace(other, mask=None)) is None


def test_vllm_omni_gets_one_picture_or_a_list_and_the_mask_by_its_name(request_of_two: Request, tmp_path: Path) -> None:
    """As pipelines of vLLM-Omni 0.26 read `multi_modal_data`."""
    form = stages.describe(SPEC, tmp_path)
    both = form.prompt(request_of_two)["multi_modal_data"]
    assert [image.getpixel((0, 0)) for image in both["image"]] == [(255, 0, 0), (0, 0, 255)]
    assert both["mask_image"].getpixel((0, 0)) == 255
    one = dataclasses.replace(request_of_two, further_images=(), mask=None)
    assert form.prompt(one)["multi_modal_data"].keys() == {"image"}
    assert form.prompt(one)["multi_modal_data"]["image"].size == (128, 64)


def test_a_batch_has_edits_of_one_shape(request_of_two: Request) -> None:
    check_batch([request_of_two, request_of_two])
    for change in ({"further_images": ()}, {"mask": None}, {"input_size": (32, 32)}):
        with pytest.raises(ValueError, match="number of pictures"):
            check_batch([request_of_two, dataclasses.replace(request_of_two, **change)])


@pytest.mark.parametrize(
    ("family", "pipeline", "most", "mask"),
    [
        ("qwen_image_edit", "QwenImageEditPipeline", 1, False),
        ("qwen_image_edit", "QwenImageEditPlusPipeline", 4, False),
        ("flux2_klein", "Flux2KleinPipeline", None, True),
        ("longcat_image", "", 1, False),
    ],
)
def test_what_engines_take_follows_from_family_and_checkpoint(
    family: str, pipeline: str, most: int | None, mask: bool, tmp_path: Path
) -> None:
    if pipeline:
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    model = Model(name=family, family=family, tasks=["image_edit"], path=str(tmp_path))
    run = RunConfig(engine=EngineConfig(name="vllm_omni"), model=model, workload=Workload(task="image_edit"))
    assert registry.kind("vllm_omni").edit_inputs(run) == registry.EditInputs(most, mask)
    several = pipeline == "QwenImageEditPlusPipeline"
    assert registry.kind("diffusers").edit_inputs(run) == registry.EditInputs(None if several else 1)


@pytest.mark.parametrize(
    ("model", "given", "tokens"),
    [
        ("qwen_image_edit", None, 64 * 64),
        ("qwen_image_edit", (256, 256), 64 * 64),
        ("qwen_image_edit", (1376, 768), 86 * 48),
        ("glm_image", (512, 256), 32 * 16),
        ("glm_image", None, 64 * 64),
    ],
)
def test_predictions_count_the_tokens_of_the_picture_to_edit(
    model: str, given: tuple[int, int] | None, tokens: int
) -> None:
    """Qwen-Image-Edit's pipelines bring every picture to the area of 1024² (`calculate_dimensions`: 1376×768 stays)."""
    width, height = given or (None, None)
    work = Workload(task="image_edit", width=1024, height=1024, input_width=width, input_height=height)
    run = RunConfig(engine=EngineConfig(name="vllm_omni"), model=shapes.named(model), workload=work)
    assert point_of(run).image_tokens == 64 * 64 + tokens
