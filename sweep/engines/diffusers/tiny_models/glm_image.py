"""The tiny GLM-Image: AR model, glyph encoder, DiT, VAE and processor, at tiny widths (3.7 M parameters)."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.engines.diffusers.tiny_models.parts import (
    DIT_BIAS_GAINS,
    DIT_GAINS,
    LATENT_CHANNELS,
    READS_PICTURES,
    TEXT_ENCODER_WIDTH,
    byte_alphabet,
    byte_tokenizer,
    fill,
    write_json,
    write_model_index,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CODEBOOK = 1024  # GLM-Image's image tokens; also the AR head's width, so that only image tokens can be sampled
IMAGE_START, IMAGE_END = CODEBOOK, CODEBOOK + 1  # outside the head: generation only ends at its token count
GLM_SPECIALS = ("<|endoftext|>", "<sop>", "<eop>", "<|image|>")  # after image start and end
GLM_PAD, GLM_GRID_START, GLM_GRID_END, GLM_IMAGE = range(CODEBOOK + 2, CODEBOOK + 6)
GLM_VOCABULARY = CODEBOOK + 6 + 256  # then one token a byte
GLM_CHAT_TEMPLATE = (
    "{%- for message in messages -%}{%- if message.content is string -%}{{ message.content }}{%- else -%}"
    "{%- for item in message.content -%}{%- if item.type == 'image' -%}"
    "<|image_start|><|image|><|image_end|>"
    "{%- elif item.type == 'text' -%}{{ item.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
)

SCHEDULER: dict[str, Any] = {
    "use_dynamic_shifting": True,
    "base_shift": 0.25,
    "max_shift": 0.75,
    "base_image_seq_len": 256,
    "time_shift_type": "linear",
}
GLYPH_ENCODER: dict[str, Any] = {
    "vocab_size": 384,
    "d_model": TEXT_ENCODER_WIDTH,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
    "use_cache": False,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
VISION: dict[str, Any] = {  # 256 learned positions, interpolated to any size
    "depth": 1,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "image_size": 256,
    "patch_size": 16,
}
VISION_CODES: dict[str, Any] = {"num_embeddings": CODEBOOK, "embed_dim": 32, "latent_channels": 64}


def build_glm_image(folder: Path) -> None:
    """GLM-Image: AR model with a VQ codebook, ByT5 glyph encoder, DiT, VAE."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import ByT5Tokenizer

    build_glm_processor(folder / "processor")
    ByT5Tokenizer().save_pretrained(folder / "tokenizer")
    build_glyph_encoder(folder / "text_encoder")
    build_glm_ar(folder / "vision_language_encoder")
    build_glm_dit(folder / "transformer")
    build_glm_vae(folder / "vae")
    FlowMatchEulerDiscreteScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    write_glm_index(folder)


def write_glm_index(folder: Path) -> None:
    """model_index.json of a GlmImagePipeline."""
    write_model_index(
        folder,
        "GlmImagePipeline",
        {
            "processor": ("transformers", "GlmImageProcessor"),
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
            "text_encoder": ("transformers", "T5EncoderModel"),
            "tokenizer": ("transformers", "ByT5Tokenizer"),
            "transformer": ("diffusers", "GlmImageTransformer2DModel"),
            "vae": ("diffusers", "AutoencoderKL"),
            "vision_language_encoder": ("transformers", "GlmImageForConditionalGeneration"),
        },
    )


def build_glm_processor(folder: Path) -> None:
    """Tokenizer, image processor and chat template of the AR model."""
    names = [f"<|code_{i}|>" for i in range(CODEBOOK)] + ["<|image_start|>", "<|image_end|>", *GLM_SPECIALS]
    vocabulary = {token: i for i, token in enumerate(names + byte_alphabet())}
    write_glm_processor(folder, byte_tokenizer(vocabulary, ["<|image_start|>", "<|image_end|>", *GLM_SPECIALS]))


def write_glm_processor(folder: Path, tokenizer: "Tokenizer") -> None:
    """The same for a tokenizer whose first tokens are the image tokens, followed by GLM-Image's special ones."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|image_start|>",
        eos_token="<|image_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=131072,
        extra_special_tokens={"image_token": "<|image|>", "grid_bos_token": "<sop>", "grid_eos_token": "<eop>"},
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(config | {"processor_class": "GlmImageProcessor"}, folder / "tokenizer_config.json")
    (folder / "chat_template.jinja").write_text(GLM_CHAT_TEMPLATE, encoding="utf-8")
    # Written by hand: saving an image processor object would need torchvision. An input image as large as the
    # output becomes one token per 32x32 pixels, as in the real model.
    write_json(
        {
            "image_processor_type": "GlmImageImageProcessor",
            "processor_class": "GlmImageProcessor",
            **READS_PICTURES,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.25, 0.25],
            "patch_size": 16,
            "temporal_patch_size": 1,
            "merge_size": 1,
            "size": {"shortest_edge": 32 * 32, "longest_edge": 2048 * 2048},
        },
        folder / "preprocessor_config.json",
    )


def build_glyph_encoder(folder: Path) -> None:
    """ByT5 encoder of quoted text in the prompt."""
    from transformers import T5Config, T5EncoderModel

    fill(T5EncoderModel(T5Config(**GLYPH_ENCODER))).save_pretrained(folder)


def build_glm_ar(folder: Path) -> None:
    """AR model: text and image tokens in, image tokens out; vision tower and VQ codebook for edits."""
    from transformers import GenerationConfig, GlmImageConfig, GlmImageForConditionalGeneration

    config = GlmImageConfig(
        text_config={
            "vocab_size": GLM_VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "attention_bias": True,
            "pad_token_id": GLM_PAD,
            "eos_token_id": IMAGE_END,
            "vision_vocab_size": CODEBOOK,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 3, 3],
            },
        },
        vision_config=dict(VISION),
        vq_config=dict(VISION_CODES),
        image_token_id=GLM_IMAGE,
        image_start_token_id=IMAGE_START,
        image_end_token_id=IMAGE_END,
    )
    model = fill(GlmImageForConditionalGeneration(config), {"lm_head": 2.0, "position_embedding": 0.3})
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.9, top_p=0.75, eos_token_id=IMAGE_END, pad_token_id=GLM_PAD
    )
    model.save_pretrained(folder)


def build_glm_dit(folder: Path) -> None:
    """DiT of GLM-Image: 20 narrow blocks, 4 heads."""
    from diffusers import GlmImageTransformer2DModel

    model = GlmImageTransformer2DModel(
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=20,
        attention_head_dim=24,
        num_attention_heads=4,
        text_embed_dim=TEXT_ENCODER_WIDTH,
        time_embed_dim=32,
        condition_dim=16,
        prior_vq_quantizer_codebook_size=CODEBOOK,
    )
    fill(model, DIT_GAINS, DIT_BIAS_GAINS).save_pretrained(folder)


def build_glm_vae(folder: Path) -> None:
    """VAE with eight pixels a latent pixel."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    fill(model).save_pretrained(folder)
