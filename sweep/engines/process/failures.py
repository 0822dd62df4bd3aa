"""How an engine can fail, in one line: the error, read from what its processes raised or printed."""

import re

OOM_SIGNS = (
    "out of memory",
    "outofmemory",
    "allocate memory",  # "cannot allocate memory" of the system, "can't allocate memory" of torch
    "bad_alloc",
    "memoryerror",
    "defaultcpuallocator",
)

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
