"""BAGEL: a prompt that the DiT does not compute again, three branches in most steps, and a KV cache between stages."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sweep.asked import asked
from sweep.checkpoints.build import build
from sweep.checkpoints.recipe import resolve
from sweep.predict import decoder, dit, shapes, stages
from sweep.predict_cells import predictions

BAGEL = ("model=bagel", "engine=vllm_omni", "workload=image_1024", "hardware=h200")
TOKENS = 64 * 64


def one(*overrides: str) -> Any:
    """The prediction of a single cell."""
    (row,) = predictions(asked((*BAGEL, *overrides)))
    return row.prediction


def test_the_dit_attends_to_the_prompt_and_computes_the_picture_alone() -> None:
    shape = shapes.named("bagel").dit
    assert shape is not None
    assert dit.parameters(shape, 2) / 1e9 == pytest.approx(6.54, abs=0.01)
    short, long = (dit.of(shape, 2, TOKENS, text).whole for text in (0, 1000))
    assert long.linear == short.linear
    assert long.attention / short.attention == pytest.approx((TOKENS + 1000) / TOKENS)
    computed = dataclasses.replace(shape, cached_text=False)
    assert dit.of(computed, 2, TOKENS, 1000).whole.linear > long.linear


def test_steps_have_three_branches_until_the_noise_is_low() -> None:
    branches = {text: one(text).point.branches for text in ("workload.steps=20", "workload.guidance_scale=1")}
    assert branches["workload.guidance_scale=1"] == 1
    assert branches["workload.steps=20"] == pytest.approx(1 + 2 * 17 / 20)  # (20 - n) / 20 shifted by 3 is over 0.4


def test_what_is_handed_over_grows_with_the_prompt() -> None:
    stack = shapes.named("bagel").ar
    assert stack is not None
    assert decoder.cache_values(stack) == 28 * 2 * 4 * 128
    sent = {
        tokens: next(phase for phase in stages.of(one(f"workload.prompt_tokens={tokens}").point)
                     if phase.name == stages.STAGE_TRANSFER).exchanges[0].sent
        for tokens in (98, 998)
    }  # fmt: skip
    assert sent[998] / sent[98] == pytest.approx(10)
    assert sent[98] == 2 * 100 * decoder.cache_values(stack) * 2, "out of the device and back, in bf16"


def test_both_stages_hold_the_whole_stack() -> None:
    memory = dict(one().memory.parts)
    assert (memory["dit_weights"] + memory["ar_weights"]) / 1e9 == pytest.approx(28.3, abs=0.1)
    assert memory["ar_reserved"] / 1e9 == pytest.approx(0.45 * 150, abs=1)


def test_shapes_of_a_checkpoint_are_read_from_its_one_stack(tmp_path: Path) -> None:
    folder = tmp_path / "bagel"
    build(resolve("bagel", {"dit": 1}, tiny=True), folder, say=lambda line: None, device="cpu")
    found = shapes.of_checkpoint(shapes.named("bagel"), folder)
    assert found.dit is not None
    assert found.ar is not None
    assert (found.dit.layers, found.dit.hidden, found.dit.kv_heads) == (1, 64, 1)
    assert (found.ar.layers, found.ar.vocab) == (1, 4096)
