"""Findings about a cell: a code for programs, a text for people, and the resulting status.

Every judge returns findings; the status of a cell is the gravest of theirs, decided here alone. Programs read codes,
never texts, so a reworded text changes nothing but itself. Knows no judge.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PASS, WARN, FAIL, ERROR, SKIP = "PASS", "WARN", "FAIL", "ERROR", "SKIP"
NOT_RUN = "NOT RUN"
"""The sweep ended before the cell began: nothing is known of it, so nothing is held against it."""

STATUSES = (PASS, WARN, FAIL, ERROR, NOT_RUN, SKIP)
"""In the order in which they are shown."""

USABLE = (PASS, WARN)
"""Statuses of cells whose images can be used."""

LOST = (FAIL, ERROR)
"""Statuses of cells that ran and whose results cannot be used."""

BUDGET = "budget"
"""Code of a cell that a budget left out, as intended."""

EXITS_WITH_1 = (*LOST, NOT_RUN)
"""Statuses that make a command exit with 1: what was planned is not there, or cannot be used."""

IMPRECISE, MORE_STARTS = "imprecise", "more_starts"
"""Codes of notes: the speed-up misses the target `precision`; and repeat=auto would measure more."""

_GRAVITY = {SKIP: 0, NOT_RUN: 1, PASS: 2, WARN: 3, FAIL: 4, ERROR: 5}


@dataclass(frozen=True)
class Finding:
    """One statement about a cell. Notes and doubts have no status and change none."""

    code: str  # e.g. not_engaged; the same whatever the text says
    text: str  # one line for people
    status: str = ""
    short: str = ""  # a few words where the text is too long; "" where it has to be cut


def gravity(status: str) -> int:
    """How grave a status is: SKIP, NOT RUN, PASS, WARN, FAIL, ERROR; -1 for no status."""
    return _GRAVITY.get(status, -1)


def gravest(statuses: Iterable[str]) -> str:
    """The gravest of these statuses; "" when there is none."""
    return max(statuses, key=gravity, default="")


def status_of(findings: Sequence[Finding]) -> str:
    """The status that findings make: the gravest of theirs, PASS where there is none."""
    return gravest(finding.status for finding in findings) or PASS


def deciding(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of the gravest status: all of them for PASS and WARN, else the first."""
    if not findings:
        return []
    status = status_of(findings)
    grave = [finding for finding in findings if finding.status == status]
    return grave if status in USABLE else grave[:1]


def texts(findings: Iterable[Finding]) -> str:
    """All texts as one line, in order."""
    return "; ".join(finding.text for finding in findings if finding.text)


def has(findings: Iterable[Finding], code: str) -> bool:
    """Whether one of them has this code."""
    return any(finding.code == code for finding in findings)
