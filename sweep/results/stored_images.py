"""Images of a sweep's folder: opened with a limit on their size, and checked against what was recorded of them.

Knows neither what an image is compared with nor what follows from one that is damaged.
"""

import contextlib
import functools
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sweep.results.files import Unfit, open_regular, read_regular

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64_000_000
"""Most pixels of an image that is opened: 8000 × 8000. A larger one would cost gigabytes, however small its file."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def opened(path: Path) -> "Image":
    """A decoded image. Raises Unfit, and OSError when the file cannot be read."""
    return decoded(read_regular(path))


def decoded(content: bytes) -> "Image":
    """A decoded image from the bytes of its file. Raises Unfit."""
    with _image(io.BytesIO(content)) as image:
        image.load()
        return image


def size(path: Path) -> tuple[int, int]:
    """Width and height of an image, from its first bytes. Raises Unfit, and OSError when the file cannot be read."""
    with open_regular(path) as file, _image(file) as image:
        return image.size


@contextlib.contextmanager
def _image(file: BinaryIO) -> "Iterator[Image]":
    """An image file; errors while opening it or in the block become Unfit."""
    import PIL.Image

    faults = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)
    _check_size(file.read(32))
    file.seek(0)
    try:
        with PIL.Image.open(file, formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Unfit(_too_large(image.width, image.height))
            yield image
    except (OSError, SyntaxError, EOFError, MemoryError, zlib.error, struct.error, *faults) as error:
        raise Unfit("cannot be decoded") from error


def digest_of(image: "Image") -> str:
    """sha256 of the pixels, as engines record it."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def differs(image: "Image", digest: str) -> bool:
    """Whether its pixels are not those that were recorded; False where `digest` is not a sha256."""
    return bool(_SHA256.fullmatch(digest)) and digest_of(image) != digest


def damage(path: Path, digest: str, pixels: bool) -> str:
    """What is wrong with a stored PNG, to be printed after its name: `is cut short`; "" when nothing is.

    Checksums find every flipped bit and every cut. With `pixels` it is decoded as well, which takes ten times as long,
    and compared with the recorded `digest` of its pixels.
    """
    try:
        found = path.stat()
    except OSError as error:
        return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    return _damage(path, digest, pixels, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=65_536)
def _damage(path: Path, digest: str, pixels: bool, size: int, changed_ns: int) -> str:
    """`damage`, cached by the file's size and time: a sweep checks each file several times."""
    try:
        content = read_regular(path)
        if cut := _broken_chunks(content):
            return cut
        _check_size(content)
        if pixels and differs(decoded(content), digest):
            return "is another picture than the one that was generated"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except Unfit as error:
        return str(error)
    return ""


def _broken_chunks(content: bytes) -> str:
    """How a PNG's chunks are damaged; "" when all are whole."""
    if not content.startswith(_SIGNATURE):
        return "is cut short" if _SIGNATURE.startswith(content) else "is not a PNG"
    place = len(_SIGNATURE)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            break
        if zlib.crc32(memoryview(content)[place + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            return "is damaged"
        if content[place + 4 : place + 8] == b"IEND":
            return ""
        place = end + 4
    return "is cut short"


def _check_size(content: bytes) -> None:
    """Refuse a PNG by the size in its first chunk, before anything is decoded. Raises Unfit."""
    if content.startswith(_SIGNATURE) and len(content) >= 24:
        width, height = struct.unpack_from(">II", content, 16)
        if width * height > MOST_PIXELS:
            raise Unfit(_too_large(width, height))


def _too_large(width: int, height: int) -> str:
    return f"has {width}×{height} pixels, more than the {MOST_PIXELS:,} that are opened"
