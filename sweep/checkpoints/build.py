"""Builds a checkpoint from a recipe, in a temporary sibling folder that is renamed when everything is written."""

import importlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from sweep.checkpoints import marker, shards
from sweep.checkpoints.parts import Layout
from sweep.checkpoints.recipe import CheckpointError, Recipe
from sweep.checkpoints.weights import Sampler
from sweep.engines.checkpoint_files import put_in_place, sizes

BUILDERS: Mapping[str, str] = {  # model → module with `layout`
    "qwen_image": "sweep.checkpoints.qwen_image",
    "qwen_image_edit": "sweep.checkpoints.qwen_image",
    "z_image": "sweep.checkpoints.z_image",
    "glm_image": "sweep.checkpoints.glm_image",
    "flux": "sweep.checkpoints.flux",
    "flux2_klein": "sweep.checkpoints.flux2_klein",
    "bagel": "sweep.checkpoints.bagel",
}
SMALL_FILES_BYTES = 64 * 2**20  # tokenizers and configs, generously
GB = 1e9

SIZES = ".sizes.json"
"""Bytes of every file of weights, as written."""

Say = Callable[[str], None]


def layout_of(recipe: Recipe) -> Layout:
    """Parts and files of the checkpoint; takes a second or two and no memory at any size."""
    layout: Layout = importlib.import_module(BUILDERS[recipe.model]).layout(recipe)
    return layout


def build(recipe: Recipe, folder: Path, say: Say = print, device: str | None = None) -> bool:
    """Build `recipe` in `folder`, drawing on `device` ("cuda" where there is one, else "cpu").

    Returns False and writes nothing when the folder already holds this recipe; one whose weights are missing or cut
    short is built again. Raises CheckpointError when it holds anything else, when it cannot be written, or when the
    disk is too small.
    """
    if already_there(recipe, folder):
        problem = damage(folder)
        if not problem:
            return False
        say(f"{folder} is damaged ({problem}), so it is built again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error.strerror}); choose another with --out") from error
    try:
        layout = layout_of(recipe)
        require_space(folder, layout)
        write(recipe, layout, building, say, device or default_device())
        building.chmod(0o755)
        put_in_place(building, folder, lambda place: "" if not already_there(recipe, place) else damage(place))
    except OSError as error:
        raise CheckpointError(f"{folder}: writing failed ({error.strerror or error})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return True


def already_there(recipe: Recipe, folder: Path) -> bool:
    """Whether `folder` holds this recipe. Raises CheckpointError when it holds something else."""
    if folder.is_dir():
        if not any(folder.iterdir()):
            return False
        record = marker.read_marker(folder)
        if record is None:
            raise CheckpointError(f"{folder} is not a random-weight checkpoint; choose another folder with --out")
        wanted = recipe.identity()
        other = [f"{key}={record.get(key)}" for key, value in wanted.items() if record.get(key) != value]
        if other:
            raise CheckpointError(
                f"{folder} holds another checkpoint ({', '.join(other)}); use another --out, or remove it"
            )
        return True
    if folder.exists() or folder.is_symlink():
        raise CheckpointError(f"{folder} is a file; choose a folder with --out")
    return False


def damage(folder: Path) -> str:
    """Which file of weights is missing or has a different size from the recorded one; "" when none is.

    Contents are not read, which would take minutes. Checkpoints of earlier versions do not record their sizes.
    """
    try:
        recorded: dict[str, int] = json.loads((folder / SIZES).read_text(encoding="utf-8"))
        found = sizes(folder)
    except (OSError, ValueError):
        return ""
    wrong = (name for name, size in recorded.items() if found.get(name) != size)
    return next((f"{name} has {found.get(name, 0):,} bytes instead of {recorded[name]:,}" for name in wrong), "")


def require_space(folder: Path, layout: Layout) -> None:
    """Raise CheckpointError unless the disk under `folder` holds `layout`."""
    needed = sum(part.parameters for part in layout.parts) * shards.BYTES + SMALL_FILES_BYTES
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise CheckpointError(
            f"the checkpoint needs {needed / GB:.1f} GB, but {folder.parent} has only {free / GB:.1f} GB free; "
            "build fewer layers, or choose another disk with --out"
        )


def write(recipe: Recipe, layout: Layout, folder: Path, say: Say, device: str) -> None:
    """Write every file of the checkpoint into `folder`, the marker last."""
    sampler = Sampler(recipe.seed, device)
    layout.write_small(folder)
    for part in layout.parts:
        started = time.perf_counter()

        def progress(done: int, of: int, name: str = part.label, started: float = started) -> None:
            say(f"  {name}: file {done} of {of}, {time.perf_counter() - started:.1f} s")

        say(f"{part.label}: {part.parameters / 1e9:.3f} B parameters, {part.parameters * shards.BYTES / GB:.2f} GB")
        where = folder / part.folder
        draw = partial(sampler.draw, part.label, rules=part.rules)
        shards.write(where, part.stem, part.shapes, draw, progress=progress)
        part.save_config(where)
    layout.write_index(folder)
    weights = {name: size for name, size in sizes(folder).items() if name.endswith(".safetensors")}
    (folder / SIZES).write_text(json.dumps(weights, indent=1) + "\n", encoding="utf-8")
    text = json.dumps(marker_of(recipe, layout, device), indent=2) + "\n"
    (folder / marker.NAME).write_text(text, encoding="utf-8")


def marker_of(recipe: Recipe, layout: Layout, device: str) -> dict[str, object]:
    """The contents of `random_weights.json`."""
    import diffusers
    import torch
    import transformers

    return {
        "note": marker.NOTE,
        **recipe.identity(),
        "residual_scaling": dict(layout.residual_scaling),
        "parameters": {part.label: part.parameters for part in layout.parts},
        "device": device,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        },
    }


def default_device() -> str:
    """ "cuda" where torch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def size_bytes(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum((Path(where) / name).stat().st_size for where, _, names in os.walk(folder) for name in names)
