"""`python -m profiling COMMAND`: what a trace or a measured cell says. Each command is a module, loaded when asked."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from profiling.errors import Refusal

COMMANDS = {
    "analyze": ("profiling.nsys.analyze", "what an Nsight Systems trace says of each phase, with a verdict"),
    "diff": ("profiling.nsys.diff", "which phases and kernels explain the difference between two traces"),
    "timeline": ("profiling.timeline.command", "a measured cell as a Perfetto trace and as one picture"),
    "doctor": ("profiling.doctor.command", "what this machine can profile, and what is missing"),
}
"""Name: module with `configure(parser)` and `run(asked) -> exit code`, and what it is for."""


class _Parser(argparse.ArgumentParser):
    """Bad usage is one line, like all bad input."""

    def error(self, message: str) -> NoReturn:
        raise Refusal(f"{message} (--help shows examples)")


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command line; only the module of the command that `arguments` begin with is loaded."""
    found = _Parser(prog="python -m profiling", description="What a trace or a measured cell says.")
    commands = found.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if arguments[:1] == [name]:
            importlib.import_module(module).configure(command)
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    try:
        asked = parser(arguments).parse_args(arguments)
        module = importlib.import_module(COMMANDS[asked.command][0])
        return int(module.run(asked))
    except Refusal as refusal:
        print(f"profiling: {refusal}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # | head
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that is not ours
        print(f"profiling: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
