"""Texts of an AR stage, token by token: any tokens that its head can write, sampled at a temperature.

For an image, the AR stage runs transformers' `generate` instead, which hands over nothing before its end.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from sweep.engines.protocol import Request, Writing


def refusal(encoder: Any, request: Request) -> str:
    """Why `encoder`, a causal language model of transformers, cannot write this text, in one line; "" if it can."""
    assert request.text is not None
    known = encoder.get_input_embeddings().num_embeddings
    picture = encoder.config.image_token_id  # placeholder for a picture, and there is none
    wrong = next((token for token in request.text.prompt_ids if token >= known or token == picture), None)
    return "" if wrong is None else f"prompt: {wrong} is no token of a text; this model has those from 0 to {known - 1}"


def write(encoder: Any, tokenizer: Any, prompt: Sequence[int], request: Request) -> Writing:
    """Begin a text after the tokens of `prompt`. Raises ValueError when there are none."""
    if not prompt:
        raise ValueError("the prompt has no tokens")
    return Writing(len(prompt), _tokens(encoder, tokenizer, prompt, request))


def _tokens(encoder: Any, tokenizer: Any, prompt: Sequence[int], request: Request) -> Iterator[str]:
    from transformers import DynamicCache

    assert request.text is not None
    generator = torch.Generator(encoder.device).manual_seed(request.seed)
    cache, given = DynamicCache(), torch.tensor([list(prompt)], device=encoder.device)
    for _ in range(request.text.max_tokens):
        given = _next(encoder, given, cache, request.text.temperature, generator)
        yield tokenizer.decode([int(given)])


@torch.inference_mode()
def _next(
    encoder: Any, given: torch.Tensor, cache: Any, temperature: float, generator: torch.Generator
) -> torch.Tensor:
    """The token after `given` (1, length), whose keys and values join those in `cache`; (1, 1).

    Passes positions, because GLM-Image otherwise continues from those of its last image.
    """
    past = cache.get_seq_length()
    positions = torch.arange(past, past + given.shape[1], device=given.device)[None]
    output = encoder(input_ids=given, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits = output.logits[:, -1].float()
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)
