"""Ctrl-C and SIGTERM end a sweep in the same way, and a second one cannot cost what is being saved.

Knows signals of this process only; what is cleaned up meanwhile is the session's business.
"""

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """SIGINT and SIGTERM raise KeyboardInterrupt, once; further ones are ignored until `allow`.

    Use as a context manager in the main thread.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, object] = {}
        self._handled = False

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def allow(self) -> None:
        """What the last interrupt asked for is done: the next one raises again."""
        self._handled = False

    def refuse(self) -> None:
        """Ignore interrupts from here on: what comes is short and must not be cut."""
        self._handled = True

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self._handled:
            self._handled = True
            raise KeyboardInterrupt
