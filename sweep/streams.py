"""Standard output and error that never cost a result: what cannot be printed is reported once, and the work continues.

Knows nothing of what is printed.
"""

import errno
import io
import os
import sys
from typing import Any, TextIO

from profiling.printing import clean, complain, open_closed

QUIET = (errno.EPIPE, errno.EBADF)
"""Errors of a reader that went away (`| head`) and of a stream that was closed (`>&-`): whoever did so knows."""


LONGEST = 600  # characters of a refusal


class Forgiving(io.FileIO):
    """A descriptor for writing. After its first error it takes everything and writes nothing."""

    def __init__(self, number: int, name: str, lost: OSError | None = None) -> None:
        super().__init__(number, "w", closefd=False)
        self.told_as = name  # begins the line that says so
        self.lost = lost

    def write(self, data: Any) -> int:
        """As for any stream, but never raises OSError."""
        size = memoryview(data).nbytes
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
                if error.errno not in QUIET and self.fileno() == 1:
                    complain(f"{self.told_as}: standard output cannot be written ({error.strerror})")
        return size


def steady(name: str) -> None:
    """Have this process print to streams that never raise. `name` of the command, for messages.

    Closed descriptors are opened on nothing. Streams that a caller put in place of the process's own stay.
    """
    closed = open_closed()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(1, sys.stdout, name, closed)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, sys.stderr, name, closed)


def printed() -> bool:
    """Whether standard output has taken everything so far."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return not isinstance(raw, Forgiving) or raw.lost is None


def refusal(name: str, message: str) -> None:
    """Say on standard error, in one line, why a command ends. What it quotes of a file may be of any length."""
    short = message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"
    complain(f"{name}: {short}")


def say(line: str) -> None:
    """Print one line at once, with control characters shown."""
    print(clean(line), flush=True)


def _stream(number: int, old: TextIO | None, name: str, closed: list[int]) -> TextIO:
    """The stream that takes the place of `old`, which is None for a closed descriptor."""
    lost = OSError(errno.EBADF, os.strerror(errno.EBADF)) if number in closed or old is None else None
    raw = Forgiving(number, name, lost)
    made = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=old.encoding if old else "utf-8",
        errors="replace" if number == 1 else "backslashreplace",
        line_buffering=number == 2 or os.isatty(number),
        write_through=isinstance(old, io.TextIOWrapper) and old.write_through,
    )
    made.mode = "w"  # type: ignore[misc]
    return made
