"""A process that ends with the one that started it, however that one died."""

import os
import signal
import threading
import time
from collections.abc import Callable


def end_when(orphaned: Callable[[], bool], interval_s: float = 0.5) -> None:
    """Kill our whole process group once `orphaned()`: the process that requested the engine is gone."""

    def watch() -> None:
        while not orphaned():
            time.sleep(interval_s)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def process_exists(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
