"""Temporary folders of engines, named after their process, so that whatever kills one can clean up after it."""

import os
import shutil
import tempfile
from pathlib import Path

NAME = "sweep-engine-{pid}-"


def make() -> Path:
    """A new folder of this process."""
    return Path(tempfile.mkdtemp(prefix=NAME.format(pid=os.getpid())))


def clear(pid: int) -> None:
    """Remove what an ended process has left."""
    for folder in Path(tempfile.gettempdir()).glob(NAME.format(pid=pid) + "*"):
        shutil.rmtree(folder, ignore_errors=True)
