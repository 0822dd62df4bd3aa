"""Images that are not pictures: blank ones, those made from non-finite values, and those of the wrong size.

Engines check each image when they make it (`sweep/engines/images.py`); this module draws the conclusions for a cell.
Two blank images are identical, so this comes before any comparison. Pure functions over stored values.
"""

import functools
import hashlib
from collections.abc import Sequence

from sweep.engines.images import BLANK, NOT_FINITE, WRONG_SIZE
from sweep.findings import FAIL, WARN, Finding
from sweep.results.records import RunResult

CODES = {NOT_FINITE: "images_not_finite", BLANK: "images_blank", WRONG_SIZE: "images_wrong_size"}
"""Code of the finding, by what is wrong."""

BASELINE = "baseline_images"
"""Code: the baseline's own images are not pictures, so nothing can be compared with them."""

LARGEST = 1 << 24
"""Pixels of the largest image that its hash can show to be blank."""

_TEXTS = {
    NOT_FINITE: ("was decoded from values that are not finite", "were decoded from values that are not finite"),
    BLANK: ("is blank (one colour everywhere)", "are blank (one colour everywhere)"),
    WRONG_SIZE: ("does not have the requested size", "do not have the requested size"),
}


def faults(results: Sequence[RunResult]) -> list[Finding]:
    """What is wrong with a cell's images over all its engine starts, each kind once; [] when they are pictures."""
    made = {  # repeats make few new ones
        (r.prompt_index, r.seed, r.image_fault, r.image_hash, r.width, r.height)
        for result in results
        for r in result.requests
    }
    kinds = {
        (prompt, seed, _fault(said, image_hash, width, height))
        for prompt, seed, said, image_hash, width, height in made
    }
    if not any(fault for _, _, fault in kinds):
        return []
    found = []
    for kind, code in CODES.items():
        count = sum(fault == kind for _, _, fault in kinds)
        if count:
            images = len({(prompt, seed) for prompt, seed, _ in kinds})
            which = f"{count} of {images} images" if images > 1 else "the image"
            found.append(Finding(code, f"{which} {_TEXTS[kind][count > 1]}", FAIL))
    return found


def no_comparison(baseline: Sequence[Finding]) -> list[Finding]:
    """What a cell's row says about a baseline with these faults; [] where it has none."""
    texts = "; ".join(one.text for one in baseline)
    return [Finding(BASELINE, f"images cannot be judged: in the baseline, {texts}", WARN)] if baseline else []


def _fault(said: str, image_hash: str, width: int, height: int) -> str:
    """What the engine reported; for results stored before engines did, whether the image is known to be blank."""
    return said or (BLANK if image_hash in _blank(width, height) else "")


@functools.lru_cache(maxsize=64)
def _blank(width: int, height: int) -> frozenset[str]:
    """Pixel hashes of a black and of a white RGB image of this size; none for sizes that no image has."""
    if not (width > 0 and 0 < width * height <= LARGEST):
        return frozenset()
    return frozenset(hashlib.sha256(bytes([value]) * (3 * width * height)).hexdigest() for value in (0, 255))
