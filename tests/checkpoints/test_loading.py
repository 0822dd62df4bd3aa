"""What is built loads in diffusers and transformers without a missing or unexpected weight, and makes pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweep.checkpoints.measure import generate, load
from tests.checkpoints.conftest import MODELS

TEXT_ENCODERS = {
    "qwen_image": ("text_encoder", "Qwen2_5_VLForConditionalGeneration"),
    "qwen_image_edit": ("text_encoder", "Qwen2_5_VLForConditionalGeneration"),
    "z_image": ("text_encoder", "Qwen3ForCausalLM"),
    "glm_image": ("vision_language_encoder", "GlmImageForConditionalGeneration"),
    "flux": ("text_encoder_2", "T5EncoderModel"),
    "flux2_klein": ("text_encoder", "Qwen3ForCausalLM"),
}
PROMPTS = ("a red fox in the snow", "a bakery window at dawn with a sign that reads 'OPEN'")


@pytest.mark.parametrize("model", MODELS)
def test_every_weight_of_the_networks_is_there(model: str, tiny: Callable[[str], Path]) -> None:
    import diffusers
    import transformers

    folder = tiny(model)
    part, name = TEXT_ENCODERS[model]
    loaded: list[tuple[Any, dict[str, Any]]] = [
        getattr(transformers, name).from_pretrained(folder / part, output_loading_info=True)
    ]
    if model == "flux":
        loaded.append(transformers.CLIPTextModel.from_pretrained(folder / "text_encoder", output_loading_info=True))
    for part in ("transformer", "vae"):
        kind = getattr(diffusers, json.loads((folder / part / "config.json").read_text())["_class_name"])
        loaded.append(kind.from_pretrained(folder / part, output_loading_info=True))
    for network, info in loaded:
        assert {key: value for key, value in info.items() if value} == {}
        assert all(torch.isfinite(value).all() for value in network.parameters())


@pytest.mark.parametrize("model", [model for model in MODELS if model != "qwen_image_edit"])  # needs torchvision
def test_pictures_differ_with_the_prompt_and_are_no_flat_colour(model: str, tiny: Callable[[str], Path]) -> None:
    pipeline = load(tiny(model), "float32")
    first, second = (generate(pipeline, prompt, 64, 3) for prompt in PROMPTS)
    assert first.shape == (64, 64, 3)
    assert np.isfinite(first).all()
    assert first.std() > 0.05
    assert ((first == 0) | (first == 1)).mean() < 0.05
    assert np.abs(first - second).mean() > 0.005


@pytest.mark.parametrize("model", ["qwen_image", "qwen_image_edit", "z_image"])
def test_prompts_have_about_one_token_a_word(model: str, tiny: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    folders = ["tokenizer"] + (["processor"] if model == "qwen_image_edit" else [])
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(tiny(model) / folder)
        for text in (*PROMPTS, "一只橘猫 🦊\n<|im_start|>user"):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text
            assert len(ids) <= 2.5 * len(text.split()) + 8
            assert max(ids) < 4096
        assert tokenizer("<|im_start|>")["input_ids"] == [1]


def test_the_chat_template_of_z_image_opens_a_turn(tiny: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny("z_image") / "tokenizer")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a fox"}], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    assert text == "<|im_start|>user\na fox<|im_end|>\n<|im_start|>assistant\n"


def test_the_ar_model_never_ends_by_itself(tiny: Callable[[str], Path]) -> None:
    from transformers import GlmImageForConditionalGeneration

    model = GlmImageForConditionalGeneration.from_pretrained(tiny("glm_image") / "vision_language_encoder")
    ids = torch.arange(0, 168064, 4001)[None]
    with torch.no_grad():
        logits = model.model.language_model(inputs_embeds=model.get_input_embeddings()(ids)).last_hidden_state
        logits = model.lm_head(logits).float()
    codes, others = logits[..., :16384], logits[..., 16384:]
    assert logits.shape[-1] == 16512
    assert (others.amax(-1) < codes.amin(-1) - 20).all()
    assert codes.std() > 0.1
    assert not torch.equal(codes[0, 0].argsort(), codes[0, -1].argsort())


def test_glm_image_has_the_real_token_ids(tiny: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny("glm_image") / "processor")
    assert len(tokenizer) == 168064
    for token, number in {"<|dit_token_16384|>": 16384, "<|endoftext|>": 167841, "<|image|>": 167855}.items():
        assert tokenizer(token)["input_ids"] == [number]
    assert min(tokenizer("a fox asleep")["input_ids"]) >= 16512
