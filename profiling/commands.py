"""Commands of a program, each a module with `configure(parser)` and `run(asked) -> exit code`, loaded on demand."""

import argparse
import importlib
from collections.abc import Mapping, Sequence


def add(parser: argparse.ArgumentParser, commands: Mapping[str, tuple[str, str]], arguments: Sequence[str]) -> None:
    """Add commands, name: module and line in the help. Only the one that `arguments` begin with is loaded."""
    found = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in commands.items():
        command = found.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if arguments[:1] == [name]:
            importlib.import_module(module).configure(command)


def run(commands: Mapping[str, tuple[str, str]], asked: argparse.Namespace) -> int:
    """Run the requested command and return its exit code."""
    return int(importlib.import_module(commands[asked.command][0]).run(asked))
