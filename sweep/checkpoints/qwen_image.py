"""Qwen-Image and Qwen-Image-Edit: Qwen2.5-VL text encoder, dual-stream DiT, causal 3D VAE.

Widths from Qwen/Qwen-Image (transformer/config.json, text_encoder/config.json); the vocabulary is small.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.checkpoints import scaling
from sweep.checkpoints.parts import Layout, Part, diffusers_part, transformers_part, write_scheduler
from sweep.checkpoints.recipe import Recipe
from sweep.checkpoints.tokenizers import QWEN_SPECIALS, QWEN_VOCABULARY, write_qwen_processor, write_qwen_tokenizer
from sweep.checkpoints.weights import Rules

DIT: Mapping[str, Any] = {
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3584,
    "axes_dims_rope": (16, 56, 56),
}
TINY_DIT = {
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": 64,
    "axes_dims_rope": (8, 12, 12),
}
TEXT = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
TINY_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
MROPE, TINY_MROPE = [16, 24, 24], [4, 6, 6]  # adds up to half a head
VISION = {"hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
TINY_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_heads": 2}
TINY_VAE = {"base_dim": 8, "z_dim": 16}

TIMESTEP_GAIN, ONSET, TEXT_KEYS = 1.3, 4.0, 2.5
DIT_RULES = Rules(
    biases={"img_mod": scaling.OPEN_GATES, "txt_mod": scaling.OPEN_GATES},
    norms={"norm_added_k": TEXT_KEYS},
    reshape=scaling.timestep_shape("time_text_embed.timestep_embedder.linear_1", 1000.0, TIMESTEP_GAIN, ONSET),
)
RESIDUAL_SCALING = {
    "timestep_gain": TIMESTEP_GAIN,
    "timestep_smoothness": scaling.SMOOTHNESS,
    "onset": ONSET,
    "modulation_bias": scaling.OPEN_GATES,
    "text_keys": TEXT_KEYS,
}


def layout(recipe: Recipe) -> Layout:
    """Qwen-Image, or Qwen-Image-Edit when the recipe says so."""
    edit = recipe.model == "qwen_image_edit"

    def write_small(folder: Path) -> None:
        write_qwen_tokenizer(folder / "tokenizer")
        if edit:
            write_qwen_processor(folder / "processor")
        write_scheduler(
            folder,
            base_image_seq_len=256,
            base_shift=0.5,
            max_image_seq_len=8192,
            max_shift=0.9,
            shift_terminal=0.02,
            use_dynamic_shifting=True,
            time_shift_type="exponential",
        )

    components = {
        "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
        "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration"),
        "tokenizer": ("transformers", "Qwen2Tokenizer"),
        "transformer": ("diffusers", "QwenImageTransformer2DModel"),
        "vae": ("diffusers", "AutoencoderKLQwenImage"),
    }
    return Layout(
        pipeline="QwenImageEditPipeline" if edit else "QwenImagePipeline",
        components=components | ({"processor": ("transformers", "Qwen2VLProcessor")} if edit else {}),
        parts=(text_encoder(recipe), dit(recipe), vae(recipe)),
        write_small=write_small,
        residual_scaling=RESIDUAL_SCALING,
    )


def dit(recipe: Recipe) -> Part:
    """Dual-stream DiT."""
    from diffusers import QwenImageTransformer2DModel

    config = {**DIT, **(TINY_DIT if recipe.tiny else {}), "num_layers": recipe.layers["dit"]}
    return diffusers_part("transformer", QwenImageTransformer2DModel, config, DIT_RULES)


def text_encoder(recipe: Recipe) -> Part:
    """Qwen2.5-VL with its vision tower (read by edits only) and head (never read)."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text, vision = (TINY_TEXT, TINY_VISION) if recipe.tiny else (TEXT, VISION)
    token = QWEN_SPECIALS.index
    config = Qwen2_5_VLConfig(
        text_config={
            **text,
            "vocab_size": QWEN_VOCABULARY,
            "num_hidden_layers": recipe.layers["text"],
            "rope_scaling": {"type": "mrope", "mrope_section": TINY_MROPE if recipe.tiny else MROPE},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            **vision,
            "depth": recipe.layers["vision"],
            "out_hidden_size": text["hidden_size"],
            "fullatt_block_indexes": [recipe.layers["vision"] - 1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    rules = Rules(tables=("embed_tokens",))
    return transformers_part("text_encoder", Qwen2_5_VLForConditionalGeneration, config, rules)


def vae(recipe: Recipe) -> Part:
    """Causal 3D VAE, eight pixels per latent pixel, 16 channels."""
    from diffusers import AutoencoderKLQwenImage

    return diffusers_part("vae", AutoencoderKLQwenImage, TINY_VAE if recipe.tiny else {}, Rules())
