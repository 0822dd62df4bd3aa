"""`outputs/latest`: a link to the folder of the sweep that ran last, among those in the default place.

A convenience: what cannot be linked costs nothing but the link.
"""

import contextlib
import os
from pathlib import Path

OUTPUTS = Path("outputs")
"""Where conf/config.yaml puts sweeps."""

NAME = "latest"


def point_to(folder: Path, outputs: Path = OUTPUTS) -> None:
    """Have the link lead to this folder, if it is in `outputs`. Never raises; another file of that name stays."""
    with contextlib.suppress(OSError):
        place, sweep = outputs.resolve(), folder.resolve()
        link = place / NAME
        if place not in sweep.parents or (link.exists() and not link.is_symlink()):
            return
        new = place / f".{NAME}-{os.getpid()}"
        new.unlink(missing_ok=True)  # of a process that was killed
        try:
            new.symlink_to(sweep.relative_to(place), target_is_directory=True)
            new.replace(link)
        finally:
            new.unlink(missing_ok=True)
