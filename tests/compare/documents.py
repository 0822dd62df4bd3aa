"""Made-up report.json values in the format of docs/report.md, for tests."""

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

MODEL, ENGINE = "tiny_glm_image", "diffusers"
PHASES = {"text_encode": 4.0, "ar_decode": 300.0, "denoise_step": 280.0, "vae_decode": 16.0, "other": 12.0}

Document = dict[str, Any]


JITTER = 0.002
"""Standard deviation of log latencies."""


def samples(
    seed: int, factor: float = 1.0, prompts: int = 4, repeats: int = 3, jitter: float = JITTER
) -> list[list[float]]:
    """Latencies about 0.6 s, each prompt its own, with `jitter` from request to request."""
    chance = random.Random(seed)
    return [
        [prompt, prompt, repeat, factor * (0.6 + 0.01 * prompt) * math.exp(chance.gauss(0, jitter))]
        for repeat in range(repeats)
        for prompt in range(prompts)
    ]


def cell(name: str = "teacache b1", **fields: Any) -> Document:
    """One cell; `fields` replace the defaults, `factor` makes it slower as a whole, `seed` makes other noise."""
    factor, seed = fields.pop("factor", 1.0), fields.pop("seed", 1)
    features = [] if name.startswith("baseline") else name.split()[0].split("+")
    phases = {phase: ms * factor for phase, ms in PHASES.items()}
    made: Document = {
        "cell": name,
        "cell_key": f"key of {name}",
        "baseline_key": "key of baseline b1",
        "role": "aa" if name.endswith("A/A") else "feature" if features else "baseline",
        "features": features,
        "model": MODEL,
        "engine": ENGINE,
        "parallel": "auto",
        "gpus": 1,
        "batch": 1,
        "width": 64,
        "height": 64,
        "steps": 8,
        "prompts": 4,
        "status": "PASS",
        "reason": "",
        "valid": True,
        "invalid_reason": "",
        "note": "",
        "speedup": {"ratio": 1.2, "low": 1.15, "high": 1.25, "called": "faster", "interaction_gain": None},
        "quality": {"mean_diff": 0.004, "max_diff": 0.05, "psnr_db": 39.0, "ssim": 0.99, "identical": False},
        "phases_ms": {"request": sum(phases.values()), **phases},
        "bottleneck": "ar_decode",
        "metrics": {"latency_mean_s": 0.61, "images_per_s": 1.63, "peak_memory_gb": 0.6},
        "evidence": {"text": "1 rank", "ranks": [{"rank": 0, "dit_forwards": 64}]},
        "starts": [{"samples": samples(seed, factor), "reference": []}],
    }
    return made | fields


def report(*cells: Document, sd: float | None = 0.004, df: int = 3, **fields: Any) -> Document:
    """A whole report; by default a baseline and one feature."""
    noise = {"model": MODEL, "engine": ENGINE, "starts": df + 1, "sd": sd, "df": df if sd is not None else 0}
    noise["prompt_sd"] = JITTER
    made: Document = {
        "schema_version": 1,
        "sweep": {
            "command": "python -m sweep -m feature=teacache",
            "start": "2026-11-21T08:00:00+00:00",
            "end": "2026-11-21T08:01:00+00:00",
            "git_commit": "0123456789abcdef",
            "versions": {"python": "3.12.1", "torch": "2.13.0"},
            "machine": {"system": "Linux x86_64", "cpu_cores": 2, "memory_gb": 25.1, "gpus": []},
            "engine_starts": 4,
            "random_weights": False,
            "note": "",
        },
        "noise": [{**noise, "mean_diff": 0.0, "max_diff": 0.0}],
        "cells": list(cells) or [cell("baseline b1"), cell()],
    }
    return made | fields


def slower_phase(document: Document, name: str, phase: str, ms: float) -> Document:
    """The same report with one cell that takes `ms` longer a request, all of it in one phase."""
    changed = copy.deepcopy(document)
    for one in changed["cells"]:
        if one["cell"] == name:
            for start in one["starts"]:
                start["samples"] = [[*key, latency + ms / 1000] for *key, latency in start["samples"]]
            one["phases_ms"][phase] += ms
            one["phases_ms"]["request"] += ms
    return changed


def write(folder: Path, document: Document) -> Path:
    """A sweep's folder that holds this report."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(document))
    return folder
