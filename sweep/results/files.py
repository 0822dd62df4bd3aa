"""Files of a sweep's folder, which may come from anywhere: a copy of another machine's, a download, a damaged disk.

Nothing outside the folder is read or written through it, no read waits, and only plain data is read. Knows no formats
of the project.
"""

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from profiling.atomic_write import write_atomic

MOST_BYTES = 2**30
"""The largest file that is read whole."""

DEEPEST = 64
"""The deepest nesting of lists and objects."""


OUTSIDE = "is outside the sweep's folder"


class Unfit(ValueError):
    """A file that is not read or written; what is wrong with it, printed after its name: `is not a regular file`."""


def unusable(folder: object, error: OSError) -> str:
    """Why a sweep cannot use this folder, from the error of creating it."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"output folder {folder} is a file, or in one"
    return f"output folder {folder} cannot be written ({error.strerror})"


class ContainedFiles:
    """Reads and writes files below `root`, none that a link would lead out of it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self, path: Path) -> Path:
        """`path` unchanged, unless it leads out of the root; it need not exist. Raises Unfit."""
        self._check_folder(path)
        if path.is_symlink() and not self._contains(path):
            raise Unfit(OUTSIDE)
        return path

    def read(self, path: Path) -> bytes:
        """A regular file's content. Raises Unfit, and OSError when it cannot be read."""
        return read_regular(self.check(path))

    def write(self, path: Path, content: str | bytes) -> None:
        """Write the file and its folder, whole or not at all; a link there is replaced. Raises Unfit and OSError."""
        self._check_folder(path)
        write_atomic(path, content)

    def _check_folder(self, path: Path) -> None:
        if not self._is_inside(path.parent):
            raise Unfit(OUTSIDE)

    def _is_inside(self, folder: Path) -> bool:
        """Whether a folder, perhaps one that is not there yet, is the root or below it, wherever links lead."""
        if folder == self.root:
            return True
        if folder.name in ("", "..") or folder.is_symlink():
            return self._contains(folder)
        return self._is_inside(folder.parent)

    def _contains(self, path: Path) -> bool:
        root, real = os.path.realpath(self.root), os.path.realpath(path)
        return real == root or real.startswith(root.rstrip(os.sep) + os.sep)


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """Content of a regular file, as long as it is when it is opened. Raises Unfit and OSError."""
    with open_regular(path, buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise Unfit(f"has {size:,} bytes, more than the {most:,} that are read")
        return file.read(size)  # for a larger read, Python would first allocate that much memory


def open_regular(path: Path, buffering: int = -1) -> BinaryIO:
    """A regular file to be read; never waits for a pipe or device. Raises Unfit and OSError."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Unfit("is not a regular file")
    return file


def parsed(data: bytes) -> Any:
    """JSON as plain values: UTF-8, not nested too deeply, integers of at most 64 bits. Raises ValueError."""
    try:
        values = _loaded(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check([values], DEEPEST)
    return values


def _check(values: Iterable[Any], levels: int) -> None:
    """Refuse long integers, and lists and objects nested more than `levels` deep. Raises ValueError."""
    if not levels:
        raise ValueError("it is nested too deeply")
    for value in values:
        kind = type(value)
        if kind is dict:
            _check(value.values(), levels - 1)
        elif kind is list:
            _check(value, levels - 1)
        elif kind is int and not -(2**63) < value < 2**63:
            raise ValueError("it has an integer of more than 64 bits")


def _loaded(data: bytes) -> Any:
    """As `json.loads` reads it: msgspec reads most of what that accepts in half the time, with the same result.

    What it refuses (NaN, a lone surrogate, a byte order mark) is left to `json`, and so are all messages.
    """
    import msgspec

    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return json.loads(data.decode("utf-8-sig"))


def encoded(values: Any) -> bytes:
    """Values as JSON. Lone surrogates, which arguments that are not UTF-8 contain, become visible escapes."""
    import msgspec

    try:
        return msgspec.json.encode(values)
    except UnicodeEncodeError:
        return msgspec.json.encode(_writable(msgspec.to_builtins(values)))


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_writable(key): _writable(inner) for key, inner in value.items()}
    return [_writable(inner) for inner in value] if isinstance(value, list) else value
