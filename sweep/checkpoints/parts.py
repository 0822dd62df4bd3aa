"""Parts of a checkpoint: networks known only by their shapes, and the helpers that describe them.

A network is built on torch's meta device, so that its names and shapes come from the library that will load it,
and no memory is used. Knows nothing of any one model.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.checkpoints.weights import Rules, Shape
from sweep.engines.diffusers.tiny_models.parts import write_json, write_model_index

COUNTER = "num_batches_tracked"
"""A batch normalisation's step count: the only stored integer, as a bfloat16 that the loader casts back."""

DIFFUSERS_STEM = "diffusion_pytorch_model"
TRANSFORMERS_STEM = "model"


@dataclass(frozen=True)
class Part:
    """One network: its folder, tensors (name → shape), and how to draw and describe them."""

    folder: str
    stem: str  # of its safetensors files
    shapes: Mapping[str, Shape]
    rules: Rules
    save_config: Callable[[Path], None]  # writes config.json into the given folder
    name: str = ""  # "" for the folder's name

    @property
    def label(self) -> str:
        """Its name, in messages and for drawing its tensors."""
        return self.name or self.folder

    @property
    def parameters(self) -> int:
        """Number of values."""
        return sum(math.prod(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class Layout:
    """A whole checkpoint."""

    pipeline: str  # diffusers class, which is also the name that vLLM-Omni knows
    components: Mapping[str, tuple[str, str]]  # folder → (library, class), as in model_index.json
    parts: tuple[Part, ...]
    write_small: Callable[[Path], None]  # tokenizers, processors, scheduler: into the checkpoint's folder
    residual_scaling: Mapping[str, object]
    settings: Mapping[str, object] = field(default_factory=dict)  # of the pipeline itself, in model_index.json
    index: Callable[[Path], None] | None = None  # writes another index, once all weights are there

    def write_index(self, folder: Path) -> None:
        """Write model_index.json, or the model's own equivalent."""
        if self.index is not None:
            self.index(folder)
        else:
            write_model_index(folder, self.pipeline, self.components, self.settings)


def diffusers_part(folder: str, model: type[Any], config: Mapping[str, Any], rules: Rules) -> Part:
    """A network of diffusers' `model` class."""
    network = on_meta(lambda: model(**config))
    return Part(folder, DIFFUSERS_STEM, shapes_of(network), rules, network.save_config)


def transformers_part(folder: str, model: type[Any], config: Any, rules: Rules, **more_files: object) -> Part:
    """A network of transformers' `model` class. `more_files` are JSON files next to config.json, by stem."""
    network = on_meta(lambda: model(config))

    def save_config(where: Path) -> None:
        config.save_pretrained(where)
        path = where / "config.json"
        saved = json.loads(path.read_text(encoding="utf-8")) | {"architectures": [model.__name__], "dtype": "bfloat16"}
        for sub in [key for key, value in saved.items() if key.endswith("_config") and isinstance(value, dict)]:
            saved[sub] = saved[sub] | {"dtype": "bfloat16"}
        write_json(saved, path)
        for stem, data in more_files.items():
            write_json(data, where / f"{stem}.json")

    return Part(folder, TRANSFORMERS_STEM, shapes_of(network), rules, save_config)


def on_meta(make: Callable[[], Any]) -> Any:
    """What `make` builds, with shapes but no memory."""
    import torch

    with torch.device("meta"):
        return make()


def shapes_of(network: Any) -> dict[str, Shape]:
    """Names and shapes of all that a checkpoint stores; a tied tensor only under its first name."""
    shapes: dict[str, Shape] = {}
    seen: set[int] = set()
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if not tensor.is_floating_point() and not name.endswith(COUNTER):
            raise TypeError(f"{name} is {tensor.dtype}: only floating-point tensors are drawn")
        shapes[name] = tuple(tensor.shape)
    return shapes


def write_scheduler(folder: Path, **config: Any) -> None:
    """Write the flow-matching Euler scheduler that all these models use."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    FlowMatchEulerDiscreteScheduler(**config).save_pretrained(folder / "scheduler")
