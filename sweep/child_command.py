"""Runs `python -m sweep …` and similar commands in separate processes, for Python programs and notebooks.

A separate process is the command itself: it composes, measures and ends exactly as from a shell, whatever this
program has imported or configured. Knows nothing of what the command does.
"""

import codecs
import contextlib
import math
import os
import selectors
import signal
import site
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

import sweep

WIDTH = 120
"""Columns of the tables that a notebook shows."""

GRACE_S = 2.0
"""Seconds in which the command should end after an interrupt, because it received the signal too."""

SETTLED_S = 0.2
"""Seconds without output after which an ended command's output is complete, though others may hold its streams."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, and the output that was captured."""

    module: str
    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last line on standard error, which says what was wrong, without the command's name."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        return lines[-1].removeprefix(f"{self.module}: ") if lines else ""


def run(module: str, arguments: Sequence[str], show: bool = True, catch: bool = False) -> Ended:
    """Run `python -m MODULE` with these arguments and wait for it.

    `show` prints what the command prints, in a terminal with its live table; `catch` keeps standard output instead.
    Standard error is always kept. Ctrl-C, or a notebook's interrupt, interrupts the command, waits until it has saved
    what is finished, and raises KeyboardInterrupt.
    """
    with contextlib.suppress(Exception):
        sys.stdout.flush()  # before what the command prints
    own = show and not catch and sys.stdout is sys.__stdout__ and sys.stdout is not None  # a notebook replaces it
    stdout = None if own else subprocess.PIPE if show or catch else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=_environment(os.environ.copy(), plain=not own),
    )
    out = _Caught(sys.stdout if show and not catch else None)
    err = _Caught(sys.stderr if show else None, hold=True)
    streams = {stream: into for stream, into in ((process.stdout, out), (process.stderr, err)) if stream}
    interrupted = forward = False
    try:
        while True:
            try:
                _pump(process, streams, GRACE_S if forward else math.inf)
                break
            except KeyboardInterrupt:
                interrupted = forward = True
                err.hold = False  # it says how to end at once
            except TimeoutError:  # only this process got the signal
                process.send_signal(signal.SIGINT)
                forward = False
    except BaseException:
        process.terminate()  # it saves what is finished
        raise
    ended = Ended(module, process.wait(), out.end(), err.end(last_line=process.returncode in (0, 1)))
    for stream in streams:
        stream.close()
    if interrupted:
        raise KeyboardInterrupt
    return ended


def _environment(variables: dict[str, str], plain: bool) -> dict[str, str]:
    """Variables with which the command imports this same framework, and prints text that we can read."""
    root = str(Path(sweep.__file__).resolve().parents[1])
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    if root not in installed:  # there it is found anyway, and would come before the standard library
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [root, variables.get("PYTHONPATH")]))
    if plain:
        for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):  # notebooks set them, and keep cursor moves
            variables.pop(name, None)
        variables["TERM"] = "dumb"
        variables["PYTHONIOENCODING"] = "utf-8"
        variables.setdefault("COLUMNS", str(WIDTH))
    return variables


class _Caught:
    """A stream's output, shown as it arrives if there is something to print to.

    With `hold`, the last line is held back until another follows: it may say which input is bad, and then it goes
    into an exception.
    """

    def __init__(self, shown: TextIO | None, hold: bool = False) -> None:
        self.hold = hold
        self._shown = shown
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._printed = 0  # characters

    def add(self, data: bytes) -> None:
        self._text += self._decoder.decode(data)
        self._print(self._text.rstrip("\n").rfind("\n") + 1 if self.hold else len(self._text))

    def end(self, last_line: bool = True) -> str:
        """Everything received; also shows the last line, if it is wanted and not shown yet."""
        self._text += self._decoder.decode(b"", final=True)
        if last_line:
            self._print(len(self._text))
        return self._text

    def _print(self, end: int) -> None:
        if self._shown is not None and end > self._printed:
            self._shown.write(self._text[self._printed : end])
            self._shown.flush()
            self._printed = end


def _pump(process: "subprocess.Popen[bytes]", streams: Mapping[IO[bytes], _Caught], patience_s: float) -> None:
    """Read what the command prints until it ends. Raises TimeoutError when it has not after `patience_s`."""
    deadline_s = time.monotonic() + patience_s
    with selectors.DefaultSelector() as ready:
        for stream, into in streams.items():
            ready.register(stream, selectors.EVENT_READ, into)
        while True:
            ended = process.poll() is not None
            events = ready.select(SETTLED_S)
            for key, _ in events:
                if data := os.read(key.fd, 1 << 16):
                    key.data.add(data)
                else:
                    ready.unregister(key.fileobj)
            if ended and (not events or not ready.get_map()):
                return
            if not ended and time.monotonic() > deadline_s:
                raise TimeoutError
