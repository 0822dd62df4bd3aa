"""What a command prints: control characters are shown instead of acted on, and a lost output does not end it.

Knows nothing of what is printed. A command calls `prepare` first and `finish` last, and prints with `say` and
`complain`, which never raise.
"""

import contextlib
import io
import json
import os
import re
import sys

_ACTED_ON = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")
"""Control characters (C0, C1 and DEL), line separators, characters that turn the direction of text, lone surrogates,
and characters that cannot be seen, but for those that join letters and emoji."""

LOST = 2
"""Exit code of a command whose output could not be written, such as on a full disk."""


def clean(text: str, keep: str = "") -> str:
    r"""The text on one line, with characters that a terminal would act on shown as escapes, such as \x1b and \n.

    `keep`: characters to leave as they are, such as "\n" in text of several lines.
    """
    return _ACTED_ON.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def for_spreadsheets(text: str) -> str:
    """Text for a cell of a CSV file, which a spreadsheet shows instead of computing: `=cmd()` becomes `'=cmd()`."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def say(text: str = "", end: str = "\n") -> None:
    """Print text of one or more lines, with other control characters shown. Never raises.

    Once the output is gone (`| head`, a full disk), the rest is dropped; `finish` reports it.
    """
    try:
        print(clean(text, keep="\n\t"), end=end)
    except OSError as error:
        _gone(error)


def json_text(values: object) -> str:
    """Strict JSON in ASCII, indented. Raises ValueError for NaN and infinities, which JSON does not have."""
    return json.dumps(values, indent=1, allow_nan=False).replace("\x7f", "\\u007f")


def compact_json(values: object) -> str:
    """The same on one line, without spaces."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("\x7f", "\\u007f")


def complain(line: str) -> None:
    """Print one line on stderr, with control characters shown. Never raises."""
    with contextlib.suppress(OSError):
        print(clean(line), file=sys.stderr, flush=True)


def open_closed() -> list[int]:
    """Open closed standard descriptors on the null device, and return their numbers.

    Otherwise the next opened files would get these numbers, and would be written to.
    """
    closed = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(number, True)
            closed.append(number)
    return closed


def to_nowhere(number: int) -> None:
    """Discard what is written to this descriptor from now on. Raises OSError."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def prepare() -> None:
    """Make the standard streams usable: characters that their encoding lacks are replaced, closed ones are opened."""
    open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def finish(program: str, code: int) -> int:
    """Flush stdout. The command's exit code: `code`, or LOST (after one line that says why) if output was lost.

    A reader that went away (`| head`) has had enough, so nothing is lost.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _gone(error)
    why, _Failure.error = _Failure.error, None
    if why is None or isinstance(why, BrokenPipeError):
        return code
    complain(f"{program}: the output could not be written ({why.strerror})")
    return LOST


class _Failure:
    """Why stdout is gone; a process has only one stdout."""

    error: OSError | None = None


def _gone(error: OSError) -> None:
    """Remember why, and discard what is printed from now on."""
    _Failure.error = _Failure.error or error
    with contextlib.suppress(OSError):
        to_nowhere(sys.stdout.fileno())
