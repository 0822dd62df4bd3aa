"""BAGEL: one stack of layers with two sets of weights, a SigLIP vision tower, the VAE of FLUX.1. All in one folder.

Names and widths are those of ByteDance-Seed/BAGEL-7B-MoT, as vLLM-Omni's two stages read them: the AR stage from the
weights for understanding, the DiT stage from those for generation (`…_moe_gen`); each also reads all other weights.
No installed library has the model, so its shapes are listed here. The vocabulary is small.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.checkpoints.parts import Layout, Part
from sweep.checkpoints.recipe import Recipe
from sweep.checkpoints.tokenizers import QWEN_SPECIALS, QWEN_VOCABULARY, write_qwen_tokenizer
from sweep.checkpoints.weights import Rules, Shape
from sweep.engines.diffusers.tiny_models.parts import READS_PICTURES, write_json

if TYPE_CHECKING:
    import torch

SPECIALS = (*QWEN_SPECIALS, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
"""`<|fim_middle|>` is where the AR stage puts the picture to edit; it is looked up even without an edit."""

LLM = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
TINY_LLM = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
VISION = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "image_size": 980}
TINY_VISION = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "image_size": 56}
PATCH = 14  # pixels of a patch of the vision tower
COLOURS = 3

LATENT, LATENT_PATCH, LATENTS_A_SIDE = 16, 2, 64
"""Channels of a latent pixel, latent pixels of a token each way, tokens of the largest picture each way."""

TIMESTEP = 256  # width of the sinusoidal embedding of a timestep
VAE_WIDTH, VAE_WIDTHS, VAE_BLOCKS = 128, (1, 2, 4, 4), 2
TINY_VAE_WIDTH = 32
"""vLLM-Omni always builds the VAE at its real size, so a tiny one loads nowhere."""


def layout(recipe: Recipe) -> Layout:
    """BAGEL-7B-MoT. The two parts are files of one folder."""
    llm, vision = (TINY_LLM, TINY_VISION) if recipe.tiny else (LLM, VISION)
    sizes = {"llm": llm_config(llm, recipe.layers["dit"]), "vit": vision_config(vision, recipe.layers["vision"])}

    def write_small(folder: Path) -> None:
        write_qwen_tokenizer(folder, specials=SPECIALS)
        side = {"height": vision["image_size"], "width": vision["image_size"]}
        write_json({**IMAGE_PROCESSOR, "size": side}, folder / "preprocessor_config.json")
        write_json(sizes["llm"], folder / "llm_config.json")
        write_json(sizes["vit"], folder / "vit_config.json")
        write_json(config(sizes["llm"], sizes["vit"]), folder / "config.json")
        ids = {"bos_token_id": SPECIALS.index("<|im_start|>"), "eos_token_id": SPECIALS.index("<|im_end|>")}
        write_json(ids | {"pad_token_id": 0}, folder / "generation_config.json")

    stack = _part("stack", "ema", stack_shapes(llm, vision, recipe), STACK_RULES)
    vae = _part("vae", "ae", vae_shapes(TINY_VAE_WIDTH if recipe.tiny else VAE_WIDTH), VAE_RULES)
    return Layout("", {}, (stack, vae), write_small, {}, index=write_weight_map)


def _part(name: str, stem: str, shapes: Mapping[str, Shape], rules: Rules) -> Part:
    return Part(".", stem, shapes, rules, lambda folder: None, name)


def never_end(name: str, tensor: "torch.Tensor") -> None:
    """Keep the most likely token from ever being a special one, such as the end of the text."""
    if name == "language_model.lm_head.weight":
        tensor[: len(SPECIALS)] = 0.0


STACK_RULES = Rules(
    gains={"pos_embed": 0.7, "position_embedding": 0.3, "lm_head": 2.0},
    tables=("embed_tokens", "pos_embed", "position_embedding"),
    reshape=never_end,
)
VAE_RULES = Rules(gains={"decoder.conv_out": 0.5})  # else one pixel in ten would be black or white

IMAGE_PROCESSOR: Mapping[str, Any] = {
    "image_processor_type": "SiglipImageProcessor",
    **READS_PICTURES,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def llm_config(widths: Mapping[str, int], layers: int) -> dict[str, Any]:
    """llm_config.json: a Qwen2 with normalised queries and keys."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **widths,
        "num_hidden_layers": layers,
        "max_window_layers": layers,
        "vocab_size": QWEN_VOCABULARY,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "bos_token_id": SPECIALS.index("<|im_start|>"),
        "eos_token_id": SPECIALS.index("<|im_end|>"),
        "torch_dtype": "bfloat16",
        "qk_norm": True,
        "layer_module": "Qwen2MoTDecoderLayer",
    }


def vision_config(widths: Mapping[str, int], layers: int) -> dict[str, Any]:
    """vit_config.json: SigLIP without its head."""
    return {
        "model_type": "siglip_vision_model",
        **widths,
        "num_hidden_layers": layers,
        "num_channels": COLOURS,
        "patch_size": PATCH,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "vision_use_head": False,
    }


def config(llm: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    """config.json."""
    return {
        "architectures": ["BagelForConditionalGeneration"],
        "model_type": "bagel",
        "torch_dtype": "bfloat16",
        "visual_gen": True,
        "visual_und": True,
        "llm_config": dict(llm),
        "vit_config": dict(vision),
        "vae_config": {"z_channels": LATENT, "downsample": 2 ** (len(VAE_WIDTHS) - 1)},
        "latent_patch_size": LATENT_PATCH,
        "max_latent_size": LATENTS_A_SIDE,
        "vit_max_num_patch_per_side": vision["image_size"] // PATCH,
        "connector_act": "gelu_pytorch_tanh",
        "interpolate_pos": False,
        "timestep_shift": 1.0,
    }


def write_weight_map(folder: Path) -> None:
    """model.safetensors.index.json: which file has which tensor, as vLLM looks for it in the folder."""
    places: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        places |= {name: path.name for name in header if name != "__metadata__"}
    write_json({"metadata": {}, "weight_map": places}, folder / "model.safetensors.index.json")


def stack_shapes(llm: Mapping[str, int], vision: Mapping[str, int], recipe: Recipe) -> dict[str, Shape]:
    """Language model, vision tower, and what connects them with each other and with latent pixels."""
    hidden, packed = llm["hidden_size"], LATENT * LATENT_PATCH**2
    patches = (vision["image_size"] // PATCH) ** 2
    shapes: dict[str, Shape] = {"language_model.model.embed_tokens.weight": (QWEN_VOCABULARY, hidden)}
    for layer in range(recipe.layers["dit"]):
        shapes |= _prefixed(f"language_model.model.layers.{layer}.", layer_shapes(llm))
    shapes |= {f"language_model.model.norm{kind}.weight": (hidden,) for kind in ("", "_moe_gen")}
    shapes["language_model.lm_head.weight"] = (QWEN_VOCABULARY, hidden)
    shapes |= _prefixed("vit_model.vision_model.", vision_shapes(vision, recipe.layers["vision"]))
    shapes |= _linear("connector.fc1", vision["hidden_size"], hidden) | _linear("connector.fc2", hidden, hidden)
    shapes["vit_pos_embed.pos_embed"] = (patches, hidden)
    shapes["latent_pos_embed.pos_embed"] = (LATENTS_A_SIDE**2, hidden)
    shapes |= _linear("time_embedder.mlp.0", TIMESTEP, hidden) | _linear("time_embedder.mlp.2", hidden, hidden)
    return shapes | _linear("vae2llm", packed, hidden) | _linear("llm2vae", hidden, packed)


def layer_shapes(llm: Mapping[str, int]) -> dict[str, Shape]:
    """A layer: attention and feed-forward, once for understanding and once (`_moe_gen`) for generation."""
    hidden, inner, heads = llm["hidden_size"], llm["intermediate_size"], llm["num_attention_heads"]
    head = hidden // heads
    keys = llm["num_key_value_heads"] * head
    shapes: dict[str, Shape] = {}
    for kind in ("", "_moe_gen"):
        shapes |= {f"{norm}{kind}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}
        for name, width in (("q", hidden), ("k", keys), ("v", keys)):
            shapes |= _linear(f"self_attn.{name}_proj{kind}", hidden, width)
        shapes[f"self_attn.o_proj{kind}.weight"] = (hidden, hidden)
        shapes |= {f"self_attn.{name}_norm{kind}.weight": (head,) for name in ("q", "k")}
        shapes |= {f"mlp{kind}.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        shapes[f"mlp{kind}.down_proj.weight"] = (hidden, inner)
    return shapes


def vision_shapes(vision: Mapping[str, int], layers: int) -> dict[str, Shape]:
    """SigLIP's vision tower; a patch is a row of pixels, not a kernel."""
    width, inner = vision["hidden_size"], vision["intermediate_size"]
    shapes = _linear("embeddings.patch_embedding", COLOURS * PATCH**2, width)
    shapes["embeddings.position_embedding.weight"] = ((vision["image_size"] // PATCH) ** 2, width)
    for layer in range(layers):
        of: dict[str, Shape] = {}
        for name in ("q", "k", "v", "out"):
            of |= _linear(f"self_attn.{name}_proj", width, width)
        of |= _linear("mlp.fc1", width, inner) | _linear("mlp.fc2", inner, width)
        of |= _norm("layer_norm1", width) | _norm("layer_norm2", width)
        shapes |= _prefixed(f"encoder.layers.{layer}.", of)
    return shapes | _norm("post_layernorm", width)


def vae_shapes(width: int) -> dict[str, Shape]:
    """Encoder and decoder of FLUX.1's VAE, by the names in its own code."""
    widths = [width * by for by in VAE_WIDTHS]
    shapes = _convolution("encoder.conv_in", COLOURS, width)
    inputs = width
    for level, outputs in enumerate(widths):
        for block in range(VAE_BLOCKS):
            shapes |= _residual(f"encoder.down.{level}.block.{block}", inputs, outputs)
            inputs = outputs
        if level < len(widths) - 1:
            shapes |= _convolution(f"encoder.down.{level}.downsample.conv", inputs, inputs)
    shapes |= _middle("encoder", inputs) | _convolution("encoder.conv_out", inputs, 2 * LATENT)
    shapes |= _convolution("decoder.conv_in", LATENT, widths[-1]) | _middle("decoder", widths[-1])
    inputs = widths[-1]
    for level, outputs in reversed(list(enumerate(widths))):
        for block in range(VAE_BLOCKS + 1):
            shapes |= _residual(f"decoder.up.{level}.block.{block}", inputs, outputs)
            inputs = outputs
        if level:
            shapes |= _convolution(f"decoder.up.{level}.upsample.conv", inputs, inputs)
    shapes |= _norm("decoder.norm_out", inputs) | _convolution("decoder.conv_out", inputs, COLOURS)
    return shapes | _norm("encoder.norm_out", widths[-1])


def _middle(owner: str, width: int) -> dict[str, Shape]:
    shapes = _norm(f"{owner}.mid.attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        shapes |= _convolution(f"{owner}.mid.attn_1.{name}", width, width, 1)
    for block in ("block_1", "block_2"):
        shapes |= _residual(f"{owner}.mid.{block}", width, width)
    return shapes


def _residual(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    shapes = _norm(f"{name}.norm1", inputs) | _convolution(f"{name}.conv1", inputs, outputs)
    shapes |= _norm(f"{name}.norm2", outputs) | _convolution(f"{name}.conv2", outputs, outputs)
    return shapes | (_convolution(f"{name}.nin_shortcut", inputs, outputs, 1) if inputs != outputs else {})


def _convolution(name: str, inputs: int, outputs: int, side: int = 3) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _prefixed(prefix: str, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}
