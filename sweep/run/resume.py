"""The command that resumes a sweep: the one that was typed, with the folder filled in. Pure."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from sweep.masking import masked_text

_FOLDER = re.compile(r"\+{0,2}hydra\.(run|sweep)\.dir=")
_BUDGET = re.compile(r"\+{0,2}budget=")


def command(typed: Sequence[str], folder: Path, budget: bool = True) -> str:
    """For a shell. `typed` is the interpreter with its arguments, as in `sys.orig_argv`; secrets are masked.

    Without `budget` it measures what a budget left out.
    """
    start = _own(typed)
    program, given = [*typed[:start]], [*typed[start:]]
    if len(program) == 2 and not program[1].startswith("-"):
        del program[0]  # an installed command, which names its interpreter itself
    kind = "sweep" if any(one == "-m" or (len(one) > 2 and "--multirun".startswith(one)) for one in given) else "run"
    kept = [masked_text(one) for one in given if not _FOLDER.match(one) and (budget or not _BUDGET.match(one))]
    if not budget and not any(map(_BUDGET.match, given)):
        kept.append("budget=null")  # a study's
    return shlex.join([*program, *kept, f"hydra.{kind}.dir={_value(str(folder))}"])


def _own(typed: Sequence[str]) -> int:
    """Where the sweep's own arguments begin: after `python -m sweep` or the path of the command."""
    place = 1
    while place < len(typed):
        if not typed[place].startswith("-"):
            return place + 1
        if typed[place] == "-m":
            return place + 2
        place += 2 if typed[place] in ("-X", "-W") else 1
    return len(typed)


def _value(text: str) -> str:
    """A value as Hydra's grammar reads it back unchanged; backslashes count there only in front of a quote."""
    if re.fullmatch(r"[\w./-]+", text, re.ASCII):
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text)
    return f"'{escaped}'"
