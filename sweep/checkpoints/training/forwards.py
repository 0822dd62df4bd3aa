"""Forward passes for training, over the weights of the pipeline's own classes.

The originals wait for the CPU (a boolean index, positions made on the CPU, masks that are read), so they cannot run as
one CUDA graph. These compute the same from static shapes alone; tests/checkpoints/test_training.py checks that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from sweep.checkpoints.training import sizes
from sweep.checkpoints.world import codes

if TYPE_CHECKING:
    from diffusers import GlmImageTransformer2DModel
    from transformers import GlmImageForConditionalGeneration, T5EncoderModel

MASKED = -1e4


def image_tokens(model: "GlmImageForConditionalGeneration", ids: Tensor, places: Tensor, select: Tensor) -> Tensor:
    """Logits (B, n, 1024) at positions `select` (B, n) of sequences `ids` (B, S), padded on the right.

    `places`: (3, B, S), the time, row and column of every token (`token_places`).
    """
    text = model.model.language_model
    hidden = text.embed_tokens(ids)
    cos, sin = _rotations(places)
    for layer in text.layers:
        attended = _causal_attention(layer.self_attn, _rms(hidden, layer.input_layernorm), cos, sin)
        hidden = hidden + _rms(attended, layer.post_self_attn_layernorm)
        gate, up = layer.mlp.gate_up_proj(_rms(hidden, layer.post_attention_layernorm)).chunk(2, -1)
        hidden = hidden + _rms(layer.mlp.down_proj(up * functional.silu(gate)), layer.post_mlp_layernorm)
    hidden = hidden.gather(1, select[..., None].expand(-1, -1, hidden.shape[-1]))
    return model.lm_head(_rms(hidden, text.norm))


def token_places(lengths: Tensor, longest: int, grid: int = sizes.GRID) -> Tensor:
    """(3, B, longest + 256 + grid²): prompt 0…n−1, preview from n in rows and columns, target from n + 16."""
    images = codes.PREVIEW + grid**2
    index = torch.arange(longest + images, device=lengths.device)[None]
    start = lengths[:, None]
    inside = (index - start).clamp(0, images - 1)
    target = inside >= codes.PREVIEW
    place = torch.where(target, inside - codes.PREVIEW, inside)
    side = torch.where(target, grid, codes.PREVIEW_SIDE)
    base = start + torch.where(target, codes.PREVIEW_SIDE, 0)
    image = (base.expand_as(place), base + place // side, base + place % side)
    return torch.stack([torch.where(index < start, index, one) for one in image])


def edit_places(lengths: Tensor, longest: int, grid: int = sizes.GRID) -> Tensor:
    """(3, B, longest + grid²): image start 0, source from 1 in rows and columns, text, target as the source."""
    source = grid**2
    index = torch.arange(longest + source, device=lengths.device)[None]
    end = lengths[:, None]
    target = index >= end
    inside = torch.where(target, index - end, index - 1).clamp(0, source - 1)
    base = torch.where(target, end - source + grid, 1)
    image = (base.expand_as(inside), base + inside // grid, base + inside % grid)
    is_image = target | ((index >= 1) & (index <= source))
    text = torch.where(index == 0, 0, index - source + grid).expand_as(inside)
    return torch.stack([torch.where(is_image, one, text) for one in image])


def source_tokens(model: "GlmImageForConditionalGeneration", pictures: Tensor) -> Tensor:
    """Cosines (B, grid², 1024) of each corner of (B, 3, 64, 64) pictures in [0, 1] to each image token: the highest is
    what an edit reads there."""
    tower, codes_of = model.model.visual, model.model.vqmodel
    config = tower.config
    half = functional.interpolate(pictures, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
    hidden = tower.patch_embed.proj((half - 0.5) / 0.25).flatten(2).transpose(1, 2)
    hidden = hidden + _vision_positions(tower.embeddings.position_embedding.weight)
    for one in tower.blocks:
        query, key, value = one.attn.qkv(one.norm1(hidden)).unflatten(-1, (3, config.num_heads, -1)).unbind(2)
        seen = functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)))
        hidden = hidden + one.attn.proj(seen.transpose(1, 2).flatten(2))
        hidden = hidden + one.mlp(one.norm2(hidden))
    projected = functional.linear(hidden, codes_of.quant_conv.weight.flatten(1), codes_of.quant_conv.bias)
    known = functional.normalize(codes_of.quantize.embedding.weight, dim=-1)
    return functional.normalize(projected, dim=-1) @ known.T


def _vision_positions(weight: Tensor) -> Tensor:
    """(grid², hidden): the learned positions, interpolated to the grid."""
    side = int(len(weight) ** 0.5)
    line = (torch.arange(sizes.GRID, device=weight.device) + 0.5) / sizes.GRID * 2 - 1
    places = torch.stack(torch.meshgrid(line, line, indexing="ij")[::-1], -1)[None]
    table = weight.view(side, side, -1).permute(2, 0, 1)[None]
    found = functional.grid_sample(table, places, mode="bilinear", align_corners=False, padding_mode="border")
    return found[0].flatten(1).T


def _rotations(places: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, 1, S, ROTARY) of M-RoPE: sections of frequencies take time, row and column in turn."""
    steps = torch.arange(0, sizes.ROTARY, 2, device=places.device).float() / sizes.ROTARY
    angles = places[..., None].float() * sizes.ROPE_THETA**-steps
    sections = angles.split(sizes.ROPE_SECTIONS, -1)
    angles = torch.cat([one[number % 3] for number, one in enumerate(sections)], -1)
    whole = torch.cat((angles, angles), -1)[:, None]
    return whole.cos(), whole.sin()


def _causal_attention(attention: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    batch, length, _ = hidden.shape
    query, key, value = (
        project(hidden).view(batch, length, -1, attention.head_dim).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
    groups = attention.num_key_value_groups
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    out = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return attention.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


def _rotate(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first ROTARY dimensions of each head, halves against each other."""
    turned, rest = values[..., : sizes.ROTARY], values[..., sizes.ROTARY :]
    one, other = turned.chunk(2, -1)
    return torch.cat((turned * cos + torch.cat((-other, one), -1) * sin, rest), -1).to(values.dtype)


def _rms(hidden: Tensor, norm: Any) -> Tensor:
    weight = norm.weight
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    return functional.rms_norm(hidden, weight.shape, weight.to(hidden.dtype), eps)


def glyphs(model: "T5EncoderModel", ids: Tensor, real: Tensor) -> Tensor:
    """(B, L, 64) for byte ids (B, L), of which `real` exist; the others are zeros and are never attended to."""
    encoder = model.encoder
    hidden = model.shared(ids)
    place = torch.arange(ids.shape[1], device=ids.device)
    away = place[None] - place[:, None]
    first = encoder.block[0].layer[0].SelfAttention
    bias = first.relative_attention_bias(_bucket(away)).permute(2, 0, 1)[None]
    bias = bias.masked_fill(~real[:, None, None, :], MASKED)
    heads = sizes.GLYPH_ENCODER["num_heads"]
    for block in encoder.block:
        attend, feed = block.layer
        attention = attend.SelfAttention
        normed = _rms(hidden, attend.layer_norm)
        query, key, value = (
            project(normed).unflatten(-1, (heads, -1)).transpose(1, 2)
            for project in (attention.q, attention.k, attention.v)
        )
        seen = (query @ key.transpose(-1, -2) + bias).softmax(-1) @ value
        hidden = hidden + attention.o(seen.transpose(1, 2).flatten(2))
        dense = feed.DenseReluDense
        normed = _rms(hidden, feed.layer_norm)
        hidden = hidden + dense.wo(functional.gelu(dense.wi_0(normed), approximate="tanh") * dense.wi_1(normed))
    return _rms(hidden, encoder.final_layer_norm) * real[..., None]


def _bucket(away: Tensor) -> Tensor:
    """T5's bucket of a distance in both directions: 32 of them, beyond 7 in steps that grow up to 128."""
    far = away.abs()
    coarse = 8 + (torch.log(far.float().clamp_min(8) / 8) / torch.log(torch.tensor(128 / 8)) * 8).long()
    return torch.where(away > 0, 16, 0) + torch.where(far < 8, far, coarse.clamp(max=15))


@dataclass(frozen=True)
class Source:
    """The picture that an edit starts from, as the DiT sees it."""

    latents: Tensor  # (B, 16, h, w)
    prior: Tensor  # (B, h·w ÷ 4) image tokens


def velocity(
    model: "GlmImageTransformer2DModel",
    latents: Tensor,
    text: Tensor,
    seen: Tensor,
    prior: Tensor,
    keep: Tensor,
    timestep: Tensor,
    size: Tensor,
    rope: tuple[Tensor, Tensor],
    run: "Callable[..., Tensor] | None" = None,
    bf16: bool = False,
    source: Source | None = None,
) -> Tensor:
    """What the DiT predicts for `latents` (B, 16, h, w): noise minus picture.

    `text` (B, L, 64) and which of its tokens are `seen`; `prior` (B, h·w ÷ 4) image tokens, dropped where `keep` (B,)
    is 0; `timestep` (B,) is 1000·sigma − 1; `size` (B, 2) in pixels; `rope`: `model.rope` of the latents. `run`:
    `block`, compiled. Text, image and source are one sequence here, so a block is half as many operations.
    """
    run = run or block
    batch, _, height, width = latents.shape
    image = model.image_projector(latents)
    image = image + model.prior_projector(model.prior_token_embedding(prior) * keep[:, None, None])
    words = model.glyph_projector(text)
    conditions = [model.time_condition_embed(timestep, size, torch.zeros_like(size), image.dtype)]
    parts = [words, image]
    if source is not None:  # in the pipeline a separate pass at time 0, whose keys and values are kept
        parts.append(model.image_projector(source.latents))
        parts[-1] = parts[-1] + model.prior_projector(model.prior_token_embedding(source.prior))
        still = torch.zeros_like(timestep)
        conditions.append(model.time_condition_embed(still, size, torch.zeros_like(size), image.dtype))
    kinds = torch.cat([torch.full((one.shape[1],), kind, device=latents.device) for kind, one in enumerate(parts)])
    length, count = words.shape[1], image.shape[1]
    bias = torch.zeros(batch, 1, 1, len(kinds), device=latents.device)
    bias[..., :length] = torch.where(seen, 0.0, MASKED)[:, None, None]
    if source is not None:
        own = (kinds[:, None] < 2) | (kinds[None] == 2)
        bias = torch.where(own, bias, MASKED)
    dim, images = sizes.DIT["attention_head_dim"], len(parts) - 1
    cos = torch.cat([torch.ones(length, dim, device=latents.device), *[rope[0]] * images])[None, :, None]
    sin = torch.cat([torch.zeros(length, dim, device=latents.device), *[rope[1]] * images])[None, :, None]
    joint = torch.cat(parts, 1).float()
    condition = torch.stack(conditions, 1)
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=bf16):
        for one in model.transformer_blocks:
            joint = run(joint, condition, bias, cos, sin, kinds[None, :, None], *_weights(one))
    out = model.proj_out(model.norm_out(joint.float()[:, length : length + count], conditions[0]))
    patch = sizes.DIT["patch_size"]
    out = out.reshape(batch, height // patch, width // patch, -1, patch, patch)
    return out.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def block(
    joint: Tensor, condition: Tensor, bias: Tensor, cos: Tensor, sin: Tensor, kinds: Tensor, *weights: Tensor
) -> Tensor:
    """One GlmImageTransformerBlock on all tokens together (B, S, D); `kinds` (1, S, 1): 0 text, 1 image, 2 source.

    `condition` (B, 1 or 2, D): of text and image, and of the source if there is one.
    """
    ada, ada_bias, q, q_bias, k, k_bias, v, v_bias, out, out_bias, up, up_bias, down, down_bias = weights
    batch, length, width = joint.shape
    heads, dim = sizes.DIT["num_attention_heads"], sizes.DIT["attention_head_dim"]
    each = functional.linear(condition, ada, ada_bias).view(batch, -1, 6, 2, width)
    made = []
    for number in range(6):
        one = torch.where(kinds == 0, each[:, 0, number, 1, None], each[:, 0, number, 0, None])
        if condition.shape[1] > 1:
            one = torch.where(kinds == 2, each[:, 1, number, 0, None], one)
        made.append(one)
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = made
    normed = functional.layer_norm(joint, (width,), eps=1e-5) * (1 + scale) + shift
    projected = functional.linear(normed, torch.cat([q, k, v]), torch.cat([q_bias, k_bias, v_bias]))
    query, key, value = projected.view(batch, length, 3, heads, dim).unbind(2)
    query, key = (functional.layer_norm(one.float(), (dim,), eps=1e-5) for one in (query, key))
    query, key = (
        one * cos + torch.cat([-one[..., dim // 2 :], one[..., : dim // 2]], -1) * sin for one in (query, key)
    )
    query, key, value = (one.to(value.dtype).transpose(1, 2) for one in (query, key, value))
    scores = (query @ key.transpose(-1, -2)).float() * dim**-0.5 + bias
    attended = (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2).reshape(batch, length, width)
    joint = joint + functional.linear(attended, out, out_bias) * gate
    normed = functional.layer_norm(joint, (width,), eps=1e-5) * (1 + scale_mlp) + shift_mlp
    hidden = functional.gelu(functional.linear(normed, up, up_bias), approximate="tanh")
    return joint + functional.linear(hidden, down, down_bias) * gate_mlp


def _weights(one: Any) -> tuple[Tensor, ...]:
    """Weights of one GlmImageTransformerBlock, in the order in which `block` takes them."""
    attention = one.attn1
    linears = (
        *(one.norm1.linear, attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]),
        *(one.ff.net[0].proj, one.ff.net[2]),
    )
    return tuple(part for linear in linears for part in (linear.weight, linear.bias))
