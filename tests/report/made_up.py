"""A made-up finished sweep on disk, as the page finds it: plan, rows, results, and image files.

Six features, all singles and pairs, with 22 cells and 20 prompts of 1024×1024. Prompts, labels and reasons are hostile.
Every cell has the phases and telemetry of a real one.
"""

import hashlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sweep.analysis.paired import FASTER, NO_DIFFERENCE, SLOWER
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from sweep.results.folder import SweepFolder
from sweep.results.records import DONE, RequestRow, RunResult
from tests.recorded import unpack
from tests.report import shapes

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=\"document.title='owned'\"></script><!-- {{ 7*7 }}"
SINGLES = ("cache_dit", "cfg_parallel", "ring", "teacache", "tp", "ulysses")
LOSSLESS = {"cfg_parallel", "ring", "tp", "ulysses"}
SEEDED = 42


@dataclass(frozen=True)
class MadeUp:
    """What `page.write` needs."""

    folder: SweepFolder
    plan: Plan
    rows: list[dict[str, Any]]
    results: dict[str, RunResult | None]


def config(batch: int) -> dict[str, Any]:
    return {"model": {"name": "tiny_glm_image", "embedded": True}, "batch": batch, "seed": SEEDED, "note": HOSTILE}


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cell(features: tuple[str, ...], batch: int = 1, role: str = "feature", extra: str = "") -> Cell:
    label = f"{'+'.join(features) or 'baseline'} b{batch}{extra}{' A/A' if role == 'aa' else ''}"
    key, base = (_key(f"{one} {batch}") for one in (f"{role} {features} {extra}", "baseline () "))
    fields: dict[str, Any] = {"features": features, "gpus": 1, "skip": None, "config": config(batch), "suffix": extra}
    return Cell(key=key, engine_key=key, baseline_key=base, label=label, role=role, overrides=(HOSTILE,), **fields)


def row_of(one: Cell, batch: int = 1) -> dict[str, Any]:
    """A plausible row: two pairs conflict, one fails, one errs, one is doubted."""
    name = "+".join(one.features)
    row = shapes.row(name, batch, aa=one.role == "aa")
    row |= {"cell": one.label, "role": one.role, "cell_key": one.key, "parallel": "auto", "gpus": one.gpus}
    verdict = FASTER if row["speedup"] > 1.05 else SLOWER if row["speedup"] < 0.95 else NO_DIFFERENCE
    row |= {"called": verdict}
    if len(one.features) > 1:
        singles = [shapes.row(single, batch)["speedup"] for single in one.features]
        row["interaction_gain"] = row["speedup"] / float(np.prod(singles))
    ends = {
        "cache_dit+teacache": ("SKIP", "teacache conflicts with cache_dit"),
        "ring+ulysses": ("SKIP", "requires 4 GPUs, only 2 available"),
        "ring+tp": ("ERROR", f"engine process was killed (signal 9) {HOSTILE}"),
        "tp+ulysses": ("FAIL", "did not engage: block sequence is 64 on every rank, as in the baseline"),
        "cfg_parallel+ring": ("WARN", "slower than the baseline beyond the A/A noise"),
    }
    status, reason = ends.get(name, ("PASS", ""))
    if status in ("SKIP", "ERROR"):
        texts = (
            "cell",
            "role",
            "cell_key",
            "model",
            "engine",
            "features",
            "parallel",
            "batch",
            "steps",
            "width",
            "height",
        )
        row = {key: row[key] for key in texts}
    return row | {"status": status, "reason": reason, "evidence": row.get("evidence") or HOSTILE}


def cells() -> list[Cell]:
    """Baseline, six singles, fifteen pairs less one, and the A/A repeat: 22 that ran or were skipped."""
    combos = [(), *((name,) for name in SINGLES), *itertools.combinations(SINGLES, 2)]
    made = [cell(combo, role="feature" if combo else "baseline") for combo in combos]
    return [*made, cell((), role="aa")]


def noise(path: Path, side: int, number: int) -> Path:
    """Smooth shapes under full-entropy noise: about as hard to compress as a picture can be."""
    rng = np.random.default_rng(number)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = rng.integers(0, 64, (side, side, 3), dtype=np.uint8)
    Image.fromarray((np.asarray(smooth) // 4 * 3 + grain).astype(np.uint8)).save(path, compress_level=0)
    return path


def made_up(path: Path, prompts: int = 20, side: int = 1024) -> MadeUp:
    """The sweep in `path`. Lossless cells have the baseline's images; the others share files under other hashes."""
    folder = SweepFolder(path)
    plan = Plan(tuple(cells()), ())
    (path / "noise").mkdir(parents=True)
    files = [noise(path / "noise" / f"{i}.png", side, i) for i in range(prompts)]
    rows, results = [], {}
    for place, one in enumerate(plan.cells):
        row = row_of(one)
        rows.append(row)
        results[one.key] = None
        if row["status"] in ("SKIP", "ERROR"):
            continue
        unpack("glm_b4", folder.cell_path(one))
        same = set(one.features) <= LOSSLESS - {"tp"}
        requests = []
        for i in range(prompts):
            image = f"images/prompt_{i:02}.png"
            target = folder.cell_path(one) / image
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(files[i if same else (i + place) % prompts], target)
            digest = f"noise-{i}" if same else f"{place}-{i}"
            requests.append(
                RequestRow(f"{i}", i, SEEDED, side, side, 8, 0.0, 0.0, None, 1.0, 0, 0, "", 0, i, 0, image, digest)
            )
        texts = tuple(f"{HOSTILE} prompt {i}" for i in range(prompts))
        results[one.key] = RunResult(one.key, one.label, DONE, requests=tuple(requests), prompts=texts)
    folder.save_manifest(
        {
            "command": f"python -m sweep -m {HOSTILE}",
            "start": "2026-11-21T10:00:00+00:00",
            "versions": {"torch": "2.13.0", "odd": HOSTILE},
            "machine": {"cpu_cores": 2, "gpus": []},
        }
    )
    return MadeUp(folder, plan, rows, results)
