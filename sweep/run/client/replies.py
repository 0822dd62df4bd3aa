"""Checks replies, in separate processes: a picture of 4 MB takes longer to decode than a send may be late."""

import base64
import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import msgspec

from sweep.engines.images import fault_of


class Looked(msgspec.Struct, frozen=True):
    """What a reply holds."""

    error: str = ""
    fault: str = ""
    image_hash: str = ""
    metrics: dict[str, Any] = {}


def look(reply: bytes, size: tuple[int, int] | None, file: str) -> Looked:
    """Parse, decode and check the reply of an image endpoint; keep its first picture in `file` ("": nowhere).

    `size` is the requested width and height; None: there are no pictures to check.
    """
    try:
        decoded = msgspec.json.decode(reply)
        encoded = [one["b64_json"] for one in decoded["data"]]
        metrics = decoded.get("metrics") or {}
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return Looked(f"the reply is no list of pictures: {reply[:80]!r}" if reply else "the reply is empty")
    if size is None:
        return Looked(metrics=metrics)
    if not encoded:
        return Looked("the reply holds no picture", metrics=metrics)
    from PIL import Image, UnidentifiedImageError

    fault = digest = ""
    try:
        for place, one in enumerate(encoded):
            data = base64.b64decode(one, validate=True)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                fault = fault or fault_of(image, size=size)
                if place == 0:
                    digest = hashlib.sha256(image.tobytes()).hexdigest()
            if place == 0 and file:
                Path(file).write_bytes(data)
    except (ValueError, TypeError, OSError, SyntaxError, struct.error, UnidentifiedImageError) as error:
        return Looked(f"the picture does not decode: {type(error).__name__}", metrics=metrics)
    return Looked(fault=fault, image_hash=digest, metrics=metrics)
