"""A copy of the trained embedded model that vLLM-Omni loads: `python -m sweep.checkpoints world`."""

import json
import shutil
from pathlib import Path

from sweep.checkpoints.recipe import CheckpointError
from sweep.engines.diffusers.tiny_models.checkpoints import TRAINED

NAME = "world"

PROFILED_PIXELS = 1024 * 1024
"""Smallest input picture that the copy's processor accepts. At start-up, vLLM makes up a request to edit a picture of
the vision tower's size, 64 pixels, and looks for the places that the processor makes of it. For pictures this small,
these differ from what vLLM counted. Requests without a picture are not affected."""


def copy(folder: Path) -> Path:
    """Copy the checkpoint to `folder`, which must not exist. Text-to-image only. Raises CheckpointError."""
    if folder.exists():
        raise CheckpointError(f"{folder} is already there; choose another folder with --out DIR, or use it as it is")
    source = TRAINED["tiny_glm_image"]
    try:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.md"))
        file = folder / "processor" / "preprocessor_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        config["size"]["shortest_edge"] = PROFILED_PIXELS
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        why = f"{folder} cannot be written ({error.strerror}); choose another with --out DIR"
        raise CheckpointError(why) from error
    return folder


def command(folder: Path) -> str:
    """How to draw with it and check every picture against its prompt."""
    weights = TRAINED["tiny_glm_image"].name
    return f"python -m sweep engine=vllm_omni model=glm_image model.path={folder} model.weights={weights}"
