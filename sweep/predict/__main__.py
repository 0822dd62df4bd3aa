"""`python -m sweep.predict OVERRIDES`: what cells will take, and what this machine can do. Commands load on demand."""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from profiling import commands
from sweep.refusals import ConfigError, nearest
from sweep.streams import printed, refusal, steady

NAME = "sweep.predict"

COMMANDS = {
    "cells": ("sweep.predict_cells", "what the cells of a sweep would take (may be left out)"),
    "calibrate": ("sweep.predict.calibrate_command", "fit on what sweeps measured how much of the peaks is reached"),
    "queue": ("sweep.report.queueing_command", "hold the loads of a stored sweep against the queueing model"),
    "measure": ("sweep.predict.measure_command", "measure this machine, to predict with hardware=this_machine"),
}
"""Name: module with `configure(parser)` and `run(asked) -> exit code`, and its line in the help."""

DESCRIPTION = """\
What a sweep would take, without running it: does it fit, how fast can it be, what limits it, what does it cost.
`python -m sweep.predict OVERRIDES` takes the overrides of a sweep and needs neither a GPU nor weights."""

EXAMPLES = """\
examples
  python -m sweep.predict model=qwen_image engine=vllm_omni workload=image_1024 hardware=h200
  python -m sweep.predict +study=vllm_compat hardware=h200 batch=1,4 --best images_per_s_per_gpu --under latency=5
  python -m sweep.predict cells --help        all options of the two above
  python -m sweep.predict measure             figures of this machine, for hardware=this_machine
  python -m sweep.predict calibrate SWEEP…    fit on sweeps that ran on that hardware"""

UNPRINTED = 3
"""Exit code when standard output did not take everything."""


class _Parser(argparse.ArgumentParser):
    """Reports bad usage in one line, like all bad input."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (--help shows examples)")


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command line. Only the module of the command that `arguments` begin with is loaded."""
    found = _Parser(
        prog=f"python -m {NAME}",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands.add(found, COMMANDS, arguments)
    return found


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Raises ConfigError."""
    first = arguments[0] if arguments else ""
    if "=" in first or first in ("--best", "--json", "--under", "--calibration", "-m", "--multirun"):
        arguments, first = ["cells", *arguments], "cells"
    if first not in COMMANDS and first not in ("-h", "--help"):
        near = nearest(first, COMMANDS)
        asked = f"unknown command '{first}'{near}" if first else "no command given"
        there = f"{' There' if near else '; there'} are: {', '.join(COMMANDS)}"
        raise ConfigError(f"{asked}{there}; or give the overrides of a sweep, e.g. model=qwen_image (--help says more)")
    return commands.run(COMMANDS, parser(arguments).parse_args(arguments))


def main(given: Sequence[str] | None = None) -> int:
    """Exit code 0, 2 for bad input (one line says what), 3 when the result could not be printed, 130 after Ctrl-C."""
    steady(NAME)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started it with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        code = run(sys.argv[1:] if given is None else given)
    except KeyboardInterrupt:
        refusal(NAME, "interrupted; nothing was written")
        return 130
    except Exception as error:
        message = importlib.import_module("sweep.cli_errors").explain(error)  # in a higher layer, and imports Hydra
        if message is None:
            raise
        refusal(NAME, message)
        return 2
    return code if printed() else UNPRINTED


if __name__ == "__main__":
    sys.exit(main())
