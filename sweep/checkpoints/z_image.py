"""Z-Image: Qwen3 text encoder, single-stream DiT, VAE.

Widths from Tongyi-MAI/Z-Image-Turbo; the vocabulary is small. vLLM-Omni (0.26 and 0.30) builds this DiT without
reading its config.json, so only 30 layers at real widths load there; other depths load in diffusers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.checkpoints import scaling
from sweep.checkpoints.parts import Layout, Part, diffusers_part, transformers_part, write_scheduler
from sweep.checkpoints.recipe import Recipe
from sweep.checkpoints.tokenizers import QWEN_SPECIALS, QWEN_VOCABULARY, write_qwen_tokenizer
from sweep.checkpoints.weights import Rules

DIT: Mapping[str, Any] = {"dim": 3840, "n_heads": 30, "n_kv_heads": 30, "cap_feat_dim": 2560, "axes_dims": [32, 48, 48]}
TINY_DIT = {"dim": 128, "n_heads": 4, "n_kv_heads": 4, "cap_feat_dim": 64, "axes_dims": [8, 12, 12]}
TEXT = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
TINY_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
VAE: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
TINY_VAE = {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
VAE_RULES = Rules(gains={"decoder.conv_out": 0.5})  # else one pixel in ten would be black or white

TIMESTEP_GAIN, ONSET, KEYS = 0.6, 2.0, 2.0
DIT_RULES = Rules(
    biases={"adaLN_modulation.0": scaling.OPEN_GATES},
    norms={"norm_k": KEYS},
    tables=("pad_token",),
    # Its timestep runs from 0 at pure noise to 1000.
    reshape=scaling.timestep_shape("t_embedder.mlp.0", 0.0, TIMESTEP_GAIN, ONSET),
)
RESIDUAL_SCALING = {
    "timestep_gain": TIMESTEP_GAIN,
    "timestep_smoothness": scaling.SMOOTHNESS,
    "onset": ONSET,
    "modulation_bias": scaling.OPEN_GATES,
    "keys": KEYS,
}


def layout(recipe: Recipe) -> Layout:
    """Z-Image with the Turbo model's scheduler."""

    def write_small(folder: Path) -> None:
        write_qwen_tokenizer(folder / "tokenizer", chat=True)
        write_scheduler(folder, num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=False)

    return Layout(
        pipeline="ZImagePipeline",
        components={
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
            "text_encoder": ("transformers", "Qwen3ForCausalLM"),
            "tokenizer": ("transformers", "Qwen2Tokenizer"),
            "transformer": ("diffusers", "ZImageTransformer2DModel"),
            "vae": ("diffusers", "AutoencoderKL"),
        },
        parts=(text_encoder(recipe), dit(recipe), vae(recipe)),
        write_small=write_small,
        residual_scaling=RESIDUAL_SCALING,
    )


def dit(recipe: Recipe) -> Part:
    """Single-stream DiT, after two refiner layers per stream."""
    from diffusers import ZImageTransformer2DModel

    config = {**(TINY_DIT if recipe.tiny else DIT), "n_layers": recipe.layers["dit"]}
    return diffusers_part("transformer", ZImageTransformer2DModel, config, DIT_RULES)


def text_encoder(recipe: Recipe) -> Part:
    """Qwen3 with its head tied to its embedding."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    token = QWEN_SPECIALS.index
    config = Qwen3Config(
        **(TINY_TEXT if recipe.tiny else TEXT),
        vocab_size=QWEN_VOCABULARY,
        num_hidden_layers=recipe.layers["text"],
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        bos_token_id=token("<|endoftext|>"),
        eos_token_id=token("<|im_end|>"),
        pad_token_id=token("<|endoftext|>"),
    )
    return transformers_part("text_encoder", Qwen3ForCausalLM, config, Rules(tables=("embed_tokens",)))


def vae(recipe: Recipe) -> Part:
    """VAE with eight pixels per latent pixel, 16 channels."""
    from diffusers import AutoencoderKL

    return diffusers_part("vae", AutoencoderKL, {**VAE, **(TINY_VAE if recipe.tiny else {})}, VAE_RULES)
