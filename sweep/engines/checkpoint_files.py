"""What a checkpoint's folder holds: cheaply, to distinguish two states of it, and thoroughly, to find damage.

Also moves a built one to its place. Knows no model and no format.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

WHOLE_BYTES = 16_000_000
"""Files up to this size are read whole for a fingerprint; of larger ones, SAMPLES pieces of PIECE_BYTES bytes."""

SAMPLES, PIECE_BYTES = 8, 16_384


def fingerprint(path: Path) -> str:
    """16 hex digits that change with the files in a folder (or with one file); "" when there is none.

    Files count by name, size and content. Large weights are sampled evenly from the first byte to the last: other
    seeds, depths or training change them everywhere, while reading all of them would take minutes. Times do not count,
    so that copies on several machines are the same checkpoint. Hidden files and folders, such as a download's cache,
    do not count either.
    """
    digest = hashlib.sha256()
    found = False
    for name, file in _files(path):
        found = True
        digest.update(f"{name}\0".encode("utf-8", "surrogateescape"))
        try:
            with file.open("rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                digest.update(f"{size}\0".encode())
                for start, count in _pieces(size):
                    handle.seek(start)
                    digest.update(handle.read(count))
        except OSError as error:
            digest.update(f"unreadable {error.errno}".encode())
    return digest.hexdigest()[:16] if found else ""


def _pieces(size: int) -> list[tuple[int, int]]:
    """(first byte, bytes) of what is read of a file."""
    if size <= WHOLE_BYTES:
        return [(0, size)]
    return [((size - PIECE_BYTES) * number // (SAMPLES - 1), PIECE_BYTES) for number in range(SAMPLES)]


def pipeline_of(path: str | Path) -> str:
    """The pipeline's class that a checkpoint's model_index.json names; "" where it names none."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return str(json.loads((Path(path) / "model_index.json").read_bytes()).get("_class_name", ""))
    return ""


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file in a folder, by its path in there. Reads everything. Raises OSError."""
    found = {}
    for name, file in _files(folder):
        with file.open("rb") as handle:
            found[name] = hashlib.file_digest(handle, "sha256").hexdigest()
    return found


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in a folder, by its path in there. Raises OSError."""
    return {name: file.stat().st_size for name, file in _files(folder)}


def put_in_place(built: Path, folder: Path, damage: Callable[[Path], str]) -> bool:
    """Rename a built checkpoint to its place; False when another process was faster. Raises OSError.

    `damage` says what is wrong with a folder, "" for nothing: a damaged one is replaced.
    """
    with _alone_in(folder.parent):
        if folder.is_dir() and any(folder.iterdir()):
            if not damage(folder):
                return False
            away = Path(tempfile.mkdtemp(prefix=f".{folder.name}-damaged-", dir=folder.parent))
            folder.rename(away)
            shutil.rmtree(away, ignore_errors=True)
        built.rename(folder)
        return True


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time, where the file system has locks for folders."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Every regular file below a folder with its name in there, sorted; a file itself has the name ""."""
    if path.is_file():
        yield "", path
        return
    for where, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(where, name)
            if not name.startswith(".") and file.is_file():
                yield file.relative_to(path).as_posix(), file
