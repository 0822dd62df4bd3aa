"""Images of an engine, written to the cell's folder. The one place that names them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.engines.base import Request

if TYPE_CHECKING:
    from PIL import Image


def store(image: "Image.Image", request: Request, folder: Path | None) -> str:
    """Write `image` as PNG under folder/images, whole or not at all; returns its path relative to `folder`."""
    if folder is None:
        return ""
    name = f"images/prompt_{request.prompt_index:02d}_seed_{request.seed}.png"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    image.save(unfinished, format="PNG")
    unfinished.replace(path)
    return name
