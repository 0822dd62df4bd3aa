"""engine.log: what an engine printed during one cell, copied in pieces, and cut in the middle when it is very long.

Where the cell failed, how its engine ended follows (`run.last_words`), so that it is never empty.
"""

import os
from pathlib import Path
from typing import BinaryIO

from profiling.atomic_write import replaced

KEPT_BYTES = 4 * 2**20
"""Kept of each end of a long log: how it began, and what the engine printed last."""

PIECE_BYTES = 2**18


def copy(log: BinaryIO | None, start: int, target: Path, ending: str = "") -> None:
    """Write what `log` holds from byte `start` on to `target`, and `ending` after it. Raises OSError.

    The engine may be printing at the position in the log, so that position is not moved.
    """
    with replaced(target) as unfinished, unfinished.open("wb") as written:
        if log is not None:
            _copy_ends(log, start, written)
        if ending:
            begun = written.tell() and log is not None and os.pread(log.fileno(), 1, os.fstat(log.fileno()).st_size - 1)
            written.write(b"" if not begun or begun == b"\n" else b"\n")
            written.write(ending.encode())


def _copy_ends(log: BinaryIO, start: int, written: BinaryIO) -> None:
    end = os.fstat(log.fileno()).st_size
    left_out = end - start - 2 * KEPT_BYTES
    if left_out <= 0:
        _copy(log, start, end, written)
        return
    _copy(log, start, start + KEPT_BYTES, written)
    written.write(f"\n[{left_out:,} bytes are left out here]\n".encode())
    _copy(log, end - KEPT_BYTES, end, written)


def _copy(log: BinaryIO, start: int, end: int, written: BinaryIO) -> None:
    while start < end and (piece := os.pread(log.fileno(), min(PIECE_BYTES, end - start), start)):
        written.write(piece)
        start += len(piece)
