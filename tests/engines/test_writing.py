"""Texts of the embedded AR stage: the tokens that its model writes, and no harm to the pictures after them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sweep.engines.diffusers.engine import DiffusersEngine
from sweep.engines.protocol import NO_TEXT, Request, Text, Writes
from tests.engines.conftest import make_request, make_spec

PROMPT = tuple(range(1030, 1062))


@pytest.fixture(scope="module")
def engine() -> Iterator[DiffusersEngine]:
    found = DiffusersEngine(make_spec("tiny_glm_image_random"))
    found.load()
    yield found
    found.close()


def asked(seed: int = 0, **text: object) -> Request:
    return make_request(seed=seed, text=Text(**{"max_tokens": 12, "prompt_ids": PROMPT, **text}))  # type: ignore[arg-type]


def test_without_a_temperature_it_writes_what_its_model_finds_likeliest(engine: DiffusersEngine) -> None:
    assert isinstance(engine, Writes)
    assert engine._runner is not None
    encoder, tokenizer = engine._runner.pipe.vision_language_encoder, engine._runner.adapter.tokenizer
    writing = engine.write(asked(temperature=0))
    assert writing.prompt_tokens == len(PROMPT)
    found = list(PROMPT)
    with torch.inference_mode():
        for _ in range(12):  # without a cache
            given = torch.tensor([found])
            found.append(
                int(encoder(input_ids=given, position_ids=torch.arange(len(found))[None]).logits[0, -1].argmax())
            )
    assert list(writing.tokens) == [tokenizer.decode([token]) for token in found[len(PROMPT) :]]


def test_a_seed_writes_the_same_text_and_another_one_another(engine: DiffusersEngine) -> None:
    first, same, other = (list(engine.write(asked(seed)).tokens) for seed in (3, 3, 4))
    assert first == same != other
    assert len(first) == 12
    assert all(first), "every token has a text"


def test_a_picture_after_a_text_is_what_it_was_before(engine: DiffusersEngine, tmp_path: Path) -> None:
    before = engine.generate([make_request()], tmp_path)
    begun = engine.write(asked()).tokens
    next(begun)  # and the rest is never taken
    assert not torch.is_inference_mode_enabled()
    assert engine.generate([make_request()], tmp_path).image_hashes == before.image_hashes


def test_a_chat_is_read_as_its_template_says_and_control_tokens_as_text(engine: DiffusersEngine) -> None:
    chat = asked(prompt_ids=(), messages=(("user", "a <|image|> here"),))
    plain = replace(asked(prompt_ids=()), prompt="a < |image|> here")
    assert engine.write(chat).prompt_tokens == engine.write(plain).prompt_tokens == len("a < |image|> here")


@pytest.mark.parametrize("token", [1029, 1286])
def test_tokens_that_are_no_text_are_refused(engine: DiffusersEngine, token: int) -> None:
    assert engine.refusal(asked()) == ""
    assert f"{token} is no token of a text" in engine.refusal(asked(prompt_ids=(token,)))


def test_a_model_without_an_ar_stage_writes_none() -> None:
    found = DiffusersEngine(make_spec("tiny_qwen_image"))
    assert found.refusal(asked()) == NO_TEXT, "nor before it is loaded"
    found.load()
    assert found.refusal(asked()) == NO_TEXT
    found.close()
