"""Images of cells against those of their baselines and controls: which files belong together, and what is known.

Results are stored in the cells' quality.json, by pair of image hashes; `measure` computes all missing ones, several
at a time. Knows neither how two images differ (`image_metrics`) nor what follows from it (`summary`).
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.analysis import control_group, engine_starts, image_metrics
from sweep.analysis.clip_similarity import clip_name
from sweep.analysis.engine_starts import Measured
from sweep.analysis.image_metrics import ImageDifference
from sweep.plan.cells import REPEAT, Cell
from sweep.plan.plans import Plan
from sweep.results.folder import SweepFolder
from sweep.results.records import RequestRow, RunResult

IDENTICAL = {"mean_diff": 0.0, "max_diff": 0.0, "psnr_db": math.inf, "ssim": 1.0}
THREADS = 16  # at most; numpy and Pillow work outside of Python's lock
AT_ONCE = 4  # images compared with one image that is read once


@dataclass(frozen=True)
class Pair:
    """An image of a cell and the one that it is compared with, as files and as hashes of their pixels."""

    file: Path
    digest: str
    other: Path
    other_digest: str

    @property
    def name(self) -> str:
        """Key of their difference in the cell's quality.json."""
        return f"{self.digest}:{self.other_digest}"

    @property
    def same(self) -> bool:
        """Whether the two have the same pixels."""
        return self.digest == self.other_digest


def between(
    folder: SweepFolder,
    cell: Cell,
    result: RunResult,
    baseline_cell: Cell,
    baseline: RunResult,
    called: str = "the baseline",
) -> dict[str, float] | None:
    """Image differences of a cell against its baseline, averaged as `image_metrics.aggregate` defines.

    None when no image is stored or none can be compared. Raises ValueError for images of different size, or a
    different number; `called` is the baseline's name in messages.
    """
    pairs = _pairs(folder, cell, result, baseline_cell, baseline, called)
    if not pairs:
        return None
    if all(pair.same for pair in pairs):
        return IDENTICAL | ({"clip_similarity": 1.0} if cell.config.get("clip") else {})
    known = folder.load_quality(cell)
    missing = {pair.name: pair for pair in pairs if pair.name not in known}
    for pair in missing.values():
        mine, theirs = image_metrics.read(pair.file, pair.digest), image_metrics.read(pair.other, pair.other_digest)
        known[pair.name] = _values(image_metrics.compare(mine, theirs))
    if missing:
        folder.save_quality(cell, known)
    whole = image_metrics.aggregate([ImageDifference(*known[pair.name]) for pair in pairs])
    assert whole is not None
    found = {"mean_diff": whole.mean_diff, "max_diff": whole.max_diff, "psnr_db": whole.psnr_db, "ssim": whole.ssim}
    clip = [1.0 if pair.same else known.get(clip_name(pair.digest, pair.other_digest)) for pair in pairs]
    measured = [value for value in clip if value is not None]
    return found | {"clip_similarity": sum(measured) / len(measured)} if len(measured) == len(pairs) else found


def measure(folder: SweepFolder, plan: Plan, results: Mapping[str, RunResult | None]) -> None:
    """Compare in parallel all images that `between` would compare one by one, and leave failures for it to report."""
    found: dict[str, dict[str, list[float]]] = {}
    tasks = list(_tasks(folder, plan, results))
    if not tasks:
        return
    try:
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1, len(tasks))) as pool:
            for answers in pool.map(_compare, *zip(*tasks, strict=True)):
                for key, name, values in answers:
                    found.setdefault(key, {})[name] = values
    finally:  # an interrupted run keeps what it has
        save(folder, plan, found)


def save(folder: SweepFolder, plan: Plan, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Add what was found, by cell key and name, to the cells' quality.json."""
    for key, entries in found.items():
        cell = plan.by_key[key]
        folder.save_quality(cell, {**folder.load_quality(cell), **entries})


Task = tuple[Path, list[tuple[str, Pair]]]
"""An image, and the pairs that have it as their second, each with the key of its cell."""


def _tasks(folder: SweepFolder, plan: Plan, results: Mapping[str, RunResult | None]) -> Iterator[Task]:
    """Missing comparisons, grouped by the second image of the pairs."""
    wanted: dict[Path, dict[tuple[str, str], Pair]] = {}
    known: dict[str, Mapping[str, Any]] = {}
    for mine, theirs in _compared(plan, engine_starts.measured_cells(plan, results)):
        try:
            pairs = _pairs(folder, mine.cell, mine.results[0], theirs.cell, theirs.results[0])
        except ValueError:
            continue
        if all(pair.same for pair in pairs):
            continue
        key = mine.cell.key
        if key not in known:
            known[key] = folder.load_quality(mine.cell)
        for pair in pairs:
            if pair.name not in known[key]:
                wanted.setdefault(pair.other, {})[key, pair.name] = pair
    for other, group in wanted.items():
        pairs_of = [(key, pair) for (key, _), pair in group.items()]
        for start in range(0, len(pairs_of), AT_ONCE):
            yield other, pairs_of[start : start + AT_ONCE]


def _compared(plan: Plan, measured: Mapping[str, Measured]) -> Iterator[tuple[Measured, Measured]]:
    """Cells with their baselines, and those of other engines with their controls, as far as both were measured."""
    baselines = ((cell.key, cell.baseline_key) for cell in plan.cells if cell.role != REPEAT)
    controls = ((cell.key, other.key) for cell, other in control_group.match(plan.cells))
    for key, other in (*baselines, *controls):
        if key != other and key in measured and other in measured:
            yield measured[key], measured[other]


def _compare(other: Path, pairs: Sequence[tuple[str, Pair]]) -> list[tuple[str, str, list[float]]]:
    """(cell key, name, difference) of the pairs that can be compared; all have the second image `other`."""
    found = []
    try:
        second = image_metrics.read(other, pairs[0][1].other_digest)
    except (ValueError, OSError):
        return []
    for key, pair in pairs:
        try:
            first = image_metrics.read(pair.file, pair.digest)
            found.append((key, pair.name, _values(image_metrics.compare(first, second))))
        except (ValueError, OSError):
            continue
    return found


def _values(difference: ImageDifference) -> list[float]:
    """As quality.json holds it."""
    return list(dataclasses.astuple(difference))


def _pairs(
    folder: SweepFolder, cell: Cell, result: RunResult, other_cell: Cell, other: RunResult, called: str = "the baseline"
) -> list[Pair]:
    """Images of the same prompt and seed, rendered from the same AR tokens as far as the engines report them.

    Raises ValueError when one side has an image that the other lacks, or that is outside the sweep's folder.
    """
    mine, theirs = stored_images(result), stored_images(other)
    if mine.keys() != theirs.keys():
        raise ValueError(f"the cell has {len(mine)} images, {called} has {len(theirs)}")
    unlike = other_tokens(result, other) if mine else ()
    return [
        Pair(folder.image_path(cell, file), digest, folder.image_path(other_cell, theirs[key][0]), theirs[key][1])
        for key, (file, digest) in mine.items()
        if key not in unlike
    ]


def stored_images(result: RunResult) -> dict[tuple[int, int], tuple[str, str]]:
    """(prompt_index, seed) -> (image file, pixel hash)."""
    return {(r.prompt_index, r.seed): (r.image, r.image_hash) for r in result.requests if r.image}


def other_tokens(result: RunResult, other: RunResult) -> set[tuple[int, int]]:
    """(prompt_index, seed) of stored images for which the AR stage wrote different tokens.

    In a batch its arithmetic depends on whether requests start in the same step, which is chance. So such images say
    nothing about a feature of the DiT.
    """
    mine = _tokens(result)
    theirs = _tokens(other) if mine else {}
    return {key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key]}


def _tokens(result: RunResult) -> dict[tuple[int, int], str]:
    """(prompt_index, seed) -> fingerprint of the AR tokens behind a stored image, where the engine reports it."""
    batches = {
        batch.batch_index: batch.evidence[0].settings["tokens_sent"].split(";")
        for batch in result.batches
        if batch.evidence and "tokens_sent" in batch.evidence[0].settings
    }
    if not batches:
        return {}
    requests: dict[int, list[RequestRow]] = {}
    for request in result.requests:
        requests.setdefault(request.batch_index, []).append(request)
    return {
        (request.prompt_index, request.seed): tokens
        for number, sent in batches.items()
        if len(sent) == len(requests.get(number, []))
        for request, tokens in zip(requests[number], sent, strict=True)
        if request.image and tokens
    }
