"""Every process that a sweep started ends with it."""

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from profiling.bounded import KILLED_S
from sweep.engines.process import temp_folders
from sweep.engines.process.nsys_session import end_recordings_of

if TYPE_CHECKING:
    import psutil


def kill_descendants(timeout_s: float = KILLED_S) -> None:
    """End every process that we started and that is still there, except the resource trackers.

    Those end on their own once all of us are gone. Until then they know which semaphores and shared memory we and
    the processes that are killed here have not given back, and unlink them. `timeout_s` is for all to end.
    """
    import psutil

    trackers = _resource_trackers()
    children = psutil.Process().children(recursive=True)
    owners = {os.getpid(), *(process.pid for process in children)}
    recorded = any("nsys" in _name(process) for process in children)
    killed = [process for process in children if process.pid not in trackers]
    for process in killed:
        with contextlib.suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + timeout_s
    while not all(map(_has_ended, killed)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in killed:
        if _has_ended(process):
            temp_folders.clear(process.pid)
    if recorded:
        end_recordings_of(owners)


def _has_ended(process: "psutil.Process") -> bool:
    """Whether it is gone, or waits for a parent that may never ask for its exit code."""
    import psutil

    try:
        return process.status() == psutil.STATUS_ZOMBIE or not process.is_running()
    except psutil.Error:
        return True


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
