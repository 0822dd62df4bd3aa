"""How far pictures of edits in several turns are from the baseline's, turn by turn: what one changes, the next edits.

Reads differences that `image_pairs` has stored. Knows no world, so it works for any model.
"""

from collections.abc import Mapping
from typing import Any

from sweep.analysis import image_pairs
from sweep.findings import Finding
from sweep.results.records import RunResult

BY_TURN = "turn_differences"
"""Code of the note."""


def by_turn(mine: RunResult, baseline: RunResult, known: Mapping[str, Any]) -> dict[int, float]:
    """Mean absolute difference in [0, 1] of each turn's pictures; {} where no edit has several turns.

    `known` is the cell's quality.json. A picture whose difference is not known is left out.
    """
    other = image_pairs.stored_images(baseline)
    found: dict[int, list[float]] = {}
    for request in mine.requests:
        key = request.prompt_index, request.seed
        if not request.turn or not request.image or key not in other:
            continue
        digest = other[key][1]
        values = [0.0] if request.image_hash == digest else known.get(f"{request.image_hash}:{digest}")
        if values:
            found.setdefault(request.turn, []).append(values[0])
    return {turn: sum(values) / len(values) for turn, values in sorted(found.items())}


def note(differences: Mapping[int, float]) -> list[Finding]:
    """[] where all pictures are the baseline's."""
    if len(differences) < 2 or not any(differences.values()):
        return []
    values = ", ".join(f"{value:.4f}" for value in differences.values())
    return [Finding(BY_TURN, f"mean difference from the baseline in turns 1 to {max(differences)}: {values}")]
