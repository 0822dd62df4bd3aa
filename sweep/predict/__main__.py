"""`python -m sweep.predict COMMAND`: what to expect of a run. Each command is a module, loaded on demand."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from sweep.config import ConfigError
from sweep.streams import refusal, steady

NAME = "sweep.predict"

COMMANDS = {
    "queue": ("sweep.report.queueing_command", "hold the loads of a stored sweep against the queueing model"),
}
"""Name: module with `configure(parser)` and `run(asked) -> exit code`, and its line in the help."""


def main(given: Sequence[str] | None = None) -> int:
    """Run a command; its exit code, or 2 and one line for bad input."""
    steady(NAME)
    arguments = sys.argv[1:] if given is None else list(given)
    parser = argparse.ArgumentParser(prog=f"python -m {NAME}", description=(__doc__ or "").split(": ")[1])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if arguments[:1] == [name]:
            importlib.import_module(module).configure(command)
    asked = parser.parse_args(arguments)
    try:
        return int(importlib.import_module(COMMANDS[asked.command][0]).run(asked))
    except ConfigError as error:
        refusal(NAME, str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
