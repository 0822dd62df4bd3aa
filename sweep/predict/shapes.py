"""A model's shape: as conf/model says it, as a checkpoint's own config files say it, or at another depth.

Reads files of configuration and the headers of weights, never weights. Knows nothing of what shapes are used for.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sweep.config.model import Dit, Model, Stack, Vae, Vision
from sweep.config.run import CONF
from sweep.engines import tensor_files
from sweep.plan.typed import typed
from sweep.predict import decoder
from sweep.refusals import ConfigError, nearest

_FOLDERS = {"ar": "vision_language_encoder", "text_encoder": "text_encoder"}


@lru_cache(maxsize=64)
def named(name: str) -> Model:
    """The model of conf/model/NAME.yaml. Raises ConfigError with the nearest name."""
    path = CONF / "model" / f"{name}.yaml"
    if "/" in name or not path.is_file():
        known = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))
        raise ConfigError(f"model={name}: no such model{nearest(name, known)}")
    import yaml

    return typed(
        yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)), Model, name
    )


def at_depth(model: Model, layers: Mapping[str, int], parameters: Mapping[str, int] | None = None) -> Model:
    """The same model with other numbers of layers: `dit`, `ar`, `text` and `vision`, as sweep.checkpoints builds them.

    `parameters` of its folders (text_encoder, …) say how many there are; without it, only the layers' are subtracted.
    """
    changed: dict[str, Any] = {}
    if model.dit is not None and "dit" in layers:
        whole = model.dit.joined_layers == model.dit.layers
        joined = layers["dit"] if whole else round(model.dit.joined_layers * layers["dit"] / model.dit.layers)
        changed["dit"] = dataclasses.replace(model.dit, layers=layers["dit"], joined_layers=joined)
    for name, part in (("ar", "ar"), ("text_encoder", "text")):
        stack = getattr(model, name)
        if stack is not None and part in layers:
            fewer = (stack.layers - layers[part]) * decoder.layer_parameters(stack) / 1e9
            left = max(0.0, stack.params_b - fewer)
            said = (parameters or {}).get(_FOLDERS[name])
            changed[name] = dataclasses.replace(stack, layers=layers[part], params_b=said / 1e9 if said else left)
    if model.vision is not None and "vision" in layers:
        changed["vision"] = dataclasses.replace(model.vision, layers=layers["vision"], whole_layers=1)
    return dataclasses.replace(model, **changed)


def of_checkpoint(model: Model, folder: Path) -> Model:
    """The same model with the shapes that the config.json files of a checkpoint in diffusers' layout say.

    How many parameters a part has is counted in the headers of its safetensors. What files do not say, and files that
    are not there, stay as they are. Raises ConfigError for one that cannot be read.
    """
    changed: dict[str, Any] = {}
    for part, field, read in _PARTS:
        if field == "text_encoder" and (folder / SECOND / "config.json").is_file():
            part = SECOND
        path = folder / part / "config.json"
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            shape = read(found, getattr(model, field))
            count = parameters(folder / part) if field != "vision" else 0  # the text encoder's
            changed[field] = dataclasses.replace(shape, params_b=count / 1e9) if shape is not None and count else shape
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: no shape can be read from it ({type(error).__name__}: {error})") from error
    changed |= _of_one_stack(model, folder)
    return dataclasses.replace(model, **{name: value for name, value in changed.items() if value is not None})


def _of_one_stack(model: Model, folder: Path) -> dict[str, Any]:
    """AR stage and DiT of a model whose one stack is both (BAGEL), by its llm_config.json; {} for other models."""
    path = folder / "llm_config.json"
    if model.dit is None or not model.dit.cached_text or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        ar = dataclasses.replace(_stack(found, model.ar) or Stack(), vocab=int(found["vocab_size"]))
        same = {
            name: getattr(ar, name) for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate")
        }
        count = decoder.of(ar, 1).weights + ar.vocab * ar.hidden
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no shape can be read from it ({type(error).__name__}: {error})") from error
    dit = dataclasses.replace(model.dit, **same, joined_layers=ar.layers, params_b=0.0)
    return {"ar": dataclasses.replace(ar, params_b=count / 1e9), "dit": dit}


SECOND = "text_encoder_2"
"""Folder of the larger of FLUX.1's text encoders. From the first, a CLIP, only one vector reaches the DiT."""


def parameters(folder: Path) -> int:
    """Parameters in the safetensors of a folder, by their headers; 0 without any.

    A second copy in another precision (`model.fp16.safetensors`) is not counted. Raises ValueError for a file that is
    not safetensors, and OSError.
    """
    files = tensor_files.files(folder)
    return sum(math.prod(shape) for path in files for shape in tensor_files.shapes(path).values())


def to_json(model: Model) -> dict[str, Any]:
    """The shapes of a model as JSON values, for manifest.json."""
    shapes = {name: getattr(model, name) for _, name, _ in _PARTS}
    return {name: dataclasses.asdict(shape) for name, shape in shapes.items() if shape is not None}


def with_shapes(model: Model, stored: Mapping[str, Any]) -> Model:
    """The same model with shapes that `to_json` made. Raises ConfigError for what it did not make."""
    kinds: Mapping[str, type[Any]] = {"dit": Dit, "vae": Vae, "text_encoder": Stack, "vision": Vision, "ar": Stack}
    found = {name: typed(values, kinds[name], f"shapes.{name}") for name, values in stored.items() if name in kinds}
    return dataclasses.replace(model, **found)


def _dit(config: Mapping[str, Any], known: Dit | None) -> Dit | None:
    kind = config.get("_class_name", "")
    if known is None or kind not in _DITS:
        return known
    return dataclasses.replace(known, **_DITS[kind](config))


def _qwen(config: Mapping[str, Any]) -> dict[str, Any]:
    hidden = config["num_attention_heads"] * config["attention_head_dim"]
    heads = config["num_attention_heads"]
    return {
        "layers": config["num_layers"],
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": config["attention_head_dim"],
        "intermediate": 4 * hidden,
        "context": config["joint_attention_dim"],
        "channels": config.get("out_channels") or config["in_channels"] // 4,
    }


def _flux(config: Mapping[str, Any]) -> dict[str, Any]:
    single = config["num_single_layers"]
    found = _qwen({**config, "num_layers": config["num_layers"] + single, "out_channels": None})
    return {**found, "joined_layers": single}


def _flux2(config: Mapping[str, Any]) -> dict[str, Any]:
    found = _flux(config)
    return {
        **found,
        "intermediate": int(found["hidden"] * config.get("mlp_ratio", 3.0)),
        "gated": True,
        "shared_modulation": True,
        "channels": config["in_channels"] // 4,
    }


def _glm(config: Mapping[str, Any]) -> dict[str, Any]:
    found = _qwen({**config, "joint_attention_dim": config["text_embed_dim"]})
    return {
        **found,
        "joined_layers": config["num_layers"],
        "modulation_in": config["time_embed_dim"],
        "prior": config["prior_vq_quantizer_codebook_size"],
    }


def _z_image(config: Mapping[str, Any]) -> dict[str, Any]:
    width, heads = config["dim"], config["n_heads"]
    return {
        "layers": config["n_layers"],
        "joined_layers": config["n_layers"],
        "refiners": config.get("n_refiner_layers", 2),
        "hidden": width,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": width // heads,
        "intermediate": int(width / 3 * 8),
        "modulation_in": min(width, 256),
        "context": config["cap_feat_dim"],
        "channels": config.get("in_channels", 16),
    }


_DITS = {
    "QwenImageTransformer2DModel": _qwen,
    "FluxTransformer2DModel": _flux,
    "Flux2Transformer2DModel": _flux2,
    "GlmImageTransformer2DModel": _glm,
    "ZImageTransformer2DModel": _z_image,
}


def _vae(config: Mapping[str, Any], known: Vae | None) -> Vae | None:
    kind = config.get("_class_name", "")
    if kind == "AutoencoderKLQwenImage":
        widths = [config["base_dim"] * by for by in config["dim_mult"]]
        return Vae(
            channels=widths[::-1],
            blocks=config["num_res_blocks"] + 1,
            latent=config["z_dim"],
            attention=True,
            causal=True,
        )
    if kind in ("AutoencoderKL", "AutoencoderKLFlux2"):
        return Vae(
            channels=config["block_out_channels"][::-1],
            blocks=config["layers_per_block"] + 1,
            latent=config["latent_channels"],
            attention=config.get("mid_block_add_attention", True),
        )
    return known


def _stack(config: Mapping[str, Any], known: Stack | None) -> Stack | None:
    """A text encoder or AR stage of transformers; T5 has its own key names, larger models a text_config."""
    tokens = known.tokens if known is not None else 0
    if "d_model" in config:
        return Stack(
            layers=config["num_layers"],
            hidden=config["d_model"],
            heads=config["num_heads"],
            kv_heads=config["num_heads"],
            head_dim=config["d_kv"],
            intermediate=config["d_ff"],
            gated="gated" in config.get("feed_forward_proj", ""),
            tokens=tokens,
        )
    text = config.get("text_config") or config
    return Stack(
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        heads=text["num_attention_heads"],
        kv_heads=text.get("num_key_value_heads", text["num_attention_heads"]),
        head_dim=text.get("head_dim") or 0,
        intermediate=text["intermediate_size"],
        vocab=text.get("vision_vocab_size", 0) if known is not None and known.vocab else 0,
        gated=True,
        tokens=tokens,
    )


def _vision(config: Mapping[str, Any], known: Vision | None) -> Vision | None:
    """The vision tower of Qwen2.5-VL; for other models the known one."""
    found = config.get("vision_config") or {}
    if known is None or "fullatt_block_indexes" not in found:
        return known
    return Vision(
        layers=found["depth"],
        hidden=found["hidden_size"],
        heads=found["num_heads"],
        kv_heads=found["num_heads"],
        intermediate=found["intermediate_size"],
        gated=True,
        patch=found["patch_size"],
        merge=found["spatial_merge_size"],
        window=found["window_size"],
        whole_layers=len(found["fullatt_block_indexes"]),
    )


_PARTS = (
    ("transformer", "dit", _dit),
    ("vae", "vae", _vae),
    ("text_encoder", "text_encoder", _stack),
    ("text_encoder", "vision", _vision),
    ("vision_language_encoder", "ar", _stack),
)
"""Folder of a checkpoint, field of a Model, reader."""
