"""FLUX.1: T5 and CLIP text encoders, a DiT of dual-stream and single-stream blocks, VAE.

Widths from black-forest-labs/FLUX.1-dev (transformer/config.json, text_encoder_2/config.json); the vocabularies are
small.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.checkpoints import scaling
from sweep.checkpoints.parts import Layout, Part, diffusers_part, transformers_part, write_scheduler
from sweep.checkpoints.recipe import Recipe, streams
from sweep.checkpoints.t5_clip_tokenizers import (
    CLIP_LENGTH,
    CLIP_VOCABULARY,
    T5_VOCABULARY,
    write_clip_tokenizer,
    write_t5_tokenizer,
)
from sweep.checkpoints.weights import Rules
from sweep.checkpoints.z_image import TINY_VAE, VAE, VAE_RULES

DIT: Mapping[str, Any] = {
    "in_channels": 64,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "axes_dims_rope": (16, 56, 56),
    "guidance_embeds": True,
}
TINY_DIT = {
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (8, 12, 12),
}
T5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64}
TINY_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 2}
CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TINY_CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}

SCHEDULER: Mapping[str, Any] = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
"""The scheduler's settings in all FLUX models."""

TIMESTEP_GAIN, ONSET = 1.3, 4.0
DIT_RULES = Rules(
    biases=dict.fromkeys(("norm1.linear", "norm1_context.linear", ".norm.linear"), scaling.OPEN_GATES),
    reshape=scaling.timestep_shape("time_text_embed.timestep_embedder.linear_1", 1000.0, TIMESTEP_GAIN, ONSET),
)
RESIDUAL_SCALING = {
    "timestep_gain": TIMESTEP_GAIN,
    "timestep_smoothness": scaling.SMOOTHNESS,
    "onset": ONSET,
    "modulation_bias": scaling.OPEN_GATES,
}


def layout(recipe: Recipe) -> Layout:
    """FLUX.1-dev: guidance is an input of the DiT."""

    def write_small(folder: Path) -> None:
        write_clip_tokenizer(folder / "tokenizer")
        write_t5_tokenizer(folder / "tokenizer_2")
        write_scheduler(folder, **SCHEDULER)

    return Layout(
        pipeline="FluxPipeline",
        components={
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
            "text_encoder": ("transformers", "CLIPTextModel"),
            "text_encoder_2": ("transformers", "T5EncoderModel"),
            "tokenizer": ("transformers", "CLIPTokenizer"),
            "tokenizer_2": ("transformers", "T5TokenizerFast"),
            "transformer": ("diffusers", "FluxTransformer2DModel"),
            "vae": ("diffusers", "AutoencoderKL"),
        },
        parts=(clip(recipe), t5(recipe), dit(recipe), vae(recipe)),
        write_small=write_small,
        residual_scaling=RESIDUAL_SCALING,
    )


def dit(recipe: Recipe) -> Part:
    """A third of the blocks have weights of their own for text and image tokens."""
    from diffusers import FluxTransformer2DModel

    dual, single = streams(recipe)
    config = {**DIT, **(TINY_DIT if recipe.tiny else {}), "num_layers": dual, "num_single_layers": single}
    return diffusers_part("transformer", FluxTransformer2DModel, config, DIT_RULES)


def clip(recipe: Recipe) -> Part:
    """CLIP-L at its whole depth; one vector of it reaches the DiT."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        **(TINY_CLIP if recipe.tiny else CLIP),
        vocab_size=CLIP_VOCABULARY,
        max_position_embeddings=CLIP_LENGTH,
        bos_token_id=CLIP_VOCABULARY - 2,
        eos_token_id=CLIP_VOCABULARY - 1,
        pad_token_id=CLIP_VOCABULARY - 1,
    )
    rules = Rules(tables=("token_embedding", "position_embedding"))
    return transformers_part("text_encoder", CLIPTextModel, config, rules)


def t5(recipe: Recipe) -> Part:
    """T5-XXL encoder."""
    from transformers import T5Config, T5EncoderModel

    widths = TINY_T5 if recipe.tiny else T5
    config = T5Config(
        **widths,
        num_layers=recipe.layers["text"],
        vocab_size=T5_VOCABULARY,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    # T5 does not scale its attention by the width of a head: its queries are initialised that much smaller.
    queries = {"SelfAttention.q": widths["d_kv"] ** -0.5}
    rules = Rules(gains=queries, tables=("shared", "embed_tokens", "relative_attention_bias"))
    return transformers_part("text_encoder_2", T5EncoderModel, config, rules)


def vae(recipe: Recipe) -> Part:
    """VAE with eight pixels per latent pixel, 16 channels; Z-Image uses it too."""
    from diffusers import AutoencoderKL

    return diffusers_part("vae", AutoencoderKL, {**VAE, **(TINY_VAE if recipe.tiny else {})}, VAE_RULES)
