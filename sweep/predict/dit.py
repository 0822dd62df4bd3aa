"""Work of a DiT's forward, counted from its shape. Pure.

Source: the forwards of diffusers' QwenImageTransformer2DModel, GlmImageTransformer2DModel, ZImageTransformer2DModel,
FluxTransformer2DModel and Flux2Transformer2DModel (0.40), which vLLM-Omni's own follow. Knows nothing of features: how
they divide or skip the work is in effects.py.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from sweep.config.model import Dit
from sweep.predict.work import NOTHING, Work, attend, key_of, product

TIMESTEP = 256  # width of the sinusoidal embedding of a timestep
POOLED = 768  # of the CLIP vector that FLUX adds to the timestep

PASSES = 34.0
"""Values that one token moves in a block apart from those of its products, in widths: two norms with their modulation,
norms and rotation of queries and keys, joining and splitting streams, two gated sums. Counted from the eager
kernels of a block of vLLM-Omni 0.26; a compiled block fuses most of them."""

BLOCK_KERNELS = 73.0
"""Kernels of an eager block: 58,420 in 40 forwards of 20 blocks (docs/results/why-2-gpus, cfg_parallel), 17,440 in 40
of 6 (why-glm-1-gpu)."""

END_KERNELS = 40.0
"""Kernels of a forward outside of its blocks: projections, timestep, rotary table, last norm."""


@dataclass(frozen=True)
class Forward:
    """One forward over one batch of one guidance branch, in the parts that features treat differently."""

    blocks: Work  # products, attention and the rest of all blocks, over all tokens
    modulation: Work  # what turns the timestep into scales, shifts and gates of all blocks; once a picture
    ends: Work  # before and after the blocks
    tokens: int  # image and text tokens of a picture that are computed
    products: float  # with weights, in all blocks: queries, keys and values count as one, because they are fused

    @property
    def whole(self) -> Work:
        """All of it."""
        return self.blocks + self.modulation + self.ends


def block_parameters(dit: Dit) -> float:
    """Parameters of one set of a block's weights: queries, keys, values, output and feed-forward."""
    heads = dit.heads * head_dim(dit)
    keys = dit.kv_heads * head_dim(dit)
    return dit.hidden * (2 * heads + 2 * keys) + (3 if dit.gated else 2) * dit.hidden * dit.intermediate


def head_dim(dit: Dit) -> int:
    """Width of a head."""
    return dit.head_dim or dit.hidden // dit.heads


def parameters(dit: Dit, patch: int) -> float:
    """All parameters, biases and norms left out (below 0.1 %)."""
    return forward(key_of(dit), patch, 1, 1, 1).whole.weights + dit.prior * dit.hidden


def of(dit: Dit, patch: int, image: int, text: int, batch: int = 1) -> Forward:
    """A forward over `batch` pictures of `image` tokens each, with `text` tokens."""
    return forward(key_of(dit), patch, image, text, batch)


@lru_cache(maxsize=4096)
def forward(shape: tuple[object, ...], patch: int, image: int, text: int, batch: int) -> Forward:
    """The same from a shape's values: a forward that is needed repeatedly is counted once."""
    dit = Dit(*shape)  # type: ignore[arg-type]
    text = math.ceil(text / 32) * 32 if dit.refiners else text  # Z-Image pads captions to 32 tokens
    keys, width = image + text, dit.heads * head_dim(dit)
    tokens = image if dit.cached_text else keys
    separate = dit.layers - dit.joined_layers
    one_set = block_parameters(dit)
    linear = Work(linear=2.0 * batch * tokens * one_set)
    moved = batch * tokens * (PASSES * dit.hidden + 2 * dit.intermediate)
    rest = attend(batch * tokens, keys, width) + Work(moved=moved, kernels=BLOCK_KERNELS - 1)
    blocks = (linear + rest) * dit.layers + Work(weights=one_set * (2 * separate + dit.joined_layers))
    blocks += _refiners(dit, image, text, batch)
    products = 8.0 * separate + 6.0 * dit.joined_layers  # of text and image each; the joined share all but their MLP
    return Forward(blocks, _modulation(dit, batch), _ends(dit, patch, image, tokens - image, batch), tokens, products)


def _refiners(dit: Dit, image: int, text: int, batch: int) -> Work:
    """Blocks over the image's tokens alone, and as many over the text's."""
    done = NOTHING
    for tokens in (image, text) if dit.refiners else ():
        linear = Work(linear=2.0 * batch * tokens * block_parameters(dit), weights=block_parameters(dit))
        moved = batch * tokens * (PASSES * dit.hidden + 2 * dit.intermediate)
        one = linear + attend(batch * tokens, tokens, dit.heads * head_dim(dit))
        done += (one + Work(moved=moved, kernels=BLOCK_KERNELS - 1)) * dit.refiners
    return done


def _modulation(dit: Dit, batch: int) -> Work:
    inputs = dit.modulation_in or dit.hidden
    apart, together = dit.layers - dit.joined_layers, dit.joined_layers + dit.refiners
    if dit.shared_modulation:
        apart, together = min(apart, 1), min(together, 1)
    separate = product(batch, inputs, dit.modulation * dit.hidden) * (2 * apart)
    joined = product(batch, inputs, dit.joined_modulation * dit.hidden) * together
    return separate + joined


def _ends(dit: Dit, patch: int, image: int, text: int, batch: int) -> Work:
    packed = patch * patch * dit.channels
    inputs = dit.modulation_in or dit.hidden
    done = product(batch * image, packed, dit.hidden) + product(batch * image, dit.hidden, packed)
    done += product(batch, TIMESTEP if inputs > TIMESTEP else inputs, inputs) + product(batch, inputs, inputs)
    if dit.modulation or dit.joined_modulation:
        done += product(batch, inputs, (1 if dit.refiners else 2) * dit.hidden)  # scale (and shift) of the last norm
    done += product(batch * text, dit.context, dit.hidden)
    if dit.prior:
        done += product(batch * text, dit.hidden, dit.hidden)
        done += product(batch * image, dit.hidden, dit.hidden) * 2
    if dit.distilled:
        done += product(batch, TIMESTEP, inputs) + product(batch, POOLED, inputs) + product(batch, inputs, inputs) * 2
    return done + Work(moved=4.0 * batch * (image + text) * dit.hidden, kernels=END_KERNELS - done.kernels)
