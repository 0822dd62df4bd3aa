"""Parts that the builders of tiny checkpoints share: seeded weights, byte tokenizers, files of diffusers' layout."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

Network = TypeVar("Network", bound="torch.nn.Module")

READS_PICTURES = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
}
"""What image processors of all models have in common."""

SEED = 20
TEXT_ENCODER_WIDTH = 64
LATENT_CHANNELS = 16
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


def write_model_index(
    folder: Path, pipeline: str, parts: Mapping[str, tuple[str, str]], settings: Mapping[str, object] | None = None
) -> None:
    """Write diffusers' model_index.json. `settings` are arguments of the pipeline besides its parts."""
    import diffusers

    index: dict[str, object] = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    index |= settings or {}
    write_json(index | {part: list(where) for part, where in parts.items()}, folder / "model_index.json")
