"""The tiny Qwen-Image: text encoder, DiT and VAE, at tiny widths (6.0 M parameters)."""

import json
from pathlib import Path

from sweep.engines.diffusers.tiny_models.parts import (
    DIT_BIAS_GAINS,
    DIT_GAINS,
    LATENT_CHANNELS,
    TEXT_ENCODER_WIDTH,
    byte_alphabet,
    byte_tokenizer,
    fill,
    write_json,
    write_model_index,
)

QWEN_SPECIALS = tuple(
    f"<|{name}|>"
    for name in ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
)


def build_qwen_image(folder: Path) -> None:
    """Qwen-Image: Qwen2.5-VL text encoder, dual-stream DiT, causal 3D VAE."""
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel

    build_qwen_tokenizer(folder / "tokenizer")
    build_qwen_text_encoder(folder / "text_encoder")
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=8,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=TEXT_ENCODER_WIDTH,
        axes_dims_rope=(8, 12, 12),
    )
    fill(transformer, DIT_GAINS, DIT_BIAS_GAINS).save_pretrained(folder / "transformer")
    fill(AutoencoderKLQwenImage(base_dim=8, z_dim=LATENT_CHANNELS)).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        max_image_seq_len=8192,
        max_shift=0.9,
        shift_terminal=0.02,
        use_dynamic_shifting=True,
        time_shift_type="exponential",
    ).save_pretrained(folder / "scheduler")
    write_model_index(
        folder,
        "QwenImagePipeline",
        {
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
            "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration"),
            "tokenizer": ("transformers", "Qwen2Tokenizer"),
            "transformer": ("diffusers", "QwenImageTransformer2DModel"),
            "vae": ("diffusers", "AutoencoderKLQwenImage"),
        },
    )


def build_qwen_tokenizer(folder: Path) -> None:
    """Qwen2 tokenizer with one token a byte."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([*QWEN_SPECIALS, *byte_alphabet()])}
    PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(vocabulary, list(QWEN_SPECIALS)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(QWEN_SPECIALS[1:]),
    ).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(config | {"tokenizer_class": "Qwen2Tokenizer"}, folder / "tokenizer_config.json")
    write_json(vocabulary, folder / "vocab.json")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


def build_qwen_text_encoder(folder: Path) -> None:
    """Qwen2.5-VL; only its language model is used by text-to-image."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    token = QWEN_SPECIALS.index
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(QWEN_SPECIALS) + 256,
            "hidden_size": TEXT_ENCODER_WIDTH,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": TEXT_ENCODER_WIDTH,
            "fullatt_block_indexes": [0],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    fill(Qwen2_5_VLForConditionalGeneration(config)).save_pretrained(folder)
