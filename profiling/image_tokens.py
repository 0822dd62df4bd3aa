"""GLM-Image's image tokens between its AR stage and its DiT: which were written, which arrived.

The AR stage emits a preview, the image's ids at 1/32 of its size, and an end mark. For the DiT the image's ids are
doubled in both directions. Both sides reduce their ids to "count:hash" of the ids at 1/32, computed here from the raw
ids, so equal fingerprints mean that the DiT received what the AR stage wrote. Knows the layout (transformers' GlmImage
processor); no torch.
"""

import hashlib
import math
import struct
from collections.abc import Sequence

FACTOR = 32
"""Pixels an AR id covers in each direction."""

END = 16385
"""The id that ends an image."""


def fingerprint(ids: Sequence[int]) -> str:
    """ "count:hash": how many ids, and the first 16 digits of the SHA-256 of them as little-endian int64."""
    packed = struct.pack(f"<{len(ids)}q", *ids)
    return f"{len(ids)}:{hashlib.sha256(packed).hexdigest()[:16]}"


def image_ids(emitted: Sequence[int], height: int, width: int, edit: bool = False) -> Sequence[int]:
    """The ids of the image itself among those that the AR emitted for `height` x `width` pixels.

    Text-to-image puts a preview of about 16 x 16 ids before them; an edit does so only if it emitted enough ids for
    both. The result is too short for the image if ids are missing.
    """
    rows, columns = height // FACTOR, width // FACTOR
    ratio = rows / columns if columns else 1.0
    half = FACTOR // 2
    preview = max(1, int(math.sqrt(ratio) * half)) * max(1, int(math.sqrt(1 / ratio) * half))
    count = len(emitted) - (1 if emitted and emitted[-1] == END else 0)
    start = 0 if edit and count < preview + rows * columns else preview
    return emitted[start : start + rows * columns]


def halved(ids: Sequence[int], rows: int, columns: int) -> Sequence[int] | None:
    """Undo the doubling of `rows` x `columns` ids; None unless every 2 x 2 square holds one id."""
    if len(ids) != rows * columns or rows % 2 or columns % 2:
        return None
    lines = [ids[start : start + columns] for start in range(0, len(ids), columns)]
    if lines[::2] != lines[1::2] or any(line[::2] != line[1::2] for line in lines):
        return None
    return [single for line in lines[::2] for single in line[::2]]


def received(ids: Sequence[int], rows: int, columns: int) -> str:
    """Fingerprint of the ids that a DiT of `rows` x `columns` positions received; "count:uneven" if not doubled."""
    single = halved(ids, rows, columns)
    return f"{len(ids)}:uneven" if single is None else fingerprint(single)
