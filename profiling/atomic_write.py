"""Writes files completely or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write the file and its folder; text as UTF-8. A reader never sees half of it. Raises OSError.

    Lone surrogates (from arguments that are not UTF-8) become escapes; in JSON, escapes of the same characters.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with replaced(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary file to write in the block. It then replaces `path`; after an error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # of any file type: a link would lead elsewhere
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
