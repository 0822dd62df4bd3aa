"""Forward passes for training, over the weights of the pipeline's own classes.

Theirs stop for the CPU (a boolean index, positions made on the CPU, masks that are looked at), so they cannot run as
one CUDA graph. These compute the same, which tests/checkpoints/test_training.py holds, from static shapes alone.
"""

from collections.abc import Callable
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
    """(B, L, 64) for byte ids (B, L), of which `real` exist; the others are zeros and nobody attends to them."""
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
) -> Tensor:
    """What the DiT predicts for `latents` (B, 16, h, w): noise minus picture.

    `text` (B, L, 64) and which of its tokens are `seen`; `prior` (B, h·w ÷ 4) image tokens, dropped where `keep` (B,)
    is 0; `timestep` (B,) is 1000·sigma − 1; `size` (B, 2) in pixels; `rope`: `model.rope` of the latents. `run`:
    `block`, compiled. Text and image tokens are one sequence here, so a block is half as many operations.
    """
    run = run or block
    batch, _, height, width = latents.shape
    image = model.image_projector(latents)
    image = image + model.prior_projector(model.prior_token_embedding(prior) * keep[:, None, None])
    words = model.glyph_projector(text)
    condition = model.time_condition_embed(timestep, size, torch.zeros_like(size), image.dtype)
    length, count = words.shape[1], image.shape[1]
    hidden_text = torch.where(seen, 0.0, MASKED)
    bias = torch.cat([hidden_text, torch.zeros(batch, count, device=latents.device)], 1)[:, None, None]
    dim = sizes.DIT["attention_head_dim"]
    cos = torch.cat([torch.ones(length, dim, device=latents.device), rope[0]])[None, :, None]
    sin = torch.cat([torch.zeros(length, dim, device=latents.device), rope[1]])[None, :, None]
    is_text = (torch.arange(length + count, device=latents.device) < length)[None, :, None]
    joint = torch.cat([words, image], 1).float()
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=bf16):
        for one in model.transformer_blocks:
            joint = run(joint, condition, bias, cos, sin, is_text, *_weights(one))
    out = model.proj_out(model.norm_out(joint.float()[:, length:], condition))
    patch = sizes.DIT["patch_size"]
    out = out.reshape(batch, height // patch, width // patch, -1, patch, patch)
    return out.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def block(
    joint: Tensor, condition: Tensor, bias: Tensor, cos: Tensor, sin: Tensor, is_text: Tensor, *weights: Tensor
) -> Tensor:
    """One GlmImageTransformerBlock on text and image tokens together (B, S, D); `is_text` (1, S, 1)."""
    ada, ada_bias, q, q_bias, k, k_bias, v, v_bias, out, out_bias, up, up_bias, down, down_bias = weights
    batch, length, width = joint.shape
    heads, dim = sizes.DIT["num_attention_heads"], sizes.DIT["attention_head_dim"]
    each = functional.linear(condition, ada, ada_bias).view(batch, 6, 2, width)
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (
        torch.where(is_text, each[:, number, 1, None], each[:, number, 0, None]) for number in range(6)
    )
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
    """Of one GlmImageTransformerBlock, in the order that `block` takes them."""
    attention = one.attn1
    linears = (
        *(one.norm1.linear, attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]),
        *(one.ff.net[0].proj, one.ff.net[2]),
    )
    return tuple(part for linear in linears for part in (linear.weight, linear.bias))
