"""Work of a transformer that reads or writes tokens: text encoder and AR stage, counted from its shape. Pure.

Source: Qwen2_5_VLModel, Qwen3Model, T5EncoderModel and GlmImageForConditionalGeneration of transformers 5.14.
"""

from functools import lru_cache

from sweep.config.model import Stack
from sweep.predict.work import Work, attend, key_of, product

PASSES = 18.0
"""Values that a token moves in a layer apart from those of its products, in widths: two norms, rotation, two sums."""

LAYER_KERNELS = 24.0
"""Kernels of an eager layer: norms, products, rotation, cache, attention, activation."""

END_KERNELS = 12.0
"""Embedding, last norm, head, sampling."""


def head_dim(stack: Stack) -> int:
    """Width of a head."""
    return stack.head_dim or stack.hidden // stack.heads


def layer_parameters(stack: Stack) -> float:
    """Parameters of a layer, biases and norms left out."""
    heads, keys = stack.heads * head_dim(stack), stack.kv_heads * head_dim(stack)
    return stack.hidden * (2 * heads + 2 * keys) + (3 if stack.gated else 2) * stack.hidden * stack.intermediate


def cache_values(stack: Stack) -> int:
    """Values of keys and values that a token leaves in the KV cache."""
    return 2 * stack.layers * stack.kv_heads * head_dim(stack)


def of(stack: Stack, new: int, before: int = 0, batch: int = 1) -> Work:
    """A forward over `new` tokens of each of `batch` texts, after `before` tokens that are in the KV cache.

    A stack with a vocabulary computes it for the last token alone.
    """
    return _of(key_of(stack), new, before, batch)


def written(stack: Stack, prompt: int, tokens: int, batch: int = 1) -> Work:
    """All decode forwards that write `tokens` tokens after a prefill that wrote the first."""
    steps = tokens - 1
    middle = of(stack, 1, prompt + tokens // 2, batch)  # attention grows evenly from the first to the last
    return middle * max(0, steps)


@lru_cache(maxsize=4096)
def _of(shape: tuple[object, ...], new: int, before: int, batch: int) -> Work:
    stack = Stack(*shape)  # type: ignore[arg-type]
    rows = batch * new
    layer = Work(linear=2.0 * rows * layer_parameters(stack), weights=layer_parameters(stack))
    layer += attend(rows, before + new, stack.heads * head_dim(stack))
    layer += Work(moved=rows * (PASSES * stack.hidden + 4 * stack.intermediate), kernels=LAYER_KERNELS - 1)
    done = layer * stack.layers + Work(cache=float(batch * before * cache_values(stack)), kernels=END_KERNELS)
    return done + product(batch, stack.hidden, stack.vocab) if stack.vocab else done
