"""A cache of encoded prompts on a diffusers pipeline: recent prompts are not encoded again.

Caches whole calls of the method that encodes prompts, by their arguments, as vLLM-Omni does. A call with a tensor or a
picture among its arguments goes to the method itself. Nothing is stored on disk.
"""

import functools
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch

from sweep.engines.diffusers.rank_context import RankContext

METHODS = {"GlmImagePipeline": "_get_glyph_embeds", "QwenImagePipeline": "encode_prompt"}
"""Pipeline class -> its method that runs the text encoder on one list of prompts. GLM-Image's encode_prompt encodes
both prompts in one call, so the negative one would never be found again."""


def apply(pipe: Any, context: RankContext, arguments: dict[str, Any]) -> None:
    """Cache `arguments["size"]` results, and count hits as `prompt_cache_hits`. Raises ValueError for other models."""
    name = METHODS.get(type(pipe).__name__)
    if name is None:
        raise ValueError(f"prompt_embed_cache: no method known that encodes the prompts of {type(pipe).__name__}")
    plain, size = getattr(pipe, name), int(arguments.get("size", 32))
    kept: OrderedDict[Hashable, Any] = OrderedDict()

    @functools.wraps(plain)
    def encode(*args: Any, **kwargs: Any) -> Any:
        key = key_of((args, sorted(kwargs.items())))
        if key is None:
            return plain(*args, **kwargs)
        if key in kept:
            kept.move_to_end(key)
            context.counts["prompt_cache_hits"] += 1
        else:
            kept[key] = plain(*args, **kwargs)
            if len(kept) > size:
                kept.popitem(last=False)
        return kept[key]

    setattr(pipe, name, encode)


def key_of(value: Any) -> Hashable | None:
    """The key that distinguishes two calls; None if an argument is not text, a number, a device or a type."""
    if isinstance(value, list | tuple):
        parts = [key_of(one) for one in value]
        return None if None in parts else tuple(parts)
    if value is None or isinstance(value, str | int | float | torch.device | torch.dtype):
        return repr(value)
    return None
