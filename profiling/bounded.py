"""Waiting for processes that may never answer or end: stopped ones, and those in an uninterruptible sleep.

Every wait here has a limit. Knows nothing of what the processes do.
"""

import io
import os
import select
import socket
import subprocess
import time
from multiprocessing.connection import Connection
from typing import Any

KILLED_S = 5.0
"""Seconds in which a killed process ends, unless the kernel cannot end it."""

_PIECE = 65_536


class BoundedConnection(Connection):
    """A connection over a socket, with a time limit per object, even for a large object and a stopped other end.

    After a TimeoutError an object may be cut in the middle, so the connection can no longer be used.
    """

    _send_by: float | None = None  # on time.monotonic; None: no limit
    _recv_by: float | None = None  # separate, because one thread may send while another waits

    def send_within(self, value: Any, timeout_s: float) -> None:
        """Send an object. Raises TimeoutError, and another OSError when the other end is closed."""
        self._send_by = time.monotonic() + timeout_s
        try:
            self.send(value)
        finally:
            self._send_by = None

    def recv_within(self, timeout_s: float | None) -> Any:
        """The next object. Raises TimeoutError, and EOFError or another OSError when the other end is closed.

        None: no limit.
        """
        self._recv_by = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            return self.recv()
        finally:
            self._recv_by = None

    def _send(self, buf: Any, write: object = None) -> None:
        rest = memoryview(buf)
        end = socket.socket(fileno=self.fileno())
        try:
            while rest:
                self._await(select.POLLOUT, self._send_by)
                try:
                    rest = rest[end.send(rest[:_PIECE], socket.MSG_DONTWAIT) :]
                except BlockingIOError:  # less room than one piece needs
                    continue
        finally:
            end.detach()

    def _recv(self, size: int, read: object = None) -> io.BytesIO:
        got = io.BytesIO()
        while got.tell() < size:
            self._await(select.POLLIN, self._recv_by)
            piece = os.read(self.fileno(), min(size - got.tell(), _PIECE))
            if not piece:
                raise OSError("got end of file during message") if got.tell() else EOFError
            got.write(piece)
        return got

    def _await(self, event: int, deadline: float | None) -> None:
        """Wait until the socket can be read or written, at most until `deadline`."""
        poller = select.poll()
        poller.register(self.fileno(), event)
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poller.poll(left_ms):
            raise TimeoutError("the other end does not answer")


def pipe() -> tuple[BoundedConnection, Connection]:
    """Our end and that of another process."""
    ours, theirs = socket.socketpair()
    return BoundedConnection(ours.detach()), Connection(theirs.detach())


def killed(process: "subprocess.Popen[Any]", timeout_s: float = KILLED_S) -> int | None:
    """Kill a process: its exit code, or None when it has not ended within `timeout_s`."""
    process.kill()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
