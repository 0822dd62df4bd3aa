"""What is counted from shapes is what torch counts in the networks of diffusers and transformers themselves."""

import dataclasses

import pytest
import torch

from sweep.asked import asked
from sweep.predict import decoder, dit, memory, shapes, vae, vision
from sweep.predict.point import point_of
from tests.predict import networks

CLOSE = 0.02
EXACT = 0.0005


def same(counted: float, by_torch: float, within: float = EXACT) -> None:
    assert counted == pytest.approx(by_torch, rel=within), f"{counted / by_torch - 1:+.3%}"


@pytest.mark.parametrize(
    ("model", "layers", "side", "text", "batch"),
    [
        ("qwen_image", 6, 64, 40, 1),
        ("qwen_image", 6, 128, 120, 2),
        ("glm_image", 30, 64, 20, 1),
        ("flux", 57, 64, 512, 1),
        ("flux2_klein", 5, 64, 512, 1),
        ("z_image", 30, 64, 40, 1),
        ("tiny_qwen_image", 8, 4, 9, 1),
        ("tiny_glm_image", 20, 4, 8, 2),
    ],
)
def test_operations_of_a_dit_forward(model: str, layers: int, side: int, text: int, batch: int) -> None:
    """At the published depth, but for Qwen-Image and FLUX.2-klein, whose blocks are alike and take PyTorch seconds."""
    shape = shapes.at_depth(shapes.named(model), {"dit": layers}).dit
    assert shape is not None
    assert shape.layers == layers
    _, call = networks.dit(model, layers)
    counted = dit.of(shape, 2, side * side, text, batch).whole.operations
    same(counted, networks.operations(lambda: call(side, text, batch)))


@pytest.mark.parametrize("batch", [1, 2])
def test_operations_of_a_dit_forward_of_an_edit(batch: int) -> None:
    """The picture to edit has its own proportions; text and image tokens are those that a prediction starts from."""
    work = "workload=image_edit_1024", "workload.prompt_tokens=40", f"batch={batch}"
    (one,) = asked(("engine=diffusers", "model=qwen_image_edit", *work))
    point = point_of(one.run)
    point = dataclasses.replace(point, source=(networks.SOURCE[2] * 16, networks.SOURCE[1] * 16))
    assert point.image_tokens == 64 * 64 + 48 * 86
    assert point.text_tokens == 40 + 37 * 37 + 2
    shape = shapes.at_depth(point.model, {"dit": 2}).dit
    assert shape is not None
    _, call = networks.dit("qwen_image_edit", 2)
    counted = dit.of(shape, 2, point.image_tokens, point.text_tokens, batch).whole.operations
    same(counted, networks.operations(lambda: call(64, point.text_tokens, batch)))


@pytest.mark.parametrize("model", ["qwen_image", "glm_image", "flux", "flux2_klein", "z_image"])
def test_parameters_of_a_dit(model: str) -> None:
    shape = shapes.named(model).dit
    assert shape is not None
    network, _ = networks.dit(model, shape.layers)
    there = sum(values.numel() for values in network.parameters())
    same(dit.parameters(shape, 2), there, 0.001)
    same(shape.params_b * 1e9, there, 0.001)


@pytest.mark.parametrize(
    ("model", "side", "batch"), [(name, 1024, 1) for name in networks.VAES] + [("z_image", 128, 2)]
)
def test_operations_of_a_vae_decode(model: str, side: int, batch: int) -> None:
    shape = shapes.named(model).vae
    assert shape is not None
    network, call = networks.vae(model)
    same(vae.of(shape, side, side, 8, batch).operations, networks.operations(lambda: call(side, batch)))
    if shape.params_b:
        same(shape.params_b * 1e9, sum(values.numel() for values in network.parameters()), 0.01)


@pytest.mark.parametrize(("model", "width", "height"), [("qwen_image", 1376, 768), ("glm_image", 1024, 1024)])
def test_operations_of_a_vae_encode(model: str, width: int, height: int) -> None:
    shape = shapes.named(model).vae
    assert shape is not None
    network, _ = networks.vae(model)
    by_torch = networks.operations(lambda: networks.encode(network, width, height))
    same(vae.encoded(shape, width, height, 8).operations, by_torch)


@pytest.mark.parametrize(("width", "height"), [(420, 308), (224, 224)])
def test_operations_of_a_vision_tower(width: int, height: int) -> None:
    """One size that windows cover exactly, and one that leaves smaller ones at two sides."""
    shape, call = networks.vision(3, 48)
    by_torch = networks.operations(lambda: call(height // 28, width // 28))
    same(vision.of(shape, 48, width, height).operations, by_torch)


@pytest.mark.parametrize(
    ("given", "scaled"), [((1024, 1024), (1024, 1024)), ((512, 512), (1024, 1024)), ((1376, 768), (1376, 768))]
)
def test_a_picture_to_edit_is_scaled_as_the_pipeline_does(given: tuple[int, int], scaled: tuple[int, int]) -> None:
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions

    found = vision.scaled(shapes.named("qwen_image_edit"), *given)
    assert found == scaled == calculate_dimensions(1024 * 1024, given[0] / given[1])[:2]


@pytest.mark.parametrize("model", ["glm_image", "tiny_glm_image"])
@pytest.mark.parametrize(("tokens", "batch"), [(100, 1), (2000, 2)])
def test_operations_of_ar_prefill_and_decode(model: str, tokens: int, batch: int) -> None:
    """GLM-Image's 40 layers are alike: of 4 and of 40 the head is what differs in share."""
    layers = 40 if tokens == 100 and model == "glm_image" else 4
    stack = shapes.at_depth(shapes.named(model), {"ar": layers}).ar
    assert stack is not None
    read, decode = networks.ar(model, layers)
    same(decoder.of(stack, tokens, batch=batch).operations, networks.operations(lambda: read(tokens, batch)))
    same(decoder.of(stack, 1, tokens, batch).operations, networks.operations(decode(tokens, batch)))


@pytest.mark.parametrize(
    ("model", "tokens"), [("glm_image", 60), ("flux", 512), ("z_image", 100), ("qwen_image_edit", 64 + 12 + 1371)]
)
def test_operations_of_a_text_encoder(model: str, tokens: int) -> None:
    stack = shapes.named(model).text_encoder
    assert stack is not None
    call = networks.text_encoder(model)
    same(decoder.of(stack, tokens).operations, networks.operations(lambda: call(tokens)))


def test_all_tokens_of_an_ar_stage_are_as_many_decodes() -> None:
    stack = shapes.named("glm_image").ar
    assert stack is not None
    one_by_one = sum(decoder.of(stack, 1, 100 + written).operations for written in range(1, 1281))
    same(decoder.written(stack, 100, 1281).operations, one_by_one)


@pytest.mark.parametrize("model", ["qwen_image", "glm_image", "flux", "z_image"])
def test_values_alive_in_a_dit_forward(model: str) -> None:
    network, call = networks.dit(model, 3, torch.bfloat16)
    shape = shapes.named(model).dit
    assert shape is not None
    with networks.attention_not_materialised():
        alive = networks.most_alive(network, lambda: call(64, 40, 1))
    counted = memory.ALIVE_IN_A_BLOCK * (4096 + 40) * shape.hidden * 2
    same(counted, alive, 0.10)


@pytest.mark.parametrize("model", ["qwen_image", "glm_image", "z_image", "tiny_qwen_image", "tiny_glm_image"])
def test_values_alive_in_a_vae_decode(model: str) -> None:
    network, call = networks.vae(model, torch.bfloat16)
    shape = shapes.named(model).vae
    assert shape is not None
    with networks.attention_not_materialised():
        alive = networks.most_alive(network, lambda: call(512, 1))
    same(memory.alive_in_a_decode(shape, 512 * 512, 8) * 2, alive, CLOSE)


@pytest.mark.parametrize("model", ["qwen_image", "glm_image"])
def test_values_alive_in_a_vae_encode(model: str) -> None:
    network, _ = networks.vae(model, torch.bfloat16)
    shape = shapes.named(model).vae
    assert shape is not None
    with networks.attention_not_materialised():
        alive = networks.most_alive(network, lambda: networks.encode(network, 512, 512, torch.bfloat16))
    same(memory.alive_in_an_encode(shape, 512 * 512) * 2, alive, CLOSE)
