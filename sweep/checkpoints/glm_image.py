"""GLM-Image: AR model with a vision tower and a VQ codebook, ByT5 glyph encoder, DiT, VAE.

Widths from zai-org/GLM-Image. Token ids are the real ones, because loaders and the hand-over between stages rely on
them: 16,384 image codes, image start and end, spare, then GLM-4's text ids.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.checkpoints import scaling
from sweep.checkpoints.glm_processor import (
    IMAGE,
    IMAGE_END,
    IMAGE_START,
    PAD,
    VISION_VOCABULARY,
    VOCABULARY,
    write_processor,
)
from sweep.checkpoints.parts import Layout, Part, diffusers_part, transformers_part, write_scheduler
from sweep.checkpoints.recipe import Recipe
from sweep.checkpoints.weights import Rules

if TYPE_CHECKING:
    import torch

CODEBOOK = 16384
AR = {"hidden_size": 4096, "intermediate_size": 13696, "num_attention_heads": 32, "num_key_value_heads": 2}
TINY_AR = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
MROPE, TINY_MROPE = [8, 12, 12], [2, 3, 3]  # adds up to a quarter of a head: half of it is rotated
VISION = {"hidden_size": 1536, "intermediate_size": 6144, "num_heads": 16}
TINY_VISION = {"hidden_size": 64, "intermediate_size": 128, "num_heads": 2}
VQ = {"embed_dim": 2048, "latent_channels": 1536}
TINY_VQ = {"embed_dim": 32, "latent_channels": 64}
DIT: Mapping[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 128,
    "num_attention_heads": 32,
    "text_embed_dim": 1472,
    "time_embed_dim": 512,
    "condition_dim": 256,
    "prior_vq_quantizer_codebook_size": CODEBOOK,
}
TINY_DIT = {
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "text_embed_dim": 64,
    "time_embed_dim": 64,
    "condition_dim": 32,
}
GLYPHS = {"d_model": 1472, "d_kv": 64, "d_ff": 3584, "num_layers": 12, "num_heads": 6}
TINY_GLYPHS = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 2}
VAE: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 512, 1024, 1024),
    "layers_per_block": 3,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "latents_mean": [0.0] * 16,
    "latents_std": [1.0] * 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": False,
}
TINY_VAE = {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
VAE_RULES = Rules(gains={"decoder.conv_out": 0.5})  # else one pixel in ten would be black or white

TIMESTEP_GAIN, ONSET, SIZE_GAIN = 1.3, 4.0, 0.5
DIT_RULES = Rules(
    gains={"condition_embedder": SIZE_GAIN},
    biases={"norm1.linear": scaling.OPEN_GATES},
    tables=("prior_token_embedding",),
    reshape=scaling.timestep_shape("time_condition_embed.timestep_embedder.linear_1", 1000.0, TIMESTEP_GAIN, ONSET),
)
RESIDUAL_SCALING = {
    "timestep_gain": TIMESTEP_GAIN,
    "timestep_smoothness": scaling.SMOOTHNESS,
    "onset": ONSET,
    "modulation_bias": scaling.OPEN_GATES,
    "size_gain": SIZE_GAIN,
}

CARRIER = 8.0  # constant in hidden channel 0 of the AR model's residual stream
END_PENALTY = -60.0  # the head's weight on it for ids that are not image codes


def never_end(name: str, tensor: "torch.Tensor") -> None:
    """Keep the AR model from ever sampling an id that is not an image code, so that it stops at its token count.

    Hidden channel 0 carries a positive constant through all layers (set by the embedding; the norms before each
    residual addition hold it there), and the head gives it a large negative weight in the rows past the codebook.
    A bias would do, but the head has none; a mask of allowed ids does not fit, as the head is narrower than the
    vocabulary.
    """
    if name.endswith("language_model.embed_tokens.weight"):
        tensor[:, 0] = CARRIER
    elif name.endswith(("post_self_attn_layernorm.weight", "post_mlp_layernorm.weight")):
        tensor[0] = 0.0
    elif name == "lm_head.weight":
        tensor[:, 0] = 0.0
        tensor[CODEBOOK:, 0] = END_PENALTY


def layout(recipe: Recipe) -> Layout:
    """GLM-Image."""

    def write_small(folder: Path) -> None:
        from transformers import ByT5Tokenizer

        write_processor(folder / "processor")
        ByT5Tokenizer().save_pretrained(folder / "tokenizer")
        write_scheduler(
            folder,
            use_dynamic_shifting=True,
            base_shift=0.25,
            max_shift=0.75,
            base_image_seq_len=256,
            max_image_seq_len=4096,
            time_shift_type="linear",
        )

    return Layout(
        pipeline="GlmImagePipeline",
        components={
            "processor": ("transformers", "GlmImageProcessor"),
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
            "text_encoder": ("transformers", "T5EncoderModel"),
            "tokenizer": ("transformers", "ByT5Tokenizer"),
            "transformer": ("diffusers", "GlmImageTransformer2DModel"),
            "vae": ("diffusers", "AutoencoderKL"),
            "vision_language_encoder": ("transformers", "GlmImageForConditionalGeneration"),
        },
        parts=(ar(recipe), glyph_encoder(recipe), dit(recipe), vae(recipe)),
        write_small=write_small,
        residual_scaling=RESIDUAL_SCALING,
    )


def ar(recipe: Recipe) -> Part:
    """AR model: text and image tokens in, image tokens out; vision tower and VQ codebook serve edits."""
    from transformers import GlmImageConfig, GlmImageForConditionalGeneration

    config = GlmImageConfig(
        text_config={
            **(TINY_AR if recipe.tiny else AR),
            "vocab_size": VOCABULARY,
            "num_hidden_layers": recipe.layers["ar"],
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "attention_bias": True,
            "pad_token_id": PAD,
            "eos_token_id": IMAGE_END,
            "vision_vocab_size": VISION_VOCABULARY,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": TINY_MROPE if recipe.tiny else MROPE,
            },
        },
        vision_config={
            **(TINY_VISION if recipe.tiny else VISION),
            "depth": recipe.layers["vision"],
            "image_size": 2048,
            "patch_size": 16,
            "spatial_merge_size": 1,
        },
        vq_config={"num_embeddings": CODEBOOK, **(TINY_VQ if recipe.tiny else VQ)},
        image_token_id=IMAGE,
        image_start_token_id=IMAGE_START,
        image_end_token_id=IMAGE_END,
        tie_word_embeddings=False,
    )
    rules = Rules(
        gains={"position_embedding": 0.3, "lm_head": 2.0},
        tables=("embed_tokens", "position_embedding", "quantize.embedding"),
        reshape=never_end,
    )
    generation = {
        "_from_model_config": False,
        "do_sample": True,
        "temperature": 0.9,
        "top_p": 0.75,
        "top_k": VISION_VOCABULARY,
        "eos_token_id": IMAGE_END,
        "pad_token_id": PAD,
    }
    part = transformers_part(
        "vision_language_encoder", GlmImageForConditionalGeneration, config, rules, generation_config=generation
    )
    if part.shapes["lm_head.weight"][0] != VISION_VOCABULARY:
        raise ValueError(f"the AR model's head has shape {part.shapes['lm_head.weight']}")
    return part


def glyph_encoder(recipe: Recipe) -> Part:
    """ByT5 encoder of quoted text in the prompt."""
    from transformers import T5Config, T5EncoderModel

    widths = TINY_GLYPHS if recipe.tiny else GLYPHS
    config = T5Config(
        **widths,
        vocab_size=384,
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
    return transformers_part("text_encoder", T5EncoderModel, config, rules)


def dit(recipe: Recipe) -> Part:
    """DiT of GLM-Image."""
    from diffusers import GlmImageTransformer2DModel

    config = {**DIT, **(TINY_DIT if recipe.tiny else {}), "num_layers": recipe.layers["dit"]}
    return diffusers_part("transformer", GlmImageTransformer2DModel, config, DIT_RULES)


def vae(recipe: Recipe) -> Part:
    """VAE with eight pixels per latent pixel, 16 channels."""
    from diffusers import AutoencoderKL

    return diffusers_part("vae", AutoencoderKL, {**VAE, **(TINY_VAE if recipe.tiny else {})}, VAE_RULES)
