"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing, with its folder: a reader never sees half of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
