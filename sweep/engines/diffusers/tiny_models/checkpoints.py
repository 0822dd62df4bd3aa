"""The embedded models' checkpoints: one that was trained and comes with the package, others of random weights.

Real architectures in diffusers' folder layout with tiny widths, so that AR prefill, AR decode, DiT and VAE all run on
one CPU core. Random weights are made from a seed at first use, scaled so that the image depends on the prompt and
changes slowly with the timestep (otherwise no cache would ever fire); they say nothing about quality. Nothing is
downloaded. Knows nothing of engines or features.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from sweep.engines.checkpoint_files import digests, put_in_place
from sweep.engines.diffusers.tiny_models import glm_image, parts, qwen_image
from sweep.places import cache_folder

BUILDERS: dict[str, Callable[[Path], None]] = {
    "tiny_glm_image_random": glm_image.build_glm_image,
    "tiny_qwen_image": qwen_image.build_qwen_image,
}
TRAINED = {"tiny_glm_image": Path(__file__).parent / "world_2"}
"""Folders with trained weights, read where they are. `sweep.checkpoints.training` made them."""


RECORD = ".sha256.json"
"""Digests of a checkpoint's files, by which damage is found."""


def ensure_checkpoint(name: str) -> Path:
    """Return the folder of the tiny checkpoint `name`, building a random one first if need be (about two seconds).

    One that was cut short or altered is built again. Safe when several processes build at once: each builds its own
    copy, the first rename wins. Raises KeyError for an unknown name.
    """
    if name in TRAINED:
        return TRAINED[name]
    build = BUILDERS[name]
    folder = cache_folder() / f"{name}-{builder_version()}"
    if folder.is_dir():
        problem = damage(folder)
        if not problem:
            return folder
        print(f"sweep: {folder} is damaged ({problem}), so it is built again", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        import torch

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            build(building)
        (building / RECORD).write_text(json.dumps(digests(building), indent=1), encoding="utf-8")
        building.chmod(0o755)
        put_in_place(building, folder, damage)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def damage(folder: Path) -> str:
    """What is wrong with the files of a built checkpoint; "" when they are as they were. Reads them (about 20 MB)."""
    try:
        kept = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = digests(folder)
    except (OSError, ValueError):
        return f"{RECORD} or another file cannot be read"
    wrong = (f"{name} is {'altered' if name in found else 'missing'}" for name in kept if kept[name] != found.get(name))
    return next(wrong, "")


def builder_version() -> str:
    """Changes with any change of a builder, so that no stale checkpoint is found."""
    digest = hashlib.sha256(RECORD.encode())  # checkpoints of earlier versions lack it
    for module in (parts, glm_image, qwen_image):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:10]
