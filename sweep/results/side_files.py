"""What the files next to a sweep's results may hold: manifest.json, and quality.json of a cell.

Values that nothing writes are left out, so that they cost nothing but themselves.
"""

from collections.abc import Mapping
from types import UnionType
from typing import Any

MANIFEST: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("command", "start", "end", "first_start"), str),
    **dict.fromkeys(("versions", "machine", "random_weights", "shapes", "own"), dict),
    **dict.fromkeys(("engine_starts", "engine_starts_all_runs", "exit_code"), int),
    "git_commit": str | None,
    "duration_s": int | float,
    "cells": list,
}
"""Types of what manifest.json holds, by name."""


def of_manifest(values: Any) -> dict[str, Any]:
    """The values of a manifest.json that have the type that is written."""
    known = values.items() if isinstance(values, dict) else ()
    return {name: value for name, value in known if isinstance(value, MANIFEST.get(name, object))}


def of_quality(values: Any) -> dict[str, Any]:
    """The entries of a quality.json that a comparison or a check can give, by the hashes of what was compared."""
    known = values.items() if isinstance(values, dict) else ()
    return {
        name: value
        for name, value in known
        if _is_difference(value) or _is_similarity(value) or _is_checked(value) or _is_reading(value)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_difference(value: Any) -> bool:
    """Whether it is [mean difference, largest difference, PSNR in dB, SSIM] of two images."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        return False
    mean, largest, psnr_db, ssim = value
    return 0 <= mean <= largest + 1e-9 <= 1.001 and psnr_db >= 0 and -1.001 <= ssim <= 1.001


def _is_similarity(value: Any) -> bool:
    """Whether it is a cosine."""
    return _is_number(value) and -1.001 <= value <= 1.001


def _is_reading(value: Any) -> bool:
    """Whether it is the lines of text that were read in a picture."""
    lines = value.get("lines") if isinstance(value, dict) and len(value) == 1 else None
    return isinstance(lines, list) and len(lines) <= 1000 and all(isinstance(line, str) for line in lines)


def _is_checked(value: Any) -> bool:
    """Whether it is how many facts of a picture were checked, and which are wrong: kind, place, asked, seen.

    Of an edit in several turns also its drift, in [0, 1].
    """
    if not isinstance(value, dict) or value.keys() - {"drift"} != {"facts", "wrong"}:
        return False
    if not _is_number(drift := value.get("drift", 0.0)) or not 0 <= drift <= 1:
        return False
    facts, wrong = value["facts"], value["wrong"]
    whole = isinstance(facts, int) and isinstance(wrong, list) and 0 <= len(wrong) <= facts <= 1000 and facts > 0
    return whole and all(
        isinstance(one, list) and len(one) == 4 and all(isinstance(part, str) for part in one) for one in wrong
    )
