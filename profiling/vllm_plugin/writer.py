"""Writes in the background, once the GPU has finished the work in question: no request waits for either.

One thread per process, created at the first use and again after a fork. Knows nothing of what is written.
"""

import os
import queue
import threading
import time
from collections.abc import Callable

RETRY_S = 0.01
"""Pause between checks whether the GPU has finished. Polls, because a thread that waits inside CUDA spins."""

PAUSE_S = 0.02
"""Pause before writing: at that moment the thread that ran the request needs the interpreter to send its result."""

Job = tuple[Callable[[], bool], Callable[[], None], Callable[[], None]]


class Writer:
    """A thread that does one job after another. It uses the CUDA context of the thread that created it."""

    def __init__(self, device: str) -> None:
        self.pid = os.getpid()
        self._jobs: queue.Queue[Job] = queue.Queue()
        self._device: int | None = None
        if device == "cuda":
            import torch

            self._device = torch.cuda.current_device()
        threading.Thread(target=self._work, name="sweep-writer", daemon=True).start()

    def add(self, ready: Callable[[], bool], write: Callable[[], None], report: Callable[[], None]) -> None:
        """Call `write` soon after `ready()` is true. If either raises, `report` is called in the except block."""
        self._jobs.put((ready, write, report))

    def settle(self) -> None:
        """Wait until everything is written."""
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
            del ready, write, report  # they keep alive what the request computed
            self._jobs.task_done()


_writer: Writer | None = None


def writer(device: str) -> Writer:
    """The writer of this process."""
    global _writer
    if _writer is None or _writer.pid != os.getpid():
        _writer = Writer(device)
    return _writer


def settle() -> None:
    """Wait until this process has written everything."""
    if _writer is not None and _writer.pid == os.getpid():
        _writer.settle()
