"""Texts of users inside Markdown and LaTeX: shown as they are, never markup.

Plain text in, plain text out.
"""

import re

from profiling.printing import clean

LONGEST = 200  # characters of one value

_REFERENCE = re.compile(r"@|\\#|:(?=//)|\bwww(?=\.)|\bGH(?=-)", re.IGNORECASE)
_MARKUP = re.compile(r"[\\`*_\[\]|~$#]|^[-+=]")


def markdown(text: str) -> str:
    """One line that GitHub shows literally: no markup, HTML, mentions, references or links."""
    text = _MARKUP.sub(r"\\\g<0>", _one_line(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A zero-width space: GitHub looks for mentions, references and links after it has resolved escapes.
    return _REFERENCE.sub(lambda found: f"{found[0]}\u200b", text)


_HYPHENS = re.compile("(?<=-)(?=-)")
_LATEX = {
    "\0": "{}",  # between hyphens, which would become a dash
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': '{"}',
    "'": "{'}",  # no ligatures: '' and ?` stay as they are
    "`": "{`}",
    "[": "{[}",  # \\ at the end of a row takes what follows in brackets for an argument
    "]": "{]}",
    "*": "{*}",
    "×": r"$\times$",
    "–": "--",
    "…": r"\ldots{}",
    "·": r"\textperiodcentered{}",
    "→": r"$\rightarrow$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
}


def latex(text: str) -> str:
    """One line that LaTeX sets literally. Letters of other scripts stay, and need XeLaTeX or LuaLaTeX."""
    apart = _HYPHENS.sub("\0", clean(_one_line(text)))
    return "".join(_LATEX.get(letter, letter) for letter in apart)


def _one_line(text: str) -> str:
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return " ".join(text.split())
