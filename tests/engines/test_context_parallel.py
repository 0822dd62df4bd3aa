"""Ulysses and ring: two ranks, half the image tokens each, the same image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sweep.engines.diffusers.features.context_parallel import apply, carry_mask, cpu_flash_forward, split_evenly
from tests.engines.conftest import make_request, open_engine, pixels
from tests.engines.parallel_doubles import MeshOf, tiny_qwen_dit

TOLERANCE = 1e-3  # mean absolute difference in [0, 1]; measured 1e-7 before rounding to 8 bits


@pytest.mark.parametrize("feature", ["ulysses", "ring"])
def test_each_rank_sees_half_of_the_image_and_the_image_stays(
    feature: str, baseline: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a build of torch for CUDA on a machine without a GPU, where torch.accelerator names a device that
    nothing can be put on."""
    cases = {  # batch, image tokens of each rank
        "square": ([make_request(steps=2)], [8, 8]),
        "odd": ([make_request(height=80, width=48, steps=2)], [8, 7]),  # 5 x 3 patches
        "mixed": (  # needs a mask
            [make_request(steps=2), make_request("two cats on a very long mat", 1, seed=2, steps=2)],
            [8, 8],
        ),
        "empty": ([make_request("", steps=2)], [8, 8]),  # one text token for two ranks
    }
    for batch, _ in cases.values():  # an engine leaves the process group when it closes: baselines come first
        baseline("tiny_qwen_image", *batch)
    features: dict[str, dict[str, object]] = {feature: {"degree": 2}}
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with open_engine("tiny_qwen_image", ranks=2, **features) as engine:
        for name, (batch, tokens) in cases.items():
            output = engine.generate(batch, tmp_path / name)
            plain, plain_pixels = baseline("tiny_qwen_image", *batch)
            assert [evidence.block_sequence for evidence in output.evidence] == tokens, name
            assert plain.evidence[0].block_sequence == sum(tokens)
            assert [e.blocks_run for e in output.evidence] == [plain.evidence[0].blocks_run] * 2
            assert np.abs(pixels(output, tmp_path / name) - plain_pixels).mean() < TOLERANCE, name


def test_model_without_a_plan_is_refused() -> None:
    with (
        pytest.raises(Exception, match=r"GlmImageTransformer2DModel .*_cp_plan"),
        open_engine("tiny_glm_image_random", ranks=2, ulysses={"degree": 2}),
    ):
        pass


@pytest.mark.parametrize(
    ("degree", "mesh_degree", "message"),
    [(3, 3, r"degree 3 .*\b4 attention heads"), (4, 2, r"degree 4 .*ulysses 2")],
)
def test_degree_must_fit_model_and_mesh(degree: int, mesh_degree: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply(tiny_qwen_dit(), MeshOf(ulysses=mesh_degree), {"degree": degree})


def dit_inputs(image_tokens: int, text_tokens: int, masked: bool) -> dict[str, torch.Tensor | None]:
    """Inputs of a DiT forward for a batch of two."""
    mask = torch.ones(2, text_tokens, dtype=torch.long)
    mask[1, text_tokens // 2 :] = 0
    return {
        "hidden_states": torch.zeros(2, image_tokens, 4),
        "encoder_hidden_states": torch.ones(2, text_tokens, 4),
        "encoder_hidden_states_mask": mask if masked else None,
    }


def test_text_is_padded_only_where_ranks_need_it() -> None:
    assert split_evenly(dit_inputs(16, 7, masked=False), 1, 2)["encoder_hidden_states"].shape[1] == 7
    padded = split_evenly(dit_inputs(16, 7, masked=True), 1, 4)
    assert padded["encoder_hidden_states"].shape[1] == 8
    assert padded["encoder_hidden_states_mask"].sum(dim=1).tolist() == [7, 3]  # padding is not attended to
    both = split_evenly(dit_inputs(16, 7, masked=False), 2, 2)
    assert both["encoder_hidden_states_mask"].sum(dim=1).tolist() == [7, 7]
    assert both["encoder_hidden_states"].shape[1] == 8


@pytest.mark.parametrize(
    ("image_tokens", "masked", "ring", "ulysses"), [(15, True, 1, 4), (15, False, 2, 2), (2, False, 1, 4)]
)
def test_image_that_cannot_be_shared_is_refused(image_tokens: int, masked: bool, ring: int, ulysses: int) -> None:
    with pytest.raises(ValueError, match=rf"\b{image_tokens} image tokens .*\b4 ranks"):
        split_evenly(dit_inputs(image_tokens, 8, masked), ring, ulysses)


def test_mask_in_extra_channels_equals_a_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 6, 3, 16, generator=generator) for _ in range(3))
    mask = torch.tensor([[True] * 6, [True, False, True, True, False, False]])[:, None, None, :]
    extended = carry_mask(query, key, value, mask)
    output, log_sum_exp = cpu_flash_forward(None, *extended, None, 0.0, False, 16**-0.5, False, True)
    by_head = [x.transpose(1, 2) for x in (query, key, value)]
    scores = (by_head[0] @ by_head[1].transpose(-1, -2) / 4).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(output[..., :16], (scores.softmax(-1) @ by_head[2]).transpose(1, 2))
    torch.testing.assert_close(log_sum_exp, scores.logsumexp(-1).transpose(1, 2))
