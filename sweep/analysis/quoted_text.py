"""Text that a prompt quotes, and whether it is among the lines that were read in a picture. Pure functions.

Exact except for spaces and for forms of one character (Unicode NFKC): `１` is 1, but O is not 0.
"""

import re
import unicodedata
from collections.abc import Sequence

_QUOTED = re.compile(
    r'"([^"\n]*)"|“([^”\n]*)”|「([^」\n]*)」|『([^』\n]*)』|‘([^’\n]*)’(?!\w)|(?<!\w)\'([^\'\n]*)\'(?!\w)'
)


def quoted(prompt: str) -> tuple[str, ...]:
    """The texts in quotation marks, in order; an apostrophe inside or after a word is not one."""
    found = (next(text for text in match.groups() if text is not None) for match in _QUOTED.finditer(prompt))
    return tuple(text for text in found if plain(text))


def shows(lines: Sequence[str], text: str) -> bool:
    """Whether one of these lines is the text, or several in succession: a long text is broken into lines."""
    wanted, said = plain(text), [plain(line) for line in lines]
    return any(
        "".join(said[first:last]) == wanted for first in range(len(said)) for last in range(first + 1, len(said) + 1)
    )


def plain(text: str) -> str:
    """Without spaces, and with one form of each character."""
    return "".join(unicodedata.normalize("NFKC", text).split())
