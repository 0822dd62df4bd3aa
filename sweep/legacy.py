"""What version 0.1.0 stored without codes, read with the codes that its texts stood for.

These texts are frozen: they are in files on disk, not in messages still written. Nothing else parses prose.
"""

import re

from sweep.findings import SKIP, WARN, Finding

_SKIPS = (
    (r"(requires )(\d+ .+?)(?:, only \d+ available| and .*)", "too_few_devices", "needs {2}"),
    (r"(requires )(\d+ .+?), parallel=.*", "too_few_devices_allowed", "needs {2}"),
    (r"(\w+) does not support .*", "feature_not_in_model", "{1} unsupported"),
    (r".* conflicts with .*", "conflict", "conflict"),
)

_SLOWER = "slower than the baseline"
"""Reason of a WARN that speed alone made."""


def codes(status: str, reason: str) -> tuple[str, ...]:
    """Codes of what decided the status of a cell in report.json, those that are still used."""
    return ("slower",) if (status, reason) == (WARN, _SLOWER) else ()


def skip(text: str) -> Finding | None:
    """The skip of a plan.json before skips had codes; None for ""."""
    if not text:
        return None
    for pattern, code, short in _SKIPS:
        if found := re.fullmatch(pattern, text):
            return Finding(code, text, SKIP, short.format("", *found.groups()))
    return Finding("skipped", text, SKIP)
