"""The environment of processes that we start: our own, with a PYTHONPATH that works from any folder."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder that `profiling` and `sweep` are imported from."""


def child_environment() -> dict[str, str]:
    """os.environ, with ROOT first on PYTHONPATH."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
