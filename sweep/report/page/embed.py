"""Images as data URIs within a budget: each distinct image once, small ones unchanged, large ones as previews.

Takes files and a number of characters. Knows nothing about cells or the page.
"""

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.results import stored_images
from sweep.results.files import Unfit, read_regular

if TYPE_CHECKING:
    from PIL.Image import Image

SIDES = (512, 448, 384, 320, 256, 192, 128)
"""Candidates for the longer side of previews, in pixels. All previews share one, so that two can be subtracted."""

PREVIEW = 36_000  # mean characters of a preview; above this a smaller side is chosen
JPEG = {"quality": 80, "subsampling": 0}  # full colour resolution: lost colour would show in an amplified difference
SAMPLE = 6  # images to encode when looking for the largest side that fits
RESERVE = 1.1  # safety factor on the sample's mean size


@dataclass(frozen=True)
class Picture:
    """An image file. Pictures with the same `digest` have the same pixels."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Embedded:
    """Data URIs by digest; those that did not fit or cannot be read are absent."""

    uris: Mapping[str, str]
    side: int | None = None  # longer side of previews; None if all files are embedded unchanged
    previews: frozenset[str] = frozenset()  # digests of images that are scaled down


def embed(pictures: Iterable[Picture], budget: int) -> Embedded:
    """Data URIs of at most `budget` characters in total; pictures that come first have priority.

    Pictures of at most SIDES[0] pixels a side are embedded unchanged if all of them fit next to the others' previews.
    """
    distinct: dict[str, Path] = {}
    for picture in pictures:
        distinct.setdefault(picture.digest, picture.path)
    found = {digest: path for digest, path in distinct.items() if _size(path)}
    small = {digest: path for digest, path in found.items() if _longer_side(path) <= SIDES[0]}
    left = budget - sum(_encoded_length(_size(path)) for path in small.values())
    if left < PREVIEW * (len(found) - len(small)):
        small, left = {}, budget
    large = {digest: path for digest, path in found.items() if digest not in small}
    whole = ((digest, data_uri(path.read_bytes())) for digest, path in small.items())
    uris = {digest: uri for digest, uri in whole if uri}
    if not large:
        return Embedded(uris)
    side, length = _side_that_fits(list(large.values()), min(left, PREVIEW * len(large)))
    at_most = max(1, int(1.5 * left / length))  # more than that never fits
    unchanged = set(uris)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        chosen = list(large)[:at_most]
        for digest, (uri, same) in zip(chosen, pool.map(lambda key: _preview(large[key], side), chosen), strict=True):
            if uri and len(uri) <= left:
                uris[digest] = uri
                left -= len(uri)
                unchanged |= {digest} if same else set()
    return Embedded(uris, side, frozenset(uris) - unchanged)


def data_uri(content: bytes) -> str:
    """A bitmap's bytes as a data URI; "" if it is not PNG, JPEG or WebP."""
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}
    kind = next((kind for start, kind in kinds.items() if content.startswith(start)), "")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if kind else ""


def _size(path: Path) -> int:
    """Size of a file in bytes, 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def _longer_side(path: Path) -> int:
    """Pixels of the longer side, from the file's first bytes; 0 if it cannot be read."""
    try:
        return max(stored_images.size(path))
    except (OSError, Unfit):
        return 0


def _encoded_length(size: int) -> int:
    return 4 * (size // 3 + 1) + 32


def _side_that_fits(paths: Sequence[Path], budget: int) -> tuple[int, float]:
    """The largest side at which all previews fit (or the smallest side), and the mean length of a URI."""
    step = max(1, len(paths) // SAMPLE)
    sample = [image for image in map(_opened, paths[::step][:SAMPLE]) if image]
    length = 1.0
    for side in SIDES:
        lengths = [len(_encoded(image, side)[0]) for image in sample]
        length = RESERVE * sum(lengths) / max(1, len(lengths)) or 1.0
        if length * len(paths) <= budget:
            return side, length
    return SIDES[-1], length


def _preview(path: Path, side: int) -> tuple[str, bool]:
    """An image with at most `side` pixels a side, and whether it is the file itself; "" if it cannot be read."""
    image = _opened(path)
    return _encoded(image, side) if image else ("", False)


def _opened(path: Path) -> "tuple[bytes, Image] | None":
    """A file's bytes and its picture; None if it cannot be read."""
    try:
        content = read_regular(path)
        picture = stored_images.decoded(content).convert("RGB")
    except (OSError, Unfit):
        return None
    return content, picture


def _encoded(image: "tuple[bytes, Image]", side: int) -> tuple[str, bool]:
    """A preview as a data URI; the unchanged file if the picture is tiny."""
    content, picture = image
    if max(picture.size) <= min(side, SIDES[-1]):
        return data_uri(content), True
    small = picture.copy()
    small.thumbnail((side, side), reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", **JPEG)
    return data_uri(out.getvalue()), False
