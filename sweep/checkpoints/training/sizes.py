"""Sizes of the trained model: about 5.0 million parameters, so that fp16 weights stay below 10 MB. Plain data."""

from typing import Any

from sweep.checkpoints.world.scenes import LONGEST_TEXT
from sweep.engines.diffusers.tiny_models import glm_image, parts

# As in every tiny GLM-Image: image tokens, the only ones that the AR head can sample, and those after them
CODEBOOK, IMAGE_START, IMAGE_END = glm_image.CODEBOOK, glm_image.IMAGE_START, glm_image.IMAGE_END
PAD, IMAGE = glm_image.GLM_PAD, glm_image.GLM_IMAGE
LATENT_CHANNELS = parts.LATENT_CHANNELS
GLYPH_ENCODER, SCHEDULER = glm_image.GLYPH_ENCODER, glm_image.SCHEDULER
SPECIALS = ("<|image_start|>", "<|image_end|>", *glm_image.GLM_SPECIALS)
"""Names of the tokens that follow the image tokens, in order."""

SIDE = 64  # pixels of the pictures that it is trained on
GRID = SIDE // 32  # target tokens in a row; each covers 32×32 pixels
LATENT_SIDE = SIDE // 8
SOURCE_SIDE = SIDE // 2  # of a picture to edit, as GlmImageProcessor halves it for the vision tower

GLYPHS = LONGEST_TEXT * 3 + 4
"""Bytes of the longest text with its end, padded so that glyphs and image tokens together are a multiple of 8."""

AR: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
}
ROTARY = 16  # of 32 dimensions of a head
ROPE_THETA = 10.0  # with 10,000 neighbouring columns of so small a grid look alike
ROPE_SECTIONS = (2, 3, 3)  # frequencies for time, row and column

VISION: dict[str, Any] = {  # a patch of the halved picture is one image token; 4×4 positions, interpolated to the grid
    "depth": 2,
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_heads": 4,
    "image_size": SIDE,
    "patch_size": SOURCE_SIDE // GRID,
}
VISION_CODES: dict[str, Any] = {"num_embeddings": CODEBOOK, "embed_dim": 32, "latent_channels": VISION["hidden_size"]}

DIT: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "num_layers": 20,
    "attention_head_dim": 24,
    "num_attention_heads": 4,
    "text_embed_dim": GLYPH_ENCODER["d_model"],
    "time_embed_dim": 32,
    "condition_dim": 16,
    "prior_vq_quantizer_codebook_size": CODEBOOK,
}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 48, 48),
    "layers_per_block": 1,
    "latent_channels": LATENT_CHANNELS,
    "norm_num_groups": 8,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": False,
}


def shift(side: int = SIDE) -> float:
    """How far the scheduler shifts noise levels for a picture of this side in pixels (GlmImagePipeline's rule)."""
    tokens = (side // (8 * DIT["patch_size"])) ** 2
    return float((tokens / SCHEDULER["base_image_seq_len"]) ** 0.5 * SCHEDULER["max_shift"] + SCHEDULER["base_shift"])
