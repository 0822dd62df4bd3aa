"""engine.log: all of a short log, both ends of a long one, and never more in memory than a piece."""

import os
import tempfile
from pathlib import Path

import pytest

from sweep.results import engine_log


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what is read at once; ends of 1000 bytes are kept, pieces are of 64."""
    monkeypatch.setattr(engine_log, "KEPT_BYTES", 1000)
    monkeypatch.setattr(engine_log, "PIECE_BYTES", 64)
    sizes: list[int] = []
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda number, size, place: sizes.append(size) or read(number, size, place))
    return sizes


@pytest.mark.parametrize(("length", "left_out"), [(0, 0), (5, 0), (2000, 0), (2001, 1), (50_000, 48_000)])
def test_a_log_keeps_both_ends(pieces: list[int], tmp_path: Path, length: int, left_out: int) -> None:
    text = bytes(97 + number % 26 for number in range(length))
    with tempfile.TemporaryFile() as log:
        log.write(b"of the cell before" + text)
        log.flush()
        engine_log.copy(log, 18, tmp_path / "engine.log")
        assert os.lseek(log.fileno(), 0, os.SEEK_CUR) == length + 18, "where the engine goes on printing"
    found = (tmp_path / "engine.log").read_bytes()
    said = f"\n[{left_out:,} bytes are left out here]\n".encode() if left_out else b""
    assert found == (text[:1000] + said + text[-1000:] if left_out else text)
    assert max(pieces, default=0) <= 64
