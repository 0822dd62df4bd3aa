"""Images as data URIs within a budget: each distinct one once, unchanged where all fit, else as previews.

Gets files and a number of bytes; knows nothing of cells or of the page that shows them.
"""

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SIDES = (1024, 768, 640, 512, 448, 384, 320, 256, 192, 128)
"""Longer sides of previews, in pixels. One for all images, so that two of them can be subtracted."""

QUALITY = 88  # of JPEG: high, since artefacts would show in an amplified difference
SAMPLE = 6  # images that are tried to find the largest side that fits
RESERVE = 1.1  # how much larger than the sample's mean the images are taken to be


@dataclass(frozen=True)
class Picture:
    """An image file. Pictures of one `digest` have the same pixels."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Embedded:
    """Data URIs by digest; those that did not fit or cannot be read are absent."""

    uris: Mapping[str, str]
    side: int | None = None  # longer side of previews; None when the files are embedded as they are


def embed(pictures: Iterable[Picture], budget: int) -> Embedded:
    """Data URIs of at most `budget` characters in all; what stands first in `pictures` is kept first."""
    distinct: dict[str, Path] = {}
    for picture in pictures:
        distinct.setdefault(picture.digest, picture.path)
    sizes = {digest: _size(path) for digest, path in distinct.items()}
    found = {digest: path for digest, path in distinct.items() if sizes[digest]}
    if sum(_encoded_length(sizes[digest]) for digest in found) <= budget:
        whole = ((digest, data_uri(path.read_bytes())) for digest, path in found.items())
        return Embedded({digest: uri for digest, uri in whole if uri})
    side, length = _side_that_fits(list(found.values()), budget)
    at_most = max(1, int(1.5 * budget / length))  # more than that never fits
    uris, left = {}, budget
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        chosen = list(found)[:at_most]
        for digest, uri in zip(chosen, pool.map(lambda key: _preview_uri(found[key], side), chosen), strict=True):
            if uri and len(uri) <= left:
                uris[digest] = uri
                left -= len(uri)
    return Embedded(uris, side)


def data_uri(content: bytes) -> str:
    """A bitmap's bytes as a data URI; "" for what is no PNG, JPEG or WebP."""
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}
    kind = next((kind for start, kind in kinds.items() if content.startswith(start)), "")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if kind else ""


def _size(path: Path) -> int:
    """Bytes of a file, 0 when there is none."""
    return path.stat().st_size if path.is_file() else 0


def _encoded_length(size: int) -> int:
    return 4 * (size // 3 + 1) + 32


def _side_that_fits(paths: Sequence[Path], budget: int) -> tuple[int, float]:
    """The largest side at which previews of all paths fit, and the mean length of a URI; else the smallest."""
    step = max(1, len(paths) // SAMPLE)
    sample = [image for image in map(_opened, paths[::step][:SAMPLE]) if image]
    length = 1.0
    for side in SIDES:
        lengths = [len(_encoded(image, side)) for image in sample]
        length = RESERVE * sum(lengths) / max(1, len(lengths)) or 1.0
        if length * len(paths) <= budget:
            return side, length
    return SIDES[-1], length


def _preview_uri(path: Path, side: int) -> str:
    """An image with at most `side` pixels a side; "" when it cannot be read."""
    image = _opened(path)
    return _encoded(image, side) if image else ""


def _opened(path: Path) -> "tuple[bytes, Image] | None":
    """A file's bytes and its picture; None when it cannot be read."""
    import PIL.Image

    try:
        content = path.read_bytes()
        with PIL.Image.open(io.BytesIO(content)) as image:
            picture = image.convert("RGB")
    except (PIL.UnidentifiedImageError, OSError, PIL.Image.DecompressionBombError):
        return None
    return content, picture


def _encoded(image: "tuple[bytes, Image]", side: int) -> str:
    """A preview as a data URI; the file unchanged when the picture is tiny."""
    content, picture = image
    if max(picture.size) <= min(side, SIDES[-1]):
        return data_uri(content)
    small = picture.copy()
    small.thumbnail((side, side), reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return data_uri(out.getvalue())
