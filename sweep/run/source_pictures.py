"""The picture that edits start from when none is given: the world's example. Shipped instructions are about it."""

import math
import random
from pathlib import Path

from profiling.atomic_write import replaced
from sweep.checkpoints.world import edits, pictures


def make(path: Path, seed: int, size: tuple[int, int]) -> Path:
    """Write the example as PNG of `size` (width, height) pixels; `seed` decides where exactly its things are.

    Written to a temporary name and renamed, so that two processes may make the same picture.
    """
    import numpy as np
    from PIL import Image

    scale = math.ceil(max(size) / pictures.SIDE)
    drawn = pictures.render(edits.EXAMPLE, random.Random(seed), scale)
    image = Image.fromarray(np.round(drawn * 255).astype(np.uint8))
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    with replaced(path) as unfinished:
        image.save(unfinished, format="PNG")
    return path
