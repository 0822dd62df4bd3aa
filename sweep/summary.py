"""Summary rows: everything that is said of a cell, computed from stored results alone.

Reads through `SweepFolder`; formulas come from `metrics`, image differences from `quality`, status from
`verdict`. Computes, writes nothing but the cache of image differences.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sweep import features as feature_rules
from sweep import metrics, verdict
from sweep.plan import Cell, Plan
from sweep.results import ERROR, RunResult, SweepFolder

_PHASES = (*metrics.EXCLUSIVE_PHASES, "dit_forward", "other")

COLUMNS: tuple[str, ...] = (
    *("cell", "model", "engine", "features", "parallel", "gpus", "batch", "steps", "width", "height", "prompts"),
    *("status", "reason", "valid", "invalid_reason"),
    *(f"latency_{name}_s" for name in ("mean", "p50", "p90", "p95", "p99")),
    *("images_per_s", "images_per_s_per_gpu", "requests_per_s"),
    *(f"ttft_{name}_s" for name in ("mean", "p95", "p99")),
    *(f"tpot_{name}_s" for name in ("mean", "p95", "p99")),
    "output_tokens_per_s",
    *(f"{phase}_ms" for phase in ("request", *_PHASES)),
    *(f"{phase}_share" for phase in _PHASES),
    *("bottleneck", "peak_memory_gb", "gpu_util_pct", "energy_j_per_image", "cpu_pct", "load_s"),
    *("speedup", "speedup_low", "speedup_high", "mean_diff", "max_diff", "psnr_db", "ssim"),
    *("evidence", "predicted_latency_s", "cost_per_image", "role", "cell_key"),
)
"""Columns of summary.csv. Units are in the name; what is absent is empty, never 0."""


def summarise(folder: SweepFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row a cell, in the plan's order; keys are COLUMNS."""
    results = {cell.key: folder.load_result(cell) for cell in plan.cells if not cell.skip}
    cells = {cell.key: cell for cell in plan.cells}
    return [_row(folder, cell, results, cells) for cell in plan.cells]


def _row(
    folder: SweepFolder, cell: Cell, results: Mapping[str, RunResult | None], cells: Mapping[str, Cell]
) -> dict[str, Any]:
    config = cell.config
    row: dict[str, Any] = {
        "cell": cell.label,
        "model": config["model"]["name"],
        "engine": config["engine"]["name"],
        "features": feature_rules.combination_name(cell.features),
        "parallel": config["parallel"]["name"],
        "gpus": cell.gpus,
        "batch": config["batch"],
        "steps": config["workload"]["steps"],
        "width": config["workload"]["width"],
        "height": config["workload"]["height"],
        "role": cell.role,
        "cell_key": cell.key,
    }
    if cell.skip:
        return row | {"status": verdict.SKIP, "reason": cell.skip}
    result = results.get(cell.key)
    if result is None:
        return row | {"status": verdict.ERROR, "reason": "not run: the sweep ended before it"}
    baseline = results.get(cell.baseline_key) if cell.baseline_key != cell.key else None
    if baseline is not None and baseline.state == ERROR:
        baseline = None
    row |= _measured(result, cell)
    chosen = feature_rules.parse_features(config["feature"])
    evidence = verdict.total_evidence([b.evidence for b in result.batches])
    row["evidence"] = verdict.describe_evidence(evidence)
    if result.state == ERROR:
        return row | {"status": verdict.ERROR, "reason": result.reason}
    quality: dict[str, float] | None = None
    speedup_high = None
    if baseline is not None:
        gain = metrics.speedup(_latencies(baseline), _latencies(result))
        row |= {"speedup": gain.ratio, "speedup_low": gain.low, "speedup_high": gain.high}
        speedup_high = gain.high
        try:
            quality = compare(folder, cell, result, cells[cell.baseline_key], baseline)
        except (ValueError, OSError) as error:
            return row | {"status": verdict.ERROR, "reason": f"images cannot be compared: {error}"}
    elif cell.key == cell.baseline_key:
        row |= {"speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0}
        quality = {"mean_diff": 0.0, "max_diff": 0.0, "psnr_db": math.inf, "ssim": 1.0} if _images(result) else None
    row |= quality or {}
    before = verdict.total_evidence([b.evidence for b in baseline.batches]) if baseline else ()
    judged = verdict.judge(chosen, evidence, before, quality, speedup_high)
    return row | {"status": judged.status, "reason": judged.reason} | _validity(cell, result)


def _validity(cell: Cell, result: RunResult) -> dict[str, Any]:
    """Whether the numbers can be trusted, apart from the status."""
    if cell.config["engine"]["warmup"] == 0 and cell.config["engine"]["name"] != "noop":
        return {"valid": False, "invalid_reason": "measured without warm-up"}
    hashes: dict[tuple[int, int], set[str]] = {}
    for request in result.requests:
        hashes.setdefault((request.prompt_index, request.seed), set()).add(request.image_hash)
    if any(len(found) > 1 for found in hashes.values()):
        return {"valid": True, "invalid_reason": "", "reason": "images differ from repeat to repeat"}
    return {"valid": True, "invalid_reason": ""}


def _latencies(result: RunResult) -> dict[Any, float]:
    """Seconds a batch, by what identifies it in another cell: its first request and repeat."""
    firsts: dict[int, Any] = {}
    for request in result.requests:
        firsts.setdefault(request.batch_index, (request.prompt_index, request.seed, request.repeat))
    return {firsts[batch.batch_index]: batch.latency_s for batch in result.batches}


def _measured(result: RunResult, cell: Cell) -> dict[str, Any]:
    """Everything about one cell that needs no other cell."""
    requests, batches = result.requests, result.batches
    if not batches:
        return {"load_s": result.load_s}
    latencies = [r.e2e_s for r in requests]
    ttfts = [r.ttft_s for r in requests if r.ttft_s is not None]
    tpots = [b.tpot_s for b in batches if b.tpot_s is not None]
    wall_s = sum(b.latency_s for b in batches)
    images = len(requests)
    tokens = sum(r.output_tokens for r in requests)
    totals = metrics.phase_totals(
        [(phase, ms) for b in batches for phase, ms in b.phase_ms.items()], requests=len(batches)
    )
    shares = metrics.phase_shares(totals)
    worst = metrics.bottleneck(totals)
    telemetry = result.telemetry
    energy_j = telemetry.get("energy_j")
    price = cell.config["hardware"]["price_per_gpu_hour"]
    row: dict[str, Any] = {
        "prompts": len({r.prompt_index for r in requests}),
        "latency_mean_s": metrics.mean(latencies),
        "images_per_s": metrics.images_per_s(images, wall_s),
        "images_per_s_per_gpu": metrics.images_per_s_per_gpu(images, wall_s, cell.gpus),
        "requests_per_s": metrics.images_per_s(images, wall_s),
        "ttft_mean_s": metrics.mean(ttfts),
        "tpot_mean_s": metrics.mean(tpots),
        "output_tokens_per_s": tokens / wall_s if tokens else None,
        "bottleneck": worst.phase if worst else None,
        "peak_memory_gb": telemetry.get("peak_memory_gb"),
        "gpu_util_pct": telemetry.get("gpu_util_pct"),
        "energy_j_per_image": energy_j / images if energy_j is not None else None,
        "cpu_pct": telemetry.get("cpu_pct"),
        "load_s": result.load_s,
        "cost_per_image": cell.gpus * price / 3600 * wall_s / images if price is not None else None,
    }
    row |= {f"latency_p{q}_s": metrics.percentile(latencies, q) for q in (50, 90, 95, 99)}
    row |= {f"ttft_p{q}_s": metrics.percentile(ttfts, q) for q in (95, 99) if ttfts}
    row |= {f"tpot_p{q}_s": metrics.percentile(tpots, q) for q in (95, 99) if tpots}
    row |= {f"{phase}_ms": ms for phase, ms in totals.items()}
    row |= {f"{phase}_share": share for phase, share in shares.items()}
    return row


def _images(result: RunResult) -> dict[tuple[int, int], tuple[str, str]]:
    """(prompt_index, seed) -> (image file, pixel hash) of the stored images."""
    return {(r.prompt_index, r.seed): (r.image, r.image_hash) for r in result.requests if r.image}


def compare(
    folder: SweepFolder, cell: Cell, result: RunResult, baseline_cell: Cell, baseline: RunResult
) -> dict[str, float] | None:
    """Image differences of a cell against its baseline, averaged as `quality.aggregate` defines.

    None when no image is stored. Raises ValueError for images of different size, or a different number.
    """
    mine, theirs = _images(result), _images(baseline)
    if not mine and not theirs:
        return None
    if mine.keys() != theirs.keys():
        raise ValueError(f"{len(mine)} images against {len(theirs)} of the baseline")
    from sweep import quality

    cache = folder.load_quality(cell)
    differences: list[quality.ImageDifference] = []
    for key, (file, digest) in mine.items():
        other_file, other_digest = theirs[key]
        if digest == other_digest:
            differences.append(quality.ImageDifference(0.0, 0.0, math.inf, 1.0))
            continue
        pair = f"{digest}:{other_digest}"
        if pair not in cache:
            one = quality.compare_images(folder.cell_path(cell) / file, folder.cell_path(baseline_cell) / other_file)
            cache[pair] = [one.mean_diff, one.max_diff, one.psnr_db, one.ssim]
            folder.save_quality(cell, cache)
        differences.append(quality.ImageDifference(*cache[pair]))
    whole = quality.aggregate(differences)
    if whole is None:
        return None
    return {"mean_diff": whole.mean_diff, "max_diff": whole.max_diff, "psnr_db": whole.psnr_db, "ssim": whole.ssim}


def exit_code(rows: Sequence[Mapping[str, Any]]) -> int:
    """1 when any cell is FAIL or ERROR, else 0."""
    return int(any(row["status"] in (verdict.FAIL, verdict.ERROR) for row in rows))
