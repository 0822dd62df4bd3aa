"""Every process that a sweep started ends with it."""

import os
import sys
from typing import TYPE_CHECKING

from sweep.engines.process import temp_folders
from sweep.engines.process.nsys_session import end_recordings_of

if TYPE_CHECKING:
    import psutil


def kill_descendants() -> None:
    """End every process that we started and that is still there, but for the resource trackers.

    Those end by themselves once all of us are gone. Until then they know which semaphores and shared memory we and
    the processes that are killed here have not given back, and unlink them.
    """
    import psutil

    trackers = _resource_trackers()
    children = psutil.Process().children(recursive=True)
    owners = {os.getpid(), *(process.pid for process in children)}
    recorded = any("nsys" in _name(process) for process in children)
    for process in children:
        if process.pid in trackers:
            continue
        try:
            process.kill()
            process.wait(5)
            temp_folders.clear(process.pid)
        except psutil.Error:
            pass
    if recorded:
        end_recordings_of(owners)


def _name(process: "psutil.Process") -> str:
    """The name of a process; "" when it is gone."""
    import psutil

    try:
        return process.name()
    except psutil.Error:
        return ""


def _resource_trackers() -> set[int]:
    """Process ids of the resource trackers that this process uses: multiprocessing's and that of joblib's workers."""
    names = ("multiprocessing.resource_tracker", "joblib.externals.loky.backend.resource_tracker")
    users = (getattr(sys.modules.get(name), "_resource_tracker", None) for name in names)
    return {pid for user in users if (pid := getattr(user, "_pid", None)) is not None}
