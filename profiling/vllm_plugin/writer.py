"""Writes in the background, once the GPU has done what is to be written of: no request waits for either.

One thread a process, made at the first use and anew after a fork. Knows nothing of what is written.
"""

import os
import queue
import threading
import time
from collections.abc import Callable

RETRY_S = 0.01
"""Pause before asking again whether the GPU has finished. Asking, for a thread that waits inside CUDA spins."""

PAUSE_S = 0.02
"""From there to writing: just then the thread that ran the request needs the interpreter, to send its result."""

Job = tuple[Callable[[], bool], Callable[[], None], Callable[[], None]]


class Writer:
    """A thread that does one job after the other. Its CUDA context is that of the thread that made it."""

    def __init__(self, device: str) -> None:
        self.pid = os.getpid()
        self._jobs: queue.Queue[Job] = queue.Queue()
        self._device: int | None = None
        if device == "cuda":
            import torch

            self._device = torch.cuda.current_device()
        threading.Thread(target=self._work, name="sweep-writer", daemon=True).start()

    def add(self, ready: Callable[[], bool], write: Callable[[], None], report: Callable[[], None]) -> None:
        """Call `write` soon after `ready()`; what either raises is `report`'s, called in an except block."""
        self._jobs.put((ready, write, report))

    def settle(self) -> None:
        """Wait until all is written."""
        self._jobs.join()

    def _work(self) -> None:
        if self._device is not None:
            import torch

            torch.cuda.set_device(self._device)  # so that no context is made on device 0
        while True:
            ready, write, report = self._jobs.get()
            try:
                while not ready():
                    time.sleep(RETRY_S)
                time.sleep(PAUSE_S)
                write()
            except Exception:
                report()
            del ready, write, report  # they hold what the request computed
            self._jobs.task_done()


_writer: Writer | None = None


def writer(device: str) -> Writer:
    """This process's."""
    global _writer
    if _writer is None or _writer.pid != os.getpid():
        _writer = Writer(device)
    return _writer


def settle() -> None:
    """Wait until all that this process was to write is written."""
    if _writer is not None and _writer.pid == os.getpid():
        _writer.settle()
