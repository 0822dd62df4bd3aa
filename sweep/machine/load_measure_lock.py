"""Loading and measuring take turns on a machine: no engine is measured while another one loads, and vice versa.

On GPUs a launcher may run groups side by side. An engine that loads (imports, reads weights, compiles kernels) slows
down its neighbours' host work: launches of a DiT that is split over two GPUs took 90 ms instead of 35 ms a forward
(docs/results/). Engines that measure leave each other alone, and so do engines that load.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sweep.machine.leases import open_lock

LOADING, MEASURING = "loading", "measuring"


@contextlib.contextmanager
def turn(kind: str, folder: Path, waiting: Callable[[str], None], poll_s: float = 0.1) -> Iterator[None]:
    """Hold the machine for `kind` while the block runs, shared with other holders of the same kind.

    Waits while any process holds it for the other kind, and then calls `waiting` once, with a message. Locks are files
    in `folder`, which the kernel frees when a process dies.
    """
    other = MEASURING if kind == LOADING else LOADING
    said = False
    with contextlib.ExitStack() as stack:
        door, mine, theirs = (_opened(stack, folder / f"{name}.turn") for name in ("door", kind, other))
        while not _enter(door, mine, theirs):
            if not said:
                waiting(f"waiting until no engine is {other}")
                said = True
            time.sleep(poll_s)
        yield


def _opened(stack: contextlib.ExitStack, path: Path) -> int:
    handle = open_lock(path)
    stack.callback(os.close, handle)  # which unlocks it
    return handle


def _enter(door: int, mine: int, theirs: int) -> bool:
    """Share `mine` if no process shares `theirs`. One process at a time checks; others try again: it may be stopped."""
    try:
        fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        fcntl.flock(mine, fcntl.LOCK_SH)
        fcntl.flock(theirs, fcntl.LOCK_UN)
        return True
    finally:
        fcntl.flock(door, fcntl.LOCK_UN)
