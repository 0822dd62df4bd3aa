"""Ulysses and ring sequence parallelism of a DiT: each rank holds a part of the image and text tokens.

Built on diffusers' context parallelism (`_cp_plan`), the same on cuda with nccl and on cpu with gloo. Added
here: text of any length, a CPU attention kernel that ring can combine, and plain errors for what neither can do.
Knows nothing of guidance branches or tensor parallelism, which have mesh dims of their own.
"""

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ContextParallelConfig, DiffusionPipeline
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _templated_context_parallel_attention,
)

from sweep.engines.diffusers.context import RankContext


def apply(pipe: DiffusionPipeline, context: RankContext, arguments: dict[str, Any]) -> None:
    """Split `pipe.transformer` over the mesh's `ring` and `ulysses` dims; a second call changes nothing.

    So it may be called once for each of the two features. Raises ValueError for a model without `_cp_plan`,
    a degree that is not in the mesh, or heads that do not divide. Must be called by all ranks.
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
            f"ulysses, ring: degree {wanted} was asked for, the mesh of ranks has ring {ring} x ulysses {ulysses}"
        )
    heads = transformer.config.num_attention_heads // context.size("tp")
    if heads % ulysses:
        raise ValueError(f"ulysses: degree {ulysses} must divide the model's {heads} attention heads")
    if ring > 1:
        if context.device.type == "cpu":
            register_cpu_flash_attention()
        # Ring needs the log-sum-exp of each part; torch's plain attention does not return it.
        transformer.set_attention_backend(AttentionBackendName._NATIVE_FLASH.value)
    transformer.enable_parallelism(
        config=ContextParallelConfig(
            ring_degree=ring,
            ulysses_degree=ulysses,
            ulysses_anything=ring == 1,  # any sequence length; diffusers has it for one of the two at a time
            ring_anything=ulysses == 1,
            mesh=context.mesh,
        )
    )
    check_inputs(transformer, ring, ulysses)


def check_inputs(transformer: torch.nn.Module, ring: int, ulysses: int) -> None:
    """Wrap `transformer.forward`: pad masked text to an even split, refuse what would fail or mislead later."""
    forward = transformer.forward

    @functools.wraps(forward)
    def checked_forward(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            # diffusers 0.40 calls collectives that torch 2.13 has renamed
            warnings.filterwarnings("ignore", message=".*all_gather_tensor", category=FutureWarning)
            return forward(*args, **split_evenly(kwargs, ring, ulysses))

    transformer.forward = checked_forward


def split_evenly(inputs: Mapping[str, Any], ring: int, ulysses: int) -> dict[str, Any]:
    """Inputs of a DiT forward that `ring` x `ulysses` ranks can share. Raises ValueError where there are none.

    Reads hidden_states (batch, image tokens, channels), encoder_hidden_states (batch, text tokens, width) and
    encoder_hidden_states_mask (batch, text tokens) or None.
    """
    ranks = ring * ulysses
    image, text, mask = inputs["hidden_states"], inputs["encoder_hidden_states"], inputs["encoder_hidden_states_mask"]
    if mask is not None and ring > 1:
        raise ValueError(
            "ring: a batch whose prompts differ in length needs an attention mask, which ring attention does not "
            "take; use batch=1 or prompts of equal length (workload.prompt_tokens)"
        )
    if image.shape[1] < ranks or (ring > 1 and text.shape[1] < ranks):
        raise ValueError(
            f"ulysses, ring: {image.shape[1]} image and {text.shape[1]} text tokens are too few for {ranks} ranks"
        )
    if mask is None and text.shape[1] < ranks:  # an empty prompt: pad it so that each rank gets a token
        mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    if ring > 1 and ulysses > 1 and (image.shape[1] % ranks or text.shape[1] % ranks):
        raise ValueError(
            f"ring with ulysses: {image.shape[1]} image and {text.shape[1]} text tokens must both be multiples of "
            f"{ranks} (set workload.prompt_tokens, or use only one of the two)"
        )
    if mask is None:
        return dict(inputs)
    # diffusers joins the ranks' masks as if only the last could be shorter, so masked lengths must split evenly.
    if image.shape[1] % ranks and ranks > 2:
        raise ValueError(
            f"ulysses: {image.shape[1]} image tokens on {ranks} ranks do not split evenly, which a batch of prompts "
            "of different length needs; use batch=1 or another image size"
        )
    padding = -text.shape[1] % ranks
    return dict(inputs) | {
        "encoder_hidden_states": torch.nn.functional.pad(text, (0, 0, 0, padding)),
        "encoder_hidden_states_mask": torch.nn.functional.pad(mask, (0, padding)),  # 0: not attended to
    }


def register_cpu_flash_attention() -> None:
    """Serve diffusers' native flash backend with torch's CPU kernel; as shipped it only calls the CUDA one."""

    def cpu_flash_attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        _parallel_config: Any = None,
    ) -> torch.Tensor:
        return _templated_context_parallel_attention(
            query,
            key,
            value,
            None,
            dropout_p,
            is_causal,
            scale,
            enable_gqa,
            False,
            forward_op=cpu_flash_with_log_sum_exp,
            backward_op=None,
            _parallel_config=_parallel_config,
        )

    _AttentionBackendRegistry.register(AttentionBackendName._NATIVE_FLASH, supports_context_parallel=True)(
        cpu_flash_attention
    )


def cpu_flash_with_log_sum_exp(
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
    """Attention of (batch, tokens, heads, width) tensors and, if asked for, its log-sum-exp (batch, tokens, heads)."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )
    output = output.transpose(1, 2).contiguous()
    return (output, log_sum_exp.transpose(1, 2).contiguous()) if return_lse else output
