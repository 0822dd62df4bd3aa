"""Images of an engine: those it edits, and those it writes to the cell's folder. Their file names come from here.

Also finds what is wrong with an image that is not a picture, before it is compared with another.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from profiling.atomic_write import replaced
from sweep.engines.protocol import Request

if TYPE_CHECKING:
    from PIL import Image


NOT_FINITE, BLANK, WRONG_SIZE = "not_finite", "blank", "wrong_size"
"""What is wrong with an image: its decoded values held NaN or infinity; all its pixels have one colour; its width
or height is not the requested one."""

BLANK_SPREAD = 1  # values between which rounding may move a channel that is the same everywhere, as stored


def fault_of(image: "Image.Image", size: tuple[int, int], finite: bool = True) -> str:
    """NOT_FINITE, BLANK, WRONG_SIZE or "". `size` is the requested (width, height).

    `finite` is whether the values that the image was made from were finite.

    Pixels are integers: what was NaN is black there, so only the engine's own values show it for certain.
    """
    import numpy as np

    if not finite:
        return NOT_FINITE
    channels = np.asarray(image).reshape(image.width * image.height, -1)
    if (channels.max(axis=0) - channels.min(axis=0)).max() <= BLANK_SPREAD:
        return BLANK
    return "" if image.size == size else WRONG_SIZE


def read_input(request: Request) -> "Image.Image":
    """The image that the request edits, in RGB and of its `input_size`, which is the output's where it has none."""
    return read_inputs(request)[0]


def read_inputs(request: Request) -> "list[Image.Image]":
    """The same for all images that it takes, the one to edit first."""
    return [read_picture(Path(path), request.input_size or request.size) for path in request.images]


def read_mask(request: Request) -> "Image.Image | None":
    """Its mask in shades of grey, as large as the image that it edits; None where it has none."""
    from PIL import Image

    if request.mask is None:
        return None
    with Image.open(request.mask) as image:
        return image.convert("L").resize(request.input_size or request.size, Image.Resampling.NEAREST)


def read_picture(path: Path, size: tuple[int, int]) -> "Image.Image":
    """A picture as it is edited: in RGB, resized to `size` (width, height)."""
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def image_name(request: Request) -> str:
    """Where the picture of a request is kept, relative to the cell's folder."""
    return f"images/prompt_{request.prompt_index:02d}_seed_{request.seed}.png"


def store(image: "Image.Image", request: Request, folder: Path | None) -> str:
    """Write `image` as PNG under folder/images, whole or not at all; returns its path relative to `folder`."""
    if folder is None:
        return ""
    name = image_name(request)
    with replaced(folder / name) as unfinished:
        image.save(unfinished, format="PNG")
    return name
