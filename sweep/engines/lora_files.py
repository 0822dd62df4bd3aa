"""A LoRA adapter's folder, in PEFT's format: what it holds, and whether it fits a checkpoint.

Reads its configuration and the headers of tensors, so it is quick and needs no torch. Knows nothing of how an engine
applies an adapter.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.config.model import Model
from sweep.engines import tensor_files
from sweep.engines.tensor_files import Shape
from sweep.refusals import require

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

PREFIXES = ("base_model.model.", "transformer.")
"""What names of tensors begin with, in this order; each may be missing."""

A, B = ".lora_A.weight", ".lora_B.weight"

NAMED = 3
"""How many layers a message names at most."""


@dataclass(frozen=True)
class Adapter:
    """An adapter as its folder describes it. `layers` are names in the DiT, with the shapes of A and B:
    (rank, inputs) and (outputs, rank)."""

    rank: int
    alpha: float
    base: str  # the model that it says it was made for; "" if it does not say
    layers: Mapping[str, tuple[Shape, Shape]]


def read(folder: Path, asked: str) -> Adapter:
    """The adapter in a folder. `asked` begins every message: `feature.lora.path=DIR`. Raises ConfigError."""
    require(folder.is_dir(), f"{asked}: no such folder")
    for name in (CONFIG, WEIGHTS):
        found = ", ".join(sorted(file.name for file in folder.iterdir())[:NAMED]) or "nothing"
        require((folder / name).is_file(), f"{asked}: not a LoRA adapter, because it has no {name} (it has {found})")
    config = _json(folder / CONFIG, asked)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    whole = isinstance(rank, int) and not isinstance(rank, bool) and rank > 0
    require(whole and isinstance(alpha, int | float), f"{asked}: {CONFIG} needs r and lora_alpha, as PEFT writes them")
    assert isinstance(rank, int)
    assert isinstance(alpha, int | float)
    for name, value in (("use_dora", False), ("bias", "none"), ("modules_to_save", None)):
        given = config.get(name, value)
        require(not given or given == value, f"{asked}: {CONFIG} has {name}={given}, which no engine here applies")
    try:
        shapes = tensor_files.shapes(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        require(False, f"{asked}: {WEIGHTS} cannot be read ({error})")
        raise  # never reached
    return Adapter(rank, alpha, str(config.get("base_model_name_or_path") or ""), _layers(shapes, rank, asked))


def _json(path: Path, asked: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    require(isinstance(found, dict), f"{asked}: {path.name} is no JSON object")
    assert isinstance(found, dict)
    return found


def _layers(shapes: Mapping[str, Shape], rank: int, asked: str) -> dict[str, tuple[Shape, Shape]]:
    pairs: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        kind = next((end for end in (A, B) if name.endswith(end)), "")
        require(bool(kind), f"{asked}: {WEIGHTS} has {name}, which is no lora_A or lora_B of a linear layer")
        pairs.setdefault(layer_of(name), {})[kind] = shape
    require(bool(pairs), f"{asked}: {WEIGHTS} has no tensors")
    for layer, pair in pairs.items():
        require(len(pair) == 2, f"{asked}: {layer} has only one of lora_A and lora_B")
        ranks = (pair[A][:1], pair[B][1:])
        flat = len(pair[A]) == len(pair[B]) == 2
        require(flat and ranks == ((rank,), (rank,)), f"{asked}: {layer} is not of rank {rank}, as {CONFIG} says")
    return {layer: (pair[A], pair[B]) for layer, pair in pairs.items()}


def layer_of(tensor: str) -> str:
    """The layer in the DiT that a tensor of an adapter belongs to."""
    name = tensor.removesuffix(A).removesuffix(B)
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def check_fit(adapter: Adapter, checkpoint: Path, asked: str) -> None:
    """Raise ConfigError unless every layer of the adapter is one of the checkpoint's DiT, with the same widths."""
    try:
        shapes = tensor_files.shapes_in(checkpoint / "transformer")
    except (OSError, ValueError, KeyError, TypeError):
        return  # another layout, or damage that loading it will report
    if not shapes:
        return
    made = f", which was made for {adapter.base}" if adapter.base else ""
    known = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
    absent = sorted(layer for layer in adapter.layers if layer not in known)
    named = ", ".join(absent[:NAMED]) + (f" and {len(absent) - NAMED} more" if len(absent) > NAMED else "")
    require(not absent, f"{asked}: an adapter of another model{made}: {checkpoint} has no layer {named}")
    for layer, (one, two) in adapter.layers.items():
        outputs, inputs = two[0], one[1]
        require(
            known[layer] == (outputs, inputs),
            f"{asked}: an adapter of another model{made}: its {layer} takes {inputs} values to {outputs}, "
            f"and that of {checkpoint} {' x '.join(str(size) for size in reversed(known[layer]))}",
        )


def check(options: Mapping[str, Any], checkpoint: Path | None) -> Adapter:
    """The adapter that feature.lora names, checked against the checkpoint (None: there is none yet to compare with).

    Raises ConfigError.
    """
    path = options.get("path")
    require(
        isinstance(path, str) and bool(path),
        "feature.lora.path is missing: write feature.lora.path=DIR, the folder of an adapter; "
        "python -m sweep.checkpoints lora --base DIR builds a random one",
    )
    asked = f"feature.lora.path={path}"
    adapter = read(Path(str(path)), asked)
    most = options.get("max_rank")
    require(
        not isinstance(most, int) or adapter.rank <= most,
        f"{asked}: its rank of {adapter.rank} is above {most}, the largest that vLLM's LoRA layers take",
    )
    if checkpoint is not None:
        check_fit(adapter, checkpoint, asked)
    return adapter


def other_base(adapter: Adapter, model: Model) -> str:
    """One line where the adapter says that it was made for another model; else ""."""
    base = adapter.base.rstrip("/")
    own = {model.name, model.family, model.repo, model.path or "", Path(model.path or "").name}
    if not base or base in own or base.rsplit("/", 1)[-1] in own:
        return ""
    return f"the LoRA adapter says that it was made for {base}, and the model is {model.name}"
