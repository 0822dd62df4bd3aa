"""FLUX.2-klein: Qwen3 text encoder, a DiT whose blocks share their modulation, VAE of 32 channels.

Widths from black-forest-labs/FLUX.2-klein-4B (transformer/config.json, text_encoder/config.json); the vocabulary is
small.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.checkpoints import scaling
from sweep.checkpoints.flux import SCHEDULER
from sweep.checkpoints.parts import Layout, Part, diffusers_part, transformers_part, write_scheduler
from sweep.checkpoints.recipe import Recipe, streams
from sweep.checkpoints.tokenizers import QWEN_SPECIALS, QWEN_VOCABULARY, write_qwen_tokenizer
from sweep.checkpoints.weights import Rules
from sweep.checkpoints.z_image import TEXT, TINY_TEXT

DIT: Mapping[str, Any] = {
    "in_channels": 128,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (32, 32, 32, 32),
    "rope_theta": 2000,
    "guidance_embeds": False,
}
TINY_DIT = {"attention_head_dim": 32, "num_attention_heads": 4, "axes_dims_rope": (8, 8, 8, 8)}
STATES = 3
"""Layers of the text encoder whose states the DiT receives, side by side."""

VAE: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 32,
    "norm_num_groups": 32,
    "sample_size": 1024,
}
TINY_VAE = {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
VAE_RULES = Rules(gains={"decoder.conv_out": 0.5}, norms={"running_mean": 0.0, "num_batches_tracked": 0.0})

TIMESTEP_GAIN = 1.3
DIT_RULES = Rules(  # none of its layers has a bias, so gates cannot be held open
    reshape=scaling.timestep_shape("time_guidance_embed.timestep_embedder.linear_1", 1000.0, TIMESTEP_GAIN, 0.0)
)
RESIDUAL_SCALING = {"timestep_gain": TIMESTEP_GAIN, "timestep_smoothness": scaling.SMOOTHNESS}


def layout(recipe: Recipe) -> Layout:
    """FLUX.2-klein, distilled to four steps without guidance."""

    def write_small(folder: Path) -> None:
        write_qwen_tokenizer(folder / "tokenizer", chat=True)
        write_scheduler(folder, **SCHEDULER)

    return Layout(
        pipeline="Flux2KleinPipeline",
        components={
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
            "text_encoder": ("transformers", "Qwen3ForCausalLM"),
            "tokenizer": ("transformers", "Qwen2TokenizerFast"),
            "transformer": ("diffusers", "Flux2Transformer2DModel"),
            "vae": ("diffusers", "AutoencoderKLFlux2"),
        },
        parts=(text_encoder(recipe), dit(recipe), vae(recipe)),
        write_small=write_small,
        residual_scaling=RESIDUAL_SCALING,
        settings={"is_distilled": True},
    )


def dit(recipe: Recipe) -> Part:
    """A fifth of the blocks have weights of their own for text and image tokens."""
    from diffusers import Flux2Transformer2DModel

    dual, single = streams(recipe)
    text = (TINY_TEXT if recipe.tiny else TEXT)["hidden_size"]
    config = {
        **DIT,
        **(TINY_DIT if recipe.tiny else {}),
        "joint_attention_dim": STATES * text,
        "num_layers": dual,
        "num_single_layers": single,
    }
    return diffusers_part("transformer", Flux2Transformer2DModel, config, DIT_RULES)


def text_encoder(recipe: Recipe) -> Part:
    """Qwen3 with its head tied to its embedding.

    The DiT reads the states of the layers 9, 18 and 27 of 36; vLLM-Omni takes others if the encoder's config names
    them; diffusers does not.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    token, depth = QWEN_SPECIALS.index, recipe.layers["text"]
    config = Qwen3Config(
        **(TINY_TEXT if recipe.tiny else TEXT),
        vocab_size=QWEN_VOCABULARY,
        num_hidden_layers=depth,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        bos_token_id=token("<|endoftext|>"),
        eos_token_id=token("<|im_end|>"),
        pad_token_id=token("<|endoftext|>"),
        text_encoder_out_layers=read_layers(depth),
    )
    return transformers_part("text_encoder", Qwen3ForCausalLM, config, Rules(tables=("embed_tokens",)))


def read_layers(depth: int) -> list[int]:
    """Layers of a text encoder of this depth whose states the DiT reads: at a quarter, half and three quarters."""
    return [depth * quarter // 4 for quarter in (1, 2, 3)]


def vae(recipe: Recipe) -> Part:
    """VAE with eight pixels per latent pixel, 32 channels, and a normalisation of its latents."""
    from diffusers import AutoencoderKLFlux2

    return diffusers_part("vae", AutoencoderKLFlux2, {**VAE, **(TINY_VAE if recipe.tiny else {})}, VAE_RULES)
