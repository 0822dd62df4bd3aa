"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end a sweep in the same way, and a second one cannot cost what is being saved.

Knows signals of this process only; the session decides what to clean up meanwhile.
"""

import contextlib
import os
import shlex
import signal
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from profiling.child_signals import INTERRUPTS
from profiling.printing import clean, to_nowhere

INTERRUPTED = 130
"""Exit code of a sweep that was interrupted, by whatever signal."""

PATIENCE_S = 5.0
"""Seconds after an interrupt in which another one is ignored. Later ones end the process at once."""


class Interrupts:
    """The first interrupt raises KeyboardInterrupt; what comes within PATIENCE_S, until `allow`, is ignored.

    A later one means that cleaning up hangs: all our processes are killed, and this one ends where it is. Every file is
    written completely or not at all, so only the summary is missing. A signal that was ignored when the sweep began
    stays ignored (nohup), except for Ctrl-C and SIGTERM. Use as a context manager in the main thread.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder  # of the sweep, once there is one
        self._before: dict[signal.Signals, object] = {}
        self._handled = False
        self._since_s = 0.0  # when it was handled, on time.monotonic

    def __enter__(self) -> "Interrupts":
        always = (signal.SIGINT, signal.SIGTERM)
        taken = [n for n in INTERRUPTS if n in always or signal.getsignal(n) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._stop) for number in taken}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def allow(self) -> None:
        """The last interrupt has been handled: the next one raises again."""
        self._handled = False

    def refuse(self) -> None:
        """Ignore interrupts from here on: what comes is short and must not be cut."""
        self._handled, self._since_s = True, time.monotonic()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_closed_terminal()
        if not self._handled:
            self.refuse()
            raise KeyboardInterrupt
        left_s = PATIENCE_S - (time.monotonic() - self._since_s)
        if left_s <= 0:
            end_at_once(self._folder)
        _say(f"sweep: saving what is finished; to end at once, without a summary, interrupt again in {left_s:.0f} s")


def leave_closed_terminal() -> None:
    """Discard output to a terminal that is gone, because every write to it fails."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            to_nowhere(stream)


def end_at_once(folder: Path | None = None) -> NoReturn:
    """Kill all that we started, and end without another step. Results that were stored in `folder` are safe."""
    from sweep.run.descendants import kill_descendants

    summary = (
        f"; python -m sweep.report {shlex.quote(str(folder))} writes the summary of what is stored" if folder else ""
    )
    _say(f"sweep: ended at once{summary}")
    with contextlib.suppress(BaseException):
        kill_descendants(timeout_s=0.0)
    with contextlib.suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")  # the live table hides the cursor
    os._exit(INTERRUPTED)


def _say(line: str) -> None:
    """Print without Python's buffers: the signal may have come in the middle of one."""
    with contextlib.suppress(OSError):
        os.write(2, f"{clean(line)}\n".encode("utf-8", "backslashreplace"))
