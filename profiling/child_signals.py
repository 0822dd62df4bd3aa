"""Signals that a terminal or a scheduler sends to every process of a tree at once: which they are, and who obeys."""

import signal

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C, the usual end, a closed terminal, and the warning that schedulers give before they preempt a job."""


def leave_to_parent() -> None:
    """In a process that we start: the parent decides when it stops. SIGTERM, by which parents end ranks, still does."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
