"""A random LoRA adapter for a checkpoint: `python -m sweep.checkpoints lora --base DIR`, in PEFT's format.

Both matrices are random, so that the adapter changes pictures; a fresh one of PEFT would change nothing.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.checkpoints import shards
from sweep.checkpoints.recipe import CheckpointError
from sweep.checkpoints.weights import Rules, Sampler, Shape
from sweep.engines import tensor_files
from sweep.engines.checkpoint_files import fingerprint, put_in_place
from sweep.engines.lora_files import CONFIG, WEIGHTS, A, B
from sweep.places import cache_folder

if TYPE_CHECKING:
    import torch

NAME = "lora"

TARGETS = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
"""Projections into attention, as PEFT and diffusers name them; vLLM-Omni fuses them itself."""

STRENGTH = 0.3
"""Size of the adapter's product relative to that of random weights of the same layer."""

MOST_RANK = 1024


def build(base: Path, name: str, out: Path | None, rank: int, seed: int) -> Path:
    """Write an adapter of this rank for the DiT of the checkpoint in `base`, which is called `name`.

    Raises CheckpointError.
    """
    if not 1 <= rank <= MOST_RANK:
        raise CheckpointError(f"--rank {rank}: must be from 1 to {MOST_RANK}")
    layers = layers_of(base)
    folder = (out or cache_folder() / f"lora-{name}-rank{rank}-seed{seed}").expanduser().absolute()
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": name,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "bias": "none",
        "random": {"base": fingerprint(base / "transformer"), "seed": seed},
    }
    if (folder / CONFIG).is_file() and (folder / CONFIG).read_text(encoding="utf-8") == _text(config):
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder} is already there and holds something else; choose another with --out DIR")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error.strerror}); choose another with --out") from error
    try:
        _write(building, layers, rank, seed)
        (building / CONFIG).write_text(_text(config), encoding="utf-8")
        building.chmod(0o755)
        put_in_place(building, folder, lambda place: "")
    except OSError as error:
        raise CheckpointError(f"{folder}: writing failed ({error.strerror or error})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def layers_of(base: Path) -> dict[str, Shape]:
    """The DiT's projections into attention, with (outputs, inputs). Raises CheckpointError."""
    try:
        shapes = tensor_files.shapes_in(base / "transformer")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"--base {base}: the weights of its DiT cannot be read ({error})") from error
    names = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
    found: dict[str, Shape] = {
        name: shape for name, shape in names.items() if name.rpartition(".")[2] in TARGETS and len(shape) == 2
    }
    if not found:
        raise CheckpointError(f"--base {base}: no checkpoint whose transformer has {', '.join(TARGETS[:3])}")
    return found


def _write(folder: Path, layers: dict[str, Shape], rank: int, seed: int) -> None:
    shapes: dict[str, Shape] = {}
    for name, (outputs, inputs) in layers.items():
        shapes[f"base_model.model.transformer.{name}{A}"] = (rank, inputs)
        shapes[f"base_model.model.transformer.{name}{B}"] = (outputs, rank)
    rules = Rules(gains={B: STRENGTH})
    sampler = Sampler(seed, "cpu")

    def draw(name: str, shape: Shape) -> "torch.Tensor":
        return sampler.draw(NAME, name, shape, rules)

    shards.write(folder, Path(WEIGHTS).stem, shapes, draw, limit=2**62)


def _text(config: dict[str, object]) -> str:
    return json.dumps(config, indent=2) + "\n"
