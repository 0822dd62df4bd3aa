"""Summaries as real sweeps leave them: rows of summary.csv, measured-looking but made up."""

import math
import random
from collections.abc import Sequence
from typing import Any

FACTOR = {"": 1.0, "cfg_parallel": 1.42, "teacache": 1.63, "cache_dit": 1.31, "ulysses": 0.82, "ring": 0.7, "tp": 0.9}
DIFF = {"teacache": 0.021, "cache_dit": 0.0043, "ulysses": 2.4e-6, "ring": 2.3e-6, "tp": 3.1e-6}


def row(features: str, batch: int = 1, aa: bool = False, steps: int = 8, **fields: Any) -> dict[str, Any]:
    """One row of a cell that ran. Denoising shrinks with the speed-up, the other phases stay."""
    rng = random.Random(f"{features} {batch} {aa} {steps} {sorted(fields.items())}")
    names = [name for name in features.split("+") if name]
    factor = math.prod(FACTOR.get(name, 1.0) for name in names)
    fixed = {"text_encode_ms": 4.0, "ar_prefill_ms": 12.0, "ar_decode_ms": 310.0 * (1 + 0.25 * (batch - 1))}
    fixed["vae_decode_ms"] = 9.0 * batch
    denoise = 48.0 * steps * batch / factor * rng.uniform(0.98, 1.02)
    other = 14.0
    total = sum(fixed.values()) + denoise + other
    plain = sum(fixed.values()) + 48.0 * steps * batch + other
    speedup = plain / total * rng.uniform(0.99, 1.01) if names or aa else 1.0
    spread = rng.uniform(0.01, 0.05)
    diff = sum(DIFF.get(name, 0.0) for name in names)
    return {
        "cell": f"{features or 'baseline'} b{batch}" + (" A/A" if aa else ""),
        "model": "tiny_glm_image",
        "engine": "diffusers",
        "role": "aa" if aa else "feature" if features else "baseline",
        "features": features,
        "batch": batch,
        "steps": steps,
        "width": 64,
        "height": 64,
        "status": "PASS",
        "reason": "",
        "valid": True,
        "latency_mean_s": total / 1000,
        "images_per_s": batch / (total / 1000),
        **fixed,
        "denoise_step_ms": denoise,
        "dit_forward_ms": denoise * 0.95,
        "request_ms": total,
        "other_ms": other,
        "denoise_step_share": denoise / total,
        "ar_decode_share": fixed["ar_decode_ms"] / total,
        "bottleneck": "denoise_step" if denoise > fixed["ar_decode_ms"] else "ar_decode",
        "peak_memory_gb": 0.52 + 0.04 * batch + (0.4 if "cfg_parallel" in names or "ulysses" in names else 0),
        "speedup": speedup,
        "speedup_low": speedup * (1 - spread) if names or aa else 1.0,
        "speedup_high": speedup * (1 + spread) if names or aa else 1.0,
        "mean_diff": diff,
        "max_diff": min(1.0, diff * 9),
        "psnr_db": math.inf if diff == 0 else -20 * math.log10(diff * 1.4),
        "ssim": 1.0 - diff,
        "evidence": "2 ranks, 8 DiT forwards each" if "cfg_parallel" in names else "",
        **fields,
    }


def failed(features: str, status: str, reason: str, **fields: Any) -> dict[str, Any]:
    """One row of a cell that did not run or did not finish: names and status, no numbers."""
    texts = {key: value for key, value in row(features, **fields).items() if key in row_names(fields)}
    return {**texts, "status": status, "reason": reason}


def row_names(fields: dict[str, Any]) -> set[str]:
    return {"cell", "model", "engine", "features", "batch", "steps", "width", "height", *fields}


def rows_of(features: Sequence[str], batches: Sequence[int] = (1,), **fields: Any) -> list[dict[str, Any]]:
    cells = [row(name, batch, **fields) for name in ("", *features) for batch in batches]
    return [*cells, row("", batches[0], aa=True, **fields)]


def full() -> list[dict[str, Any]]:
    return rows_of(["cache_dit", "cfg_parallel", "teacache", "cfg_parallel+teacache"], [1, 2, 4])


def with_errors() -> list[dict[str, Any]]:
    return [
        *rows_of(["cfg_parallel", "teacache"]),
        failed("ulysses", "SKIP", "requires 4 GPUs, only 2 available"),
        failed("tp", "ERROR", "engine process was killed (signal 9)"),
        row("cache_dit", status="FAIL", reason="no evidence that cache_dit engaged", speedup_low=None),
    ]


def forty() -> list[dict[str, Any]]:
    singles = ["cfg_parallel", "teacache", "cache_dit", "ulysses", "ring", "tp"]
    pairs = [f"{a}+{b}" for i, a in enumerate(singles) for b in singles[i + 1 :]][:13]
    rows = rows_of([*singles, *pairs], [1, 4])[:40]
    for item in rows:  # of a model whose pictures can be checked
        exact = max(0.0, 0.98 - 5 * item["mean_diff"])
        item |= {"exact_rate": exact, "exact_low": 0.9 * exact, "exact_high": min(1.0, exact + 0.05)}
    return rows


def two_models() -> list[dict[str, Any]]:
    glm = rows_of(["cfg_parallel", "teacache"], [1, 2, 4])
    qwen = rows_of(["ulysses", "cfg_parallel"], [1, 2, 4], model="tiny_qwen_image", width=128, height=128)
    long = rows_of(["cache_dit+cfg_parallel+teacache+ulysses"], [1, 2, 4], model="qwen_image_edit_plus", steps=20)
    for item in long:
        text = "model=qwen_image_edit_plus width=1376 height=768 steps=20 guidance_scale=7.5"
        item["cell"] = f"{item['cell'].removesuffix(' A/A')} {text}" + (" A/A" if item["cell"].endswith("A/A") else "")
    return [*glm, *qwen, *long]


def many_settings() -> list[dict[str, Any]]:
    """Four settings of steps and size, and a feature parameter that only the label tells."""
    cells = []
    for steps in (4, 20):
        for width in (64, 128):
            here = rows_of(["cfg_parallel"], [1, 8], steps=steps, width=width)
            for threshold in (0.1, 0.3):
                gain = {"speedup": 1 + threshold, "speedup_low": 0.98 + threshold, "speedup_high": 1.02 + threshold}
                label = f"teacache b1 rel_l1_thresh={threshold} width={width} steps={steps}"
                tea = row("teacache", steps=steps, width=width, mean_diff=threshold / 10, **gain)
                here.append(tea | {"cell": label})
            cells += here
    return cells


def one_cell() -> list[dict[str, Any]]:
    return [row(""), row("teacache", speedup_low=None, speedup_high=None)]


def ladder(offline: float = 2.5) -> list[dict[str, Any]]:
    """One configuration offline, and closed with 1, 2, 4 and 8 in flight; the knee is at 4."""
    rows = [row("", images_per_s=offline)]
    for level, rate in ((1, 1.0), (2, 1.7), (4, 2.0), (8, 2.02)):
        load = {"load": f"closed, {level} in flight", "concurrency": level, "knee": level == 4}
        load |= {"requests_per_s": rate}
        rows.append(row("", images_per_s=rate, latency_mean_s=level / rate, queue_mean_s=level / 10, **load))
    return rows


SHAPES = {
    "full": full,
    "only_baseline": lambda: [row("")],
    "one_cell": one_cell,
    "errors": with_errors,
    "forty": forty,
    "two_models": two_models,
    "many_settings": many_settings,
    "ladder": ladder,
}
