"""Folders of this user outside sweeps: the cache, and in it what was measured of this machine."""

import os
import platform
import re
from pathlib import Path

THIS_MACHINE = "this_machine"
"""The hardware that `python -m sweep.predict measure` writes: hardware=this_machine."""


def cache_folder() -> Path:
    """Where checkpoints and the like are kept: $SWEEP_CACHE, else $XDG_CACHE_HOME/sweep, else ~/.cache/sweep."""
    if chosen := os.environ.get("SWEEP_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweep"


def machine_conf() -> Path:
    """Configuration files of this machine, in folders as those of conf/: the cache may be on several machines at once.

    Hydra looks here after conf/ (hydra_plugins/machine_searchpath.py).
    """
    node = re.sub(r"[^\w.-]", "_", platform.node()) or "machine"
    return (cache_folder() / f"conf-{node}").expanduser().absolute()
