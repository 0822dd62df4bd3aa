"""Signals that a terminal or a scheduler sends to every process of a tree at once, and which process obeys them."""

import signal

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C, the usual end, a closed terminal, and the warning that schedulers give before they preempt a job."""


def leave_to_parent() -> None:
    """For a process that we start: its parent decides when it stops. SIGTERM, which ends ranks, still works."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
