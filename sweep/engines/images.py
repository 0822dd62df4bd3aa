"""Images of an engine: those it edits, and those it writes to the cell's folder. Their file names come from here."""

from pathlib import Path
from typing import TYPE_CHECKING

from profiling.atomic_write import replaced
from sweep.engines.protocol import Request

if TYPE_CHECKING:
    from PIL import Image


def read_input(request: Request) -> "Image.Image":
    """The request's input image in RGB, resized to the size of the output."""
    from PIL import Image

    assert request.input_image is not None
    with Image.open(request.input_image) as image:
        return image.convert("RGB").resize((request.width, request.height), Image.Resampling.BICUBIC)


def store(image: "Image.Image", request: Request, folder: Path | None) -> str:
    """Write `image` as PNG under folder/images, whole or not at all; returns its path relative to `folder`."""
    if folder is None:
        return ""
    name = f"images/prompt_{request.prompt_index:02d}_seed_{request.seed}.png"
    with replaced(folder / name) as unfinished:
        image.save(unfinished, format="PNG")
    return name
