"""The loads of a sweep as plain text: a paragraph for each cell, then what they say together. Pure."""

from collections.abc import Sequence

from profiling.printing import clean
from sweep.report import load_view
from sweep.report.stored import Stored
from sweep.report.words import Row, said, text

NOTHING = "no cell was measured under load; load=closed load.max_concurrency=1,2,4,8 measures some"

REQUESTS_FAILED = "requests_failed"
"""Code of the finding that says how requests failed."""


def text_of(stored: Stored) -> str:
    """The whole report, lines of any length that end with a newline. Text of users is on one line each."""
    rows = [row for row in stored.summary.rows if text(row, "load")]
    if not rows:
        return f"{NOTHING}\n"
    paragraphs = [_paragraph(row) for row in rows]
    if together := stored.load_lines:
        paragraphs.append(["All loads together", *(f"  {clean(name)}: {clean(about)}" for name, about in together)])
    if stored.note:
        paragraphs.append([stored.note])
    return "\n\n".join("\n".join(lines) for lines in paragraphs) + "\n"


def _paragraph(row: Row) -> list[str]:
    verdict = f"{text(row, 'status')}{', not valid' if text(row, 'invalid_reason') else ''}"
    facts = load_view.figures(row)
    failures = [one.text for one in said(row, "findings") if one.code == REQUESTS_FAILED]
    facts |= {"failures": "; ".join(failures)}
    reason = "" if failures else text(row, "reason")
    facts |= {"reason": reason, "not valid": text(row, "invalid_reason"), "note": text(row, "note")}
    return [
        f"{clean(text(row, 'cell'))} [{verdict}]",
        *_aligned([(name, words) for name, words in facts.items() if words]),
    ]


def _aligned(facts: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in facts), default=0)
    return [f"  {name:{width}}  {clean(words)}" for name, words in facts]
