"""Tensor parallelism: two ranks, half of every sharded layer each, the same image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sweep.engines.diffusers.features.tensor_parallel import apply
from tests.engines.conftest import make_request, open_engine, pixels
from tests.engines.parallel_doubles import MeshOf, tiny_qwen_dit


def sharded_parameters() -> int:
    """Parameters of tiny Qwen-Image's DiT that its plan splits; output biases of row-wise layers stay whole."""
    transformer = tiny_qwen_dit().transformer
    patterns = {name.rsplit("*.", 1)[1]: style for name, style in transformer._tp_plan.items()}
    total = 0
    for name, parameter in transformer.named_parameters():
        for layer, style in patterns.items():
            if name.endswith(f"{layer}.weight") or (style == "colwise" and name.endswith(f"{layer}.bias")):
                total += parameter.numel()
    return total


def test_each_rank_holds_half_of_the_sharded_layers_and_the_image_stays(baseline: Callable, tmp_path: Path) -> None:
    batch = [make_request(steps=2), make_request("two cats on a very long mat", 1, seed=2, steps=2)]
    plain, plain_pixels = baseline("tiny_qwen_image", *batch)
    with open_engine("tiny_qwen_image", ranks=2, tp={"degree": 2}) as engine:
        output = engine.generate(batch, tmp_path)
    whole, sharded = plain.evidence[0].dit_parameters, sharded_parameters()
    assert sharded > whole / 2  # most of the model; modulation, norms and embeddings are not in the plan
    assert [evidence.dit_parameters for evidence in output.evidence] == [whole - sharded // 2] * 2
    assert np.abs(pixels(output, tmp_path) - plain_pixels).mean() < 1e-3


def test_model_without_a_plan_is_refused() -> None:
    with (
        pytest.raises(Exception, match=r"GlmImageTransformer2DModel .*_tp_plan"),
        open_engine("tiny_glm_image_random", ranks=2, tp={"degree": 2}),
    ):
        pass


@pytest.mark.parametrize(
    ("degree", "mesh_degree", "message"),
    [(3, 3, r"degree 3 .*\b4 attention heads"), (4, 2, r"degree 4 .*\b2$")],
)
def test_degree_must_fit_model_and_mesh(degree: int, mesh_degree: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply(tiny_qwen_dit(), MeshOf(tp=mesh_degree), {"degree": degree})
