"""Processor time of work: a machine that is busy with other things changes it little, and a ratio of two even less."""

import resource
import time
from collections.abc import Callable

from tests import command_server


def of(work: Callable[[], object]) -> float:
    """Seconds of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def of_commands(work: Callable[[], object]) -> float:
    """Seconds of the commands that `work` starts and waits for."""
    begin = _ended_commands_s()
    work()
    return _ended_commands_s() - begin


def _ended_commands_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime + command_server.server().used_s
