"""How an engine can fail, in one line: the error, read from what its processes raised or printed.

Also which resource of the machine ran out, for an engine or for the sweep itself.
"""

import errno
import os
import re
import resource

OOM_SIGNS = (
    "out of memory",
    "outofmemory",
    "allocate memory",  # "cannot allocate memory" of the system, "can't allocate memory" of torch
    "bad_alloc",
    "memoryerror",
    "defaultcpuallocator",
)

OOM, DESCRIPTORS, PROCESSES = "oom", "descriptors", "processes"
"""Causes of failures: what ran out. See `shortage`."""

SECOND_HAND = (
    "Orchestrator initialization failed",
    "EngineDeadError",
    "EngineGenerateError",
    "EOFError",
    "stack trace above",
)
"""Errors that only say that another process failed."""

ERROR_LINE = re.compile(r"((?:[A-Za-z_]+\.)*[A-Z]\w*(?:Error|Exception): .+)")

MET_BY_DYNAMO = re.compile(r"^\s*Explanation: Dynamo .*?: got (\w+\(.*?)\n\s*Hint:", re.DOTALL | re.MULTILINE)
"""Its first line names what Dynamo did; the explanation has the reason for the failure."""


class EngineFailure(Exception):
    """The engine could not carry out a command. `cause`: see RunResult."""

    def __init__(self, cause: str, reason: str, alive: bool = False) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason
        self.alive = alive  # True: the process still answers and can take the next cell


def one_line(text: str, limit: int = 300) -> str:
    """The first non-empty line, shortened for a table. For an error of torch.compile, it adds what Dynamo met."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = lines[0] if lines else "no message"
    if met := MET_BY_DYNAMO.search(text):
        line = f"{line}: {' '.join(met[1].split())}"
    return line if len(line) <= limit else line[: limit - 1] + "…"


def shortage(error: BaseException) -> tuple[str, str] | None:
    """Cause and description of what ran out in this process; None for any other error."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return OOM, "out of memory in the sweep's own process"
    if number == errno.EMFILE:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return DESCRIPTORS, f"too many open files in the sweep's own process (the limit is {limit}; see ulimit -n)"
    if number == errno.ENFILE:
        return DESCRIPTORS, "too many open files on this machine"
    if isinstance(error, BlockingIOError) or (isinstance(error, RuntimeError) and str(error) == NO_THREAD):
        limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        hint = "" if limit == resource.RLIM_INFINITY else f" (the limit is {limit} for this user; see ulimit -u)"
        return PROCESSES, f"no further process or thread can be started{hint}"
    return None


NO_THREAD = "can't start new thread"
"""Python's whole error message."""


def cause_of(text: str) -> str:
    """The cause of an engine's failure, from the error that it reported: what ran out, else exception."""
    if any(sign in text.lower() for sign in OOM_SIGNS):
        return OOM
    if os.strerror(errno.EMFILE) in text or os.strerror(errno.ENFILE) in text:
        return DESCRIPTORS
    return "exception"


RAN_OUT = {OOM: "out of memory while", DESCRIPTORS: "out of file descriptors while"}
"""What an engine ran out of: the first words of its failure."""
