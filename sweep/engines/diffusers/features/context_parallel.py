"""Ulysses and ring sequence parallelism of a DiT: each rank holds a part of the image and text tokens.

Built on diffusers' context parallelism (`_cp_plan`), the same on cuda with nccl and on cpu with gloo. Added
here: lengths that do not divide by the ranks, attention masks and a CPU kernel for ring, plain errors for the rest.
Knows nothing of guidance branches or tensor parallelism, which have mesh dims of their own.
"""

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models._modeling_parallel import ContextParallelConfig, ContextParallelOutput
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _native_flash_attention_forward_op,
    _templated_context_parallel_attention,
)

from sweep.engines.diffusers.rank_context import RankContext
from sweep.engines.diffusers.step_clock import DenoisingPipeline

MASK_CHANNELS = 8  # flash kernels want head widths that are multiples of 8
MASKED_SCORE = -30000.0  # before scaling; fits float16, and its softmax weight is 0 in float32


def apply(pipe: DenoisingPipeline, context: RankContext, arguments: dict[str, Any]) -> None:
    """Split `pipe.transformer` over the mesh's `ring` and `ulysses` dims; a second call changes nothing.

    So it may be called once for each of the two features. Raises ValueError for a model without `_cp_plan`,
    a degree that is not in the mesh, heads that do not divide, or ring in float32 on cuda. Must be called by all ranks.
    """
    transformer = pipe.transformer
    if getattr(transformer, "_cp_plan", None) is None:
        raise ValueError(
            f"ulysses, ring: {type(transformer).__name__} has no context-parallel plan (_cp_plan) in diffusers"
        )
    if getattr(transformer, "_parallel_config", None) is not None:
        return
    ring, ulysses = context.size("ring"), context.size("ulysses")
    wanted = int(arguments.get("degree", max(ring, ulysses)))
    if context.mesh is None or ring * ulysses < 2 or wanted not in (ring, ulysses):
        raise ValueError(
            f"ulysses, ring: degree {wanted} does not match the mesh of ranks (ring {ring} x ulysses {ulysses})"
        )
    heads = transformer.config.num_attention_heads // context.size("tp")
    if heads % ulysses:
        raise ValueError(f"ulysses: degree {ulysses} must divide the model's {heads} attention heads")
    if ring > 1:
        if context.device.type == "cuda" and transformer.dtype == torch.float32:
            raise ValueError("ring: flash attention on cuda needs engine.dtype=bfloat16")
        register_ring_attention(context.device)
        # not `set_attention_backend`, which would change the default of every other model in this process
        for processor in transformer.attn_processors.values():
            processor._attention_backend = AttentionBackendName._NATIVE_FLASH
    plan = {name: part for name, part in transformer._cp_plan.items() if not isinstance(part, ContextParallelOutput)}
    config = ContextParallelConfig(
        ring_degree=ring,
        ulysses_degree=ulysses,
        ulysses_anything=ring == 1,  # any sequence length; diffusers has it for one of the two at a time
        ring_anything=ulysses == 1,
        mesh=context.mesh,
    )
    transformer.enable_parallelism(config=config, cp_plan=plan)
    group = context.mesh["ring", "ulysses"]._flatten().get_group()
    outputs = {name: part for name, part in transformer._cp_plan.items() if name not in plan}
    gathers = [TokenGather(transformer.get_submodule(name), part.gather_dim, group) for name, part in outputs.items()]
    forward = transformer.forward

    @functools.wraps(forward)
    def split_forward(*args: Any, **kwargs: Any) -> Any:
        for gather in gathers:
            gather.tokens = kwargs["hidden_states"].shape[1]
        with warnings.catch_warnings():
            # diffusers 0.40 calls collectives that torch 2.13 has renamed
            warnings.filterwarnings("ignore", message=".*all_gather_tensor", category=FutureWarning)
            return forward(*args, **split_evenly(kwargs, ring, ulysses))

    transformer.forward = split_forward


class TokenGather:
    """Joins the ranks' parts of `module`'s output along `dim`. diffusers' own gather of unequal parts fails on gloo."""

    def __init__(self, module: torch.nn.Module, dim: int, group: torch.distributed.ProcessGroup) -> None:
        self.tokens = 0  # of all ranks together
        forward = module.forward

        @functools.wraps(forward)
        def gathered(*args: Any, **kwargs: Any) -> torch.Tensor:
            local = forward(*args, **kwargs).movedim(dim, 0)
            ranks = torch.distributed.get_world_size(group)
            lengths = [self.tokens // ranks + (rank < self.tokens % ranks) for rank in range(ranks)]  # tensor_split's
            padded = local.new_zeros(lengths[0], *local.shape[1:])
            padded[: local.shape[0]] = local
            parts = [torch.empty_like(padded) for _ in lengths]
            torch.distributed.all_gather(parts, padded, group=group)
            joined = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
            return joined.movedim(0, dim).contiguous()

        module.forward = gathered


def split_evenly(inputs: Mapping[str, Any], ring: int, ulysses: int) -> dict[str, Any]:
    """Inputs of a DiT forward that `ring` x `ulysses` ranks can share: where needed, text is padded and masked.

    Reads hidden_states (batch, image tokens, channels), encoder_hidden_states (batch, text tokens, width) and
    encoder_hidden_states_mask (batch, text tokens) or None. Raises ValueError for image sizes that cannot be shared.
    """
    ranks = ring * ulysses
    image, text, mask = inputs["hidden_states"], inputs["encoder_hidden_states"], inputs["encoder_hidden_states_mask"]
    both = ring > 1 and ulysses > 1
    padding = -text.shape[1] % ranks
    if mask is None and padding and (both or text.shape[1] < ranks):  # both need equal parts; no part may be empty
        mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    # diffusers joins ulysses masks as if only the last rank's part could be shorter.
    equal_image = both or (mask is not None and ring == 1 and ranks > 2)
    if image.shape[1] < ranks or (equal_image and image.shape[1] % ranks):
        raise ValueError(
            f"ulysses, ring: {image.shape[1]} image tokens cannot be split over {ranks} ranks"
            + (" into equal parts, which ring with ulysses and prompts of different length need" if equal_image else "")
            + "; choose another image size"
        )
    if mask is None:
        return dict(inputs)
    return dict(inputs) | {
        "encoder_hidden_states": torch.nn.functional.pad(text, (0, 0, 0, padding)),
        "encoder_hidden_states_mask": torch.nn.functional.pad(mask, (0, padding)),  # 0: not attended to
    }


def register_ring_attention(device: torch.device) -> None:
    """Replace diffusers' native flash backend by one that runs on the CPU too and takes masks.

    Ring combines parts by their log-sum-exp, which torch's plain attention does not return.
    """
    forward_op = cpu_flash_forward if device.type == "cpu" else _native_flash_attention_forward_op

    def ring_attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        _parallel_config: Any = None,
    ) -> torch.Tensor:
        width = query.shape[-1]
        scale = width**-0.5 if scale is None else scale
        if attn_mask is not None:
            query, key, value = carry_mask(query, key, value, attn_mask)
        output = _templated_context_parallel_attention(
            query,
            key,
            value,
            None,
            dropout_p,
            is_causal,
            scale,
            enable_gqa,
            forward_op=forward_op,
            backward_op=None,
            _parallel_config=_parallel_config,
        )
        return output[..., :width]

    _AttentionBackendRegistry.register(AttentionBackendName._NATIVE_FLASH, supports_context_parallel=True)(
        ring_attention
    )


def carry_mask(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Write a key mask into extra channels, so that it travels around the ring with the keys it belongs to.

    Tensors are (batch, tokens, heads, width); `mask` is (batch, 1, 1, tokens), True where a key may be attended to.
    """
    query, key, value = (torch.nn.functional.pad(x, (0, MASK_CHANNELS)) for x in (query, key, value))
    query[..., -MASK_CHANNELS] = 1.0
    key[..., -MASK_CHANNELS] = torch.where(mask[:, 0, 0, :, None], 0.0, MASKED_SCORE).to(key.dtype)
    return query, key, value


def cpu_flash_forward(
    ctx: object,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    return_lse: bool,
    _save_ctx: bool = False,
    _parallel_config: object = None,
) -> tuple[torch.Tensor, torch.Tensor] | torch.Tensor:
    """Attention of (batch, tokens, heads, width) tensors and, if requested, its log-sum-exp (batch, tokens, heads)."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )
    output = output.transpose(1, 2).contiguous()
    return (output, log_sum_exp.transpose(1, 2).contiguous()) if return_lse else output
