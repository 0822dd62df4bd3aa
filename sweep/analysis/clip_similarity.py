"""CLIP similarity of every image with its baseline's, when the configuration names a CLIP checkpoint.

One process computes all missing pairs of a sweep, and the results are stored with the other image differences. Knows
nothing of how CLIP works (`clip_worker.py`).
"""

import json
import subprocess
import sys
from collections.abc import Mapping

from sweep.engines.process.failures import one_line
from sweep.plan.cells import FEATURE, Cell
from sweep.plan.plans import Plan
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult

TIMEOUT_S = 3600.0


def clip_name(digest: str, other: str) -> str:
    """Key of the similarity of two images, by their hashes, in a cell's quality.json."""
    return f"clip:{digest}:{other}"


def measure(folder: SweepFolder, plan: Plan, results: Mapping[str, RunResult | None]) -> str:
    """Compute what is missing. Returns why nothing could be measured, or ""."""
    wanted: dict[str, dict[tuple[str, str], tuple[str, str]]] = {}  # checkpoint -> (cell key, name) -> files
    for cell in plan.cells:
        if cell.config.get("clip") and cell.role == FEATURE:
            missing = _missing(folder, cell, plan.by_key.get(cell.baseline_key), results)
            wanted.setdefault(cell.config["clip"], {}).update(missing)
    problems = [_ask(folder, plan, checkpoint, pairs) for checkpoint, pairs in wanted.items() if pairs]
    return "; ".join(filter(None, problems))


def _missing(
    folder: SweepFolder, cell: Cell, baseline: Cell | None, results: Mapping[str, RunResult | None]
) -> dict[tuple[str, str], tuple[str, str]]:
    mine, theirs = results.get(cell.key), results.get(cell.baseline_key)
    if baseline is None or mine is None or theirs is None:
        return {}
    known = folder.load_quality(cell)
    others = {(r.prompt_index, r.seed): r for r in theirs.requests if r.image}
    found = {}
    for request in (r for r in mine.requests if r.image):
        other = others.get((request.prompt_index, request.seed))
        if other is None or other.image_hash == request.image_hash:
            continue
        name = clip_name(request.image_hash, other.image_hash)
        if name not in known:
            both = ((cell, request), (baseline, other))
            if all(not folder.image_problem(owner, one) for owner, one in both):
                mine_path, other_path = (folder.image_path(owner, one.image) for owner, one in both)
                found[cell.key, name] = str(mine_path), str(other_path)
    return found


def _ask(folder: SweepFolder, plan: Plan, checkpoint: str, pairs: Mapping[tuple[str, str], tuple[str, str]]) -> str:
    command = [sys.executable, "-m", "sweep.analysis.clip_worker", checkpoint]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(list(pairs.values())),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"CLIP similarity: no answer within {TIMEOUT_S:g} s"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"CLIP similarity could not be measured: {one_line(last)}"
    by_cell: dict[str, dict[str, float]] = {}
    for (key, name), value in zip(pairs, json.loads(done.stdout.splitlines()[-1]), strict=True):
        by_cell.setdefault(key, {})[name] = value
    for key, values in by_cell.items():
        cell = plan.cell(key)
        folder.save_quality(cell, folder.load_quality(cell) | values)
    return ""
