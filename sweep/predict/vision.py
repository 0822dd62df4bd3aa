"""Work of the vision tower of a text encoder, which makes tokens of a picture to edit, counted from its shape. Pure.

Source: Qwen2VLImageProcessor and Qwen2_5_VisionTransformerPretrainedModel of transformers 5.14, and how the pipelines
of diffusers 0.40 and vLLM-Omni 0.26 scale a picture beforehand (`calculate_dimensions`).
"""

import math
from functools import lru_cache

from sweep.config.model import Model, Vision
from sweep.predict import decoder
from sweep.predict.work import Work, attend, key_of, product

SIDES = 32
"""Sides of a scaled picture are multiples of so many pixels."""

VALUES_OF_A_PIXEL = 3 * 2
"""Three colours, in two identical frames."""

WINDOW_KERNELS = 2.0
"""Kernels of a window, since attention runs on each one separately: attention, and the copy of its output."""

MARKS = 2
"""Tokens before and behind those of a picture."""


def scaled(model: Model, width: int, height: int) -> tuple[int, int]:
    """Width and height in which text encoder and DiT see a picture to edit of width × height pixels."""
    if not model.edit_pixels:
        return width, height
    ratio = width / height
    side = math.sqrt(model.edit_pixels * ratio)
    return round(side / SIDES) * SIDES, round(side / ratio / SIDES) * SIDES


def grid(shape: Vision, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the tokens that it makes of a picture."""
    side = shape.patch * shape.merge
    return round(height / side), round(width / side)


def tokens(shape: Vision, width: int, height: int) -> int:
    """Tokens of a picture in the text encoder, with the two around them."""
    rows, columns = grid(shape, width, height)
    return rows * columns + MARKS


def of(shape: Vision, outputs: int, width: int, height: int, batch: int = 1) -> Work:
    """A forward over `batch` pictures; `outputs` is the width of the text encoder."""
    return _of(key_of(shape), outputs, width, height) * batch


@lru_cache(maxsize=4096)
def _of(values: tuple[object, ...], outputs: int, width: int, height: int) -> Work:
    shape = Vision(*values)  # type: ignore[arg-type]
    rows, columns = grid(shape, width, height)
    merged = shape.merge**2
    patches = rows * columns * merged
    layer = product(patches, 1, decoder.layer_parameters(shape))
    layer += Work(moved=patches * (decoder.PASSES * shape.hidden + 4 * shape.intermediate))
    layer += Work(kernels=decoder.LAYER_KERNELS - layer.kernels)
    windows = [_windows(count, shape) for count in (rows, columns)]
    inside = math.prod(sum(side * side for side in sides) for sides in windows) * merged**2
    around = Work(attention=4.0 * inside * shape.hidden, kernels=WINDOW_KERNELS * math.prod(map(len, windows)))
    done = layer * shape.layers + attend(patches, patches, shape.hidden) * shape.whole_layers
    done += around * (shape.layers - shape.whole_layers)
    done += product(patches, VALUES_OF_A_PIXEL * shape.patch**2, shape.hidden)
    wide = merged * shape.hidden
    return done + product(rows * columns, wide, wide) + product(rows * columns, wide, outputs)


def _windows(count: int, shape: Vision) -> list[int]:
    """Sides of the windows that cover so many tokens, the last of which may be smaller."""
    side = shape.window // (shape.patch * shape.merge)
    return [min(side, count - start) for start in range(0, count, side)]
