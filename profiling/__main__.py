"""`python -m profiling COMMAND`: explains a trace or a measured cell. Each command is a module, loaded on demand."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from profiling import commands
from profiling.errors import Refusal
from profiling.printing import complain, finish, prepare, say

COMMANDS = {
    "analyze": ("profiling.nsys.analyze", "show what limits each phase in an Nsight Systems trace"),
    "diff": ("profiling.nsys.diff", "show which phases and kernels explain the difference between two traces"),
    "timeline": ("profiling.timeline.command", "draw a measured cell as a Perfetto trace and a picture"),
    "doctor": ("profiling.doctor.command", "check what this machine can profile and what is missing"),
}
"""Name: module with `configure(parser)` and `run(asked) -> exit code`, and its line in the help."""


class _Parser(argparse.ArgumentParser):
    """Reports bad usage in one line, like all bad input."""

    def print_help(self, file: object = None) -> None:
        """Print it like all other output; argparse itself would overlook a failed write."""
        say(self.format_help(), end="")

    def error(self, message: str) -> NoReturn:
        raise Refusal(f"{message} (--help shows examples)", "usage")


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command line. Only the module of the command that `arguments` begin with is loaded."""
    found = _Parser(prog="python -m profiling", description="Explain a trace or a measured cell.")
    commands.add(found, COMMANDS, arguments)
    return found


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Raises Refusal and OSError."""
    return commands.run(COMMANDS, parser(arguments).parse_args(arguments))


def main(arguments: Sequence[str]) -> int:
    """Run the command, print what went wrong, and return the exit code."""
    prepare()
    return finish("profiling", _attempted(arguments))


def _attempted(arguments: Sequence[str]) -> int:
    """The exit code, before the output is known to have arrived."""
    try:
        return run(arguments)
    except SystemExit as stopped:  # --help
        return stopped.code if isinstance(stopped.code, int) else 0
    except Refusal as refusal:
        complain(f"profiling: {refusal}")
        return 2
    except ModuleNotFoundError as error:  # copied to a machine that lacks a dependency
        if (error.name or "").startswith(("profiling", "sweep")):
            raise
        complain(
            f"profiling: the Python package of '{error.name}' is missing; pip install gen-sweep installs it as well"
        )
        return 2
    except OSError as error:  # such as a full disk, or a folder without permission
        complain(f"profiling: {error.filename or 'output'}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
