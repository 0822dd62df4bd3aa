"""Tiny random-weight checkpoints of GLM-Image and Qwen-Image, built from a seed at first use, never downloaded.

Real architectures in diffusers' folder layout with tiny widths, so that AR prefill, AR decode, DiT and
VAE all run on one CPU core. Weights are scaled so that the image depends on the prompt and changes
slowly with the timestep (otherwise no cache would ever fire); they say nothing about quality.
Knows nothing of engines or features.
"""

# diffusers' lazy exports and one-element tuple hints mislead the type checker:
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportCallIssue=false

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

Network = TypeVar("Network", bound="torch.nn.Module")

SEED = 20
TEXT_ENCODER_WIDTH = 64
LATENT_CHANNELS = 16
CODEBOOK = 1024  # GLM-Image's image tokens; also the AR head's width, so that only image tokens can be sampled
IMAGE_START, IMAGE_END = CODEBOOK, CODEBOOK + 1  # outside the head: generation only ends at its token count
GLM_SPECIALS = ("<|endoftext|>", "<sop>", "<eop>", "<|image|>")  # after image start and end
GLM_PAD, GLM_GRID_START, GLM_GRID_END, GLM_IMAGE = range(CODEBOOK + 2, CODEBOOK + 6)
GLM_VOCABULARY = CODEBOOK + 6 + 256  # then one token a byte
QWEN_SPECIALS = tuple(
    f"<|{name}|>"
    for name in ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
)
GLM_CHAT_TEMPLATE = (
    "{%- for message in messages -%}{%- if message.content is string -%}{{ message.content }}{%- else -%}"
    "{%- for item in message.content -%}{%- if item.type == 'image' -%}"
    "<|image_start|><|image|><|image_end|>"
    "{%- elif item.type == 'text' -%}{{ item.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
)


def cache_folder() -> Path:
    """Where checkpoints are kept: $SWEEP_CACHE, else $XDG_CACHE_HOME/sweep, else ~/.cache/sweep."""
    if chosen := os.environ.get("SWEEP_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweep"


def ensure_checkpoint(name: str) -> Path:
    """Return the folder of the tiny checkpoint `name`, building it first if need be (about two seconds).

    Safe when several processes build at once: each builds its own copy, the first rename wins.
    Raises KeyError for an unknown name.
    """
    build = BUILDERS[name]
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:10]  # any change of a builder: a new folder
    folder = cache_folder() / f"{name}-v1-{version}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        import torch

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            build(building)
        building.chmod(0o755)
        try:
            building.rename(folder)
        except OSError:
            if not folder.is_dir():  # not a lost race
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def fill(
    model: Network, gains: Mapping[str, float] | None = None, bias_gains: Mapping[str, float] | None = None
) -> Network:
    """Set every parameter from its own name and SEED: zero biases, unit norms, matrices of gain / sqrt(fan in).

    `gains` maps a part of a parameter's name to its gain (last match wins; default 1). Embedding tables get the
    gain as their standard deviation, as do the biases that `bias_gains` names.
    """
    import torch

    for name, parameter in model.named_parameters():
        digest = hashlib.sha256(f"{SEED} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
        gain = ([1.0] + [value for part, value in (gains or {}).items() if part in name])[-1]
        if name.endswith("bias"):
            bias_gain = ([0.0] + [value for part, value in (bias_gains or {}).items() if part in name])[-1]
            parameter.normal_(0.0, 1.0, generator=generator).mul_(bias_gain)
        elif parameter.ndim < 2 or name.endswith("gamma"):
            parameter.fill_(1.0)
        else:
            embedding = any(part in name for part in ("embed_tokens", "embedding.weight", "shared", "attention_bias"))
            fan_in = 1 if embedding else math.prod(parameter.shape[1:])
            parameter.normal_(0.0, gain / math.sqrt(fan_in), generator=generator)
    return model.eval()


def write_json(data: object, path: Path) -> None:
    """Write `data` as indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def byte_tokenizer(vocabulary: dict[str, int], special: list[str]) -> "Tokenizer":
    """A byte-level BPE tokenizer without merges: any text is encodable, one token a byte."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in a byte-level tokenizer."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


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
    FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, base_image_seq_len=256, time_shift_type="linear"
    ).save_pretrained(folder / "scheduler")
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
    from transformers import PreTrainedTokenizerFast

    names = [f"<|code_{i}|>" for i in range(CODEBOOK)] + ["<|image_start|>", "<|image_end|>", *GLM_SPECIALS]
    vocabulary = {token: i for i, token in enumerate(names + byte_alphabet())}
    PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(vocabulary, ["<|image_start|>", "<|image_end|>", *GLM_SPECIALS]),
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
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "resample": 3,
            "rescale_factor": 1 / 255,
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

    config = T5Config(
        vocab_size=384,
        d_model=TEXT_ENCODER_WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    fill(T5EncoderModel(config)).save_pretrained(folder)


def build_glm_ar(folder: Path) -> None:
    """AR model: text and image tokens in, image tokens out; vision tower and VQ codebook for edits."""
    from transformers import GenerationConfig, GlmImageConfig, GlmImageForConditionalGeneration

    config = GlmImageConfig(
        text_config={
            "vocab_size": GLM_VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
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
        # 256 learned positions, interpolated to any size
        vision_config={
            "depth": 1,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "image_size": 256,
            "patch_size": 16,
        },
        vq_config={"num_embeddings": CODEBOOK, "embed_dim": 32, "latent_channels": 64},
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


DIT_GAINS = {
    "time_condition_embed": 0.5,
    "timestep_embedder": 0.1,  # a slowly changing timestep signal: caches can fire
    "proj_out": 0.5,
}
DIT_BIAS_GAINS = {  # gates that are open at every timestep: blocks matter, and text reaches the image
    "norm1.linear": 0.4,
    "img_mod": 0.4,
    "txt_mod": 0.4,
}


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


def write_model_index(folder: Path, pipeline: str, parts: Mapping[str, tuple[str, str]]) -> None:
    """Write diffusers' model_index.json."""
    import diffusers

    index: dict[str, object] = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    write_json(index | {part: list(where) for part, where in parts.items()}, folder / "model_index.json")


BUILDERS: dict[str, Callable[[Path], None]] = {
    "tiny_glm_image": build_glm_image,
    "tiny_qwen_image": build_qwen_image,
}
