"""`python -m tests.recompute FOLDER`: every number of a sweep's summary.csv again, from the files of its cells.

Written from the meaning of each column with numpy and the standard library; imports nothing of the framework, so that a
fault of its formulas cannot hide here as well. Columns that are judgements or texts (JUDGED) are not recomputed.
"""

import csv
import hashlib
import itertools
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests import recompute_loads, recompute_queueing
from tests.recompute_numerics import interval, read_png, ssim

JUDGED = {"status", "reason", "reason_code", "valid", "invalid_reason", "note", "evidence"}
SAID = ("predicted_latency_s", "predicted_peak_memory_gb", "limit_latency_s", "mfu", "denoise_step_mfu",
        "vae_decode_mfu", "ar_decode_bandwidth_share")  # fmt: skip
"""What comes from a model's shape, whose counts tests/predict compares with torch's. Here: whether it can be true."""
EXCLUSIVE = ("text_encode", "image_encode", "ar_prefill", "ar_decode", "denoise_step", "vae_decode", "stage_transfer")
PARTS = (*EXCLUSIVE, "dit_forward", "other")
CLOSE = 1e-9

Cell = dict[str, Any]
Result = dict[str, Any]
Start = dict[tuple[int, int, int], float]


class Sweep:
    """A sweep's folder: plan.json, each cell's result.json and what lies next to it, and summary.csv."""

    def __init__(self, folder: Path) -> None:
        self.cells: list[Cell] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["cells"]
        self.by_key = {cell["key"]: cell for cell in self.cells}
        found = {}
        for path in sorted(folder.glob("*/result.json")):
            result = json.loads(path.read_bytes())
            found[result["key"]] = result | {"path": path.parent}
        self.results: dict[str, list[Result]] = {}  # every start of a cell, by the key of its first; A/A are their own
        for cell in self.cells:
            if cell["key"] in found:
                found[cell["key"]]["cell"] = cell
                first = cell["origin"] if role(cell) == "repeat" else cell["key"]
                self.results.setdefault(first, []).append(found[cell["key"]])
        with (folder / "summary.csv").open(encoding="utf-8", newline="") as handle:
            self.rows = list(csv.DictReader(handle))

    def same_engine(self, cell: Cell, roles: Sequence[str]) -> list[Cell]:
        """Measured cells of the same model and engine in these roles."""
        name = model_engine(cell)
        return [c for c in self.cells if c["key"] in self.results and role(c) in roles and model_engine(c) == name]


def role(cell: Cell) -> str:
    if cell["features"]:
        return "repeat" if cell["repeat"] else "feature"
    return "aa" if cell["repeat"] else "baseline"


def model_engine(cell: Cell) -> tuple[str, str, bool]:
    """What noise is estimated for; loads separately."""
    config = cell["config"]
    return config["model"]["name"], config["engine"]["name"], recompute_loads.under_load(cell)


def mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def percentile(values: Sequence[float], q: int) -> float | None:
    least = 100 if q >= 99 else 20 if q >= 95 else 1
    return float(np.percentile(values, q)) if len(values) >= least else None


# -- the columns of a single cell


def own_columns(cell: Cell, results: Sequence[Result], folder_of: Callable[[Result], Path]) -> dict[str, Any]:
    config = cell["config"]
    requests = [request for result in results for request in result["requests"]]
    batches = [batch for result in results for batch in result["batches"]]
    latencies = [request["e2e_s"] for request in requests]
    wall_s = math.fsum(covered(turns(result)) for result in results)
    row: dict[str, Any] = {
        "cell": cell["label"],
        "model": config["model"]["name"],
        "engine": config["engine"]["name"],
        "features": "+".join(sorted(cell["features"])) or "baseline",
        "parallel": config["parallel"]["name"],
        "gpus": cell["gpus"],
        "batch": config["batch"],
        **{name: config["workload"][name] for name in ("steps", "width", "height")},
        "prompts": len({request["prompt_index"] for request in requests}) or None,
        "profiled": config.get("profile", "") if config.get("profile") != "off" else None,
        "latency_mean_s": mean(latencies),
        **{f"latency_p{q}_s": percentile(latencies, q) for q in (50, 90, 95, 99)},
        "images_per_s": len(requests) / wall_s if wall_s else None,
        "requests_per_s": len(requests) / wall_s if wall_s else None,
        "images_per_s_per_gpu": len(requests) / wall_s / cell["gpus"] if wall_s else None,
        **token_columns(cell, results, requests, batches, wall_s),
        **phase_columns(batches),
        **telemetry_columns(results, folder_of),
        "load_s": mean([result["load_s"] for result in results if result["load_s"] is not None]),
        "baseline_beside_s": mean([s for batch in batches if (s := beside(batch)) is not None]),
        "starts": len(results) or None,
        "ranks": max((len(batch["evidence"]) for batch in batches), default=0) or None,
        "role": role(cell),
        "cell_key": cell["key"],
    }
    price = config["hardware"]["price_per_gpu_hour"]
    paid = price is not None and cell["device"] != "cpu" and bool(requests)
    row["cost_per_image"] = cell["gpus"] * price * wall_s / 3600 / len(requests) if paid else None
    traces = [f"{folder_of(result).name}/{result['trace']}" for result in results[:1] if result.get("trace")]
    row |= (
        recompute_loads.columns(cell, results, mean, percentile) if results and recompute_loads.under_load(cell) else {}
    )
    return row | {"trace": traces[0] if traces else None}


def beside(batch: dict[str, Any]) -> float | None:
    """Latency of the interleaved baseline; called reference_s by version 1."""
    return batch.get("baseline_s", batch.get("reference_s"))


def turns(result: Result) -> list[tuple[float, float]]:
    """From sending to having each request, counted from the first one; laid end to end where moments are unknown."""
    requests = result["requests"]
    if all(request.get("sent_s") is not None and request.get("done_s") is not None for request in requests):
        return [(request["sent_s"], request["done_s"]) for request in requests]
    ends = list(itertools.accumulate((batch["latency_s"] for batch in result["batches"]), initial=0.0))
    return list(itertools.pairwise(ends))


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of their union: at each edge, whether anything is under way."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    total, running = 0.0, 0
    for (here, change), following in itertools.zip_longest(edges, edges[1:]):
        running += change
        if following and running > 0:
            total += following[0] - here
    return total


def token_columns(
    cell: Cell, results: Sequence[Result], requests: Sequence[Any], batches: Sequence[Any], wall_s: float
) -> dict[str, Any]:
    newest = [result for result in results if result.get("token_times")] or list(results)
    ttfts = [r["ttft_s"] for result in newest for r in result["requests"] if r["ttft_s"] is not None]
    tpots: list[float] = []
    for result in newest:
        own = [r["tpot_s"] for r in result["requests"] if r.get("tpot_s") is not None]
        tpots += own or [b["tpot_s"] for b in result["batches"] if b.get("tpot_s") is not None]
    row: dict[str, Any] = {}
    for name, values in (("ttft", ttfts), ("tpot", tpots)):
        row[f"{name}_mean_s"] = mean(values)
        row |= {f"{name}_p{q}_s": percentile(values, q) for q in (95, 99)}
    tokens = sum(request["output_tokens"] for request in requests)
    ar_ms = sum(batch["phase_ms"].get(name, 0.0) for batch in batches for name in ("ar_prefill", "ar_decode"))
    row["output_tokens_per_s"] = tokens / wall_s if tokens else None
    row["ar_tokens_per_s"] = 1000 * tokens / ar_ms if tokens and ar_ms else None
    shards = 1
    for body in cell["config"]["feature"].values():
        if body["evidence"] == "sharded_sequence":
            shards *= body["gpus"]
    seen = max((rank["block_sequence"] for batch in batches for rank in batch["evidence"]), default=0)
    drawn = not tokens and seen and cell["config"]["workload"]["task"] == "text_to_image"
    return row | {"image_tokens_per_s": seen * shards * len(requests) / wall_s if drawn else None}


def phase_columns(batches: Sequence[Any]) -> dict[str, Any]:
    totals = phase_means([batch["phase_ms"] for batch in batches])
    whole = totals.get("request") or sum(totals.get(name, 0.0) for name in EXCLUSIVE)
    row: dict[str, Any] = {f"{name}_ms": totals.get(name) for name in ("request", *PARTS)}
    row |= {f"{name}_share": totals[name] / whole if name in totals and whole else None for name in PARTS}
    longest = max(EXCLUSIVE, key=lambda name: totals.get(name, 0.0))
    theirs = [batch.get("baseline_phase_ms", {}) for batch in batches if beside(batch) is not None]
    known = phase_means(theirs) if all(theirs) else {}
    row |= {f"baseline_{name}_ms": known.get(name) for name in ("request", *PARTS)}
    return row | {"bottleneck": longest if totals.get(longest) else None}


def phase_means(batches: Sequence[dict[str, float]]) -> dict[str, float]:
    names = {name for phases in batches for name in phases}
    totals = {name: sum(phases.get(name, 0.0) for phases in batches) / len(batches) for name in names}
    if "request" in totals:
        totals["other"] = max(0.0, totals["request"] - sum(totals.get(name, 0.0) for name in EXCLUSIVE))
    return totals


def telemetry_columns(results: Sequence[Result], folder_of: Callable[[Result], Path]) -> dict[str, Any]:
    seen = [telemetry(result, folder_of(result)) for result in results]

    def known(name: str) -> list[float]:
        return [one[name] for one in seen if one.get(name) is not None]

    energy = [(one["energy_j"], len(result["requests"])) for one, result in zip(seen, results, strict=True)
              if one.get("energy_j") is not None]  # fmt: skip
    images = sum(count for _, count in energy)
    return {
        "peak_memory_gb": max(known("peak_memory_gb"), default=None),
        "gpu_util_pct": mean(known("gpu_util_pct")),
        "cpu_pct": mean(known("cpu_pct")),
        "energy_j_per_image": sum(joules for joules, _ in energy) / images if images else None,
    }


def telemetry(result: Result, folder: Path) -> dict[str, float | None]:
    """Over the cell's own turns, from telemetry.csv where it holds the samples at their edges; else as stored."""
    own = recompute_loads.apart(turns(result))
    with (folder / "telemetry.csv").open(newline="") as handle:
        samples = list(csv.DictReader(handle))
    if not samples or result.get("first_request_s") is None or float(samples[0]["time_s"]) > 0:
        return dict(result["telemetry"])
    moments = sorted({float(sample["time_s"]) - result["first_request_s"] for sample in samples})
    if moments[0] > min(start for start, _ in own):
        return dict(result["telemetry"])
    at: dict[float, list[dict[str, str]]] = {}
    for sample in samples:
        at.setdefault(float(sample["time_s"]) - result["first_request_s"], []).append(sample)
    busy = idle = 0.0
    chosen: set[float] = set()
    energy: dict[str, float] = {}
    for start, end in sorted(set(own)):
        for earlier, later in itertools.pairwise(moments):
            overlap = max(0.0, min(later, end) - max(earlier, start))
            busy += overlap * float(at[later][0]["cpu_pct"])
            idle += overlap
        inside = [moment for moment in moments if start <= moment <= end]
        chosen.update(inside or [m for m in moments if m > end][:1] or moments[-1:])
        for gpu in {sample["gpu_index"] for sample in samples if sample["energy_j"]}:
            line = [(m, float(s["energy_j"])) for m in moments for s in at[m] if s["gpu_index"] == gpu]
            used = np.interp(end, *zip(*line, strict=True)) - np.interp(start, *zip(*line, strict=True))
            energy[gpu] = energy.get(gpu, 0.0) + float(used)
    rows = [sample for moment in chosen for sample in at[moment]]
    used_pct = [float(sample["gpu_util_pct"]) for sample in rows if sample["gpu_util_pct"]]
    memory = [float(sample["gpu_memory_gb"]) for sample in rows if sample["gpu_memory_gb"]]
    return {
        "peak_memory_gb": max(memory or [float(sample["rss_gb"]) for sample in rows]),
        "cpu_pct": busy / idle if idle else None,
        "gpu_util_pct": mean(used_pct),
        "energy_j": sum(energy.values()) if energy else None,
    }


# -- speed against the baseline


def samples_of(result: Result, baseline: bool = False) -> Start:
    """Seconds of each batch by (prompt, seed, repeat) of its first request; of a load, of each of its parts."""
    if recompute_loads.under_load(result["cell"]):
        return {} if baseline else recompute_loads.samples(result["cell"], result)
    firsts: dict[int, tuple[int, int, int]] = {}
    for request in result["requests"]:
        firsts.setdefault(request["batch_index"], (request["prompt_index"], request["seed"], request["repeat"]))
    timed = [(batch["batch_index"], beside(batch) if baseline else batch["latency_s"]) for batch in result["batches"]]
    return {firsts[index]: seconds for index, seconds in timed if seconds is not None}


def units(starts: Sequence[Start], value: Callable[[tuple[int, int, int]], float]) -> "np.ndarray":
    """A value for each prompt and seed that all starts have: the median over repeats; over one prompt, its repeats."""
    shared = sorted(set.intersection(*(set(start) for start in starts)))
    groups = [list(group) for _, group in itertools.groupby(shared, key=lambda key: key[:2])]
    if len(groups) == 1:
        return np.array([value(key) for key in groups[0]])
    return np.array([statistics.median(value(key) for key in group) for group in groups])


def beside_differences(pairs: Sequence[tuple[Start, Start]]) -> "np.ndarray":
    starts = [start for pair in pairs for start in pair]
    each = [units(starts, lambda key, b=b, c=c: math.log(b[key]) - math.log(c[key])) for b, c in pairs]
    return np.mean(each, axis=0)


def speed(sweep: Sweep, cell: Cell) -> dict[str, Any]:
    """ratio, low, high, p, called."""
    unknown: dict[str, Any] = {"speedup": None, "speedup_low": None, "speedup_high": None, "p_value": None}
    if cell["config"].get("profile", "off") not in ("off", ""):
        return unknown | {"called": ""}
    if role(cell) == "baseline":
        return {"speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0, "p_value": None, "called": ""}
    mine = sweep.results[cell["key"]]
    pairs = [(samples_of(one, True), samples_of(one)) for one in mine]
    pairs = [pair for pair in pairs if pair[0]]
    spread, df, by_chance = None, 0.0, 0.0
    if pairs:
        differences = beside_differences(pairs)
        again = [
            beside_differences([(samples_of(one, True), samples_of(one))])
            for aa in sweep.same_engine(cell, ["aa"])
            for one in sweep.results[aa["key"]]
            if samples_of(one, True)
        ]
        if again and role(cell) != "aa":
            spread, df = sum(float(one.mean()) ** 2 for one in again) / len(again) / len(pairs), len(again)
            residuals = np.concatenate([one - one.mean() for one in again])
            by_chance = float(residuals @ residuals) / max(1, len(residuals) - len(again)) / len(pairs)
    else:
        family = [c for c in sweep.same_engine(cell, ["baseline", "aa"]) if c["origin"] == cell["baseline_key"]]
        if role(cell) == "aa":
            family = [c for c in family if role(c) == "baseline"]
        before = [samples_of(one) for c in family for one in sweep.results[c["key"]]]
        after = [samples_of(one) for one in mine]
        if not before:
            return unknown | {"called": ""}
        sides = [
            np.mean([units([*before, *after], lambda key, s=start: math.log(s[key])) for start in side], axis=0)
            for side in (before, after)
        ]
        differences = sides[0] - sides[1]
        variance, df, prompt_variance = starts_variance(sweep, cell)
        if variance is not None and role(cell) != "aa":
            spread = variance / len(before) + variance / len(after)
            by_chance = prompt_variance / len(before) + prompt_variance / len(after)
    return interval(differences, spread, df, by_chance)


def against_baseline(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """With the latency that was divided by the cell's."""
    known = row["role"] != "baseline" and found["speedup"] is not None
    return found | {"baseline_latency_s": row["latency_mean_s"] * found["speedup"] if known else None}


def starts_variance(sweep: Sweep, cell: Cell) -> tuple[float | None, int, float]:
    """Over baselines that were started again: variance of a start's mean log latency, its degrees of freedom, and the
    variance of single prompts about the means of their start and of their prompt."""
    families: dict[str, list[Start]] = {}
    for one in sweep.same_engine(cell, ["baseline", "aa"]):
        families.setdefault(one["origin"], []).extend(samples_of(result) for result in sweep.results[one["key"]])
    squares, df, prompt_squares, prompt_df = 0.0, 0, 0.0, 0
    for starts in families.values():
        if len(starts) > 1:
            table = [[float(x) for x in units(starts, lambda key, s=start: math.log(s[key]))] for start in starts]
            of_start = [sum(line) / len(line) for line in table]
            of_prompt = [sum(column) / len(column) for column in zip(*table, strict=True)]
            whole = sum(of_start) / len(of_start)
            squares += sum((m - whole) ** 2 for m in of_start)
            df += len(table) - 1
            for line, own in zip(table, of_start, strict=True):
                prompt_squares += sum((x - own - p + whole) ** 2 for x, p in zip(line, of_prompt, strict=True))
            prompt_df += (len(table) - 1) * (len(of_prompt) - 1)
    prompt_variance = prompt_squares / prompt_df if prompt_df else 0.0
    return (squares / df if df else None), df, prompt_variance


# -- images against the baseline's


def quality(sweep: Sweep, cell: Cell) -> dict[str, Any]:
    nothing: dict[str, Any] = {"mean_diff": None, "max_diff": None, "psnr_db": None, "ssim": None}
    mine, theirs = (sweep.results.get(key) for key in (cell["key"], cell["baseline_key"]))
    if not mine or not theirs or not any(r["image"] for r in mine[0]["requests"]):
        return nothing
    others = {(r["prompt_index"], r["seed"]): r for r in theirs[0]["requests"] if r["image"]}
    each = []
    for request in mine[0]["requests"]:
        if request["image"]:
            other = others[request["prompt_index"], request["seed"]]
            each.append(difference(mine[0]["path"], request, theirs[0]["path"], other))
    squared = sum(one[2] for one in each) / len(each)
    return {
        "mean_diff": sum(one[0] for one in each) / len(each),
        "max_diff": max(one[1] for one in each),
        "psnr_db": -10 * math.log10(squared) if squared else math.inf,
        "ssim": sum(one[3] for one in each) / len(each),
    }


def difference(folder: Path, request: Any, other_folder: Path, other: Any) -> tuple[float, float, float, float]:
    """mean, largest, mean squared difference, SSIM; from quality.json where the images themselves are not stored."""
    if request["image_hash"] == other["image_hash"]:
        return 0.0, 0.0, 0.0, 1.0
    if not (folder / request["image"]).is_file():
        known = json.loads((folder / "quality.json").read_text())[f"{request['image_hash']}:{other['image_hash']}"]
        return known[0], known[1], 10 ** (-known[2] / 10), known[3]
    one, two = (read_png(path) / 255 for path in (folder / request["image"], other_folder / other["image"]))
    apart = np.abs(one - two)
    return float(apart.mean()), float(apart.max()), float((apart**2).mean()), ssim(one, two)


# -- what pictures show


def shown_facts(results: Sequence[Result]) -> dict[str, Any]:
    """Shares of the first start's pictures and facts, and Wilson's interval solved as a quadratic equation."""
    folder, requests = results[0]["path"], [r for r in results[0]["requests"] if r["image"]]
    if not (folder / "quality.json").is_file():
        return {}
    known = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    facts = {name.split(":")[1]: one for name, one in known.items() if name.startswith("facts:")}
    each = [facts[r["image_hash"]] for r in requests if r["image_hash"] in facts]
    if not each:
        return {}
    count, right = len(each), sum(not one["wrong"] for one in each)
    # p with (share - p)² = z² p (1 - p) / count
    z2, share = statistics.NormalDist().inv_cdf(0.975) ** 2, right / count
    low, high = sorted(float(root.real) for root in np.roots([1 + z2 / count, -2 * share - z2 / count, share**2]))
    wrong = sum(len(one["wrong"]) for one in each)
    said = [one for r in requests if (one := said_by_tokens(known, results[0], r))]
    return {
        "pictures_checked": count,
        "exact_rate": share,
        "exact_low": max(0.0, low),
        "exact_high": min(1.0, high),
        "facts_right": 1 - wrong / sum(one["facts"] for one in each),
        "tokens_right": sum(not one["wrong"] for one in said) / len(said) if said else None,
    }


def said_by_tokens(known: dict[str, Any], result: Result, request: Any) -> dict[str, Any] | None:
    """What quality.json has of a request's image tokens: its names hold the tokens and a hash of the prompt."""
    prompt = result["prompts"][request["prompt_index"]]
    versions = itertools.product(range(1, 10), repeat=2)  # of what is read from tokens, and of what is asked
    hashes = [hashlib.sha256(f"{one} {other} {prompt}".encode()).hexdigest()[:16] for one, other in versions]
    tokens = "-".join(map(str, request.get("image_tokens", ())))
    return next((known[name] for one in hashes if (name := f"tokens:{tokens}:{one}") in known), None)


QUOTES = (('"', '"'), ("“", "”"), ("「", "」"), ("『", "』"))


def read_text(results: Sequence[Result]) -> dict[str, Any]:
    """The share of the first start's pictures in which the quoted text was read; of prompts with these marks alone."""
    folder, shown = results[0]["path"], []
    known = json.loads((folder / "quality.json").read_text()) if (folder / "quality.json").is_file() else {}
    for request in results[0]["requests"]:
        prompt = dict(enumerate(results[0]["prompts"])).get(request["prompt_index"], "")  # random ones are not kept
        found = known.get(f"text:{request['image_hash']}")
        wanted = [text for one, two in QUOTES for text in re.findall(f"{one}([^{two}]+){two}", prompt)]
        if request["image"] and found and wanted:
            said = ["".join(line.split()) for line in found["lines"]]
            parts = ["".join(said[a:b]) for a, b in itertools.combinations(range(len(said) + 1), 2)]
            shown.append(all("".join(text.split()) in parts for text in wanted))
    return {"text_right": sum(shown) / len(shown)} if shown else {}


# -- the whole table


def recomputed(sweep: Sweep) -> list[dict[str, Any]]:
    """The rows that summary.csv should have, without JUDGED."""
    rows = []
    for shown in sweep.rows:
        cell = sweep.by_key[shown["cell_key"]]
        results = sweep.results.get(cell["key"], [])
        row = own_columns(cell, results, lambda result: result["path"])
        measured = (
            against_baseline(row, speed(sweep, cell)) | quality(sweep, cell) | shown_facts(results) | read_text(results)
            if results
            else {}
        )
        chosen = {name: option(cell, name) for name in shown if name.startswith("option.")}
        rows.append(row | chosen | measured)
    family = [
        (row["p_value"], number)
        for number, (row, shown) in enumerate(zip(rows, sweep.rows, strict=True))
        if row["role"] == "feature" and row.get("p_value") is not None and not shown["invalid_reason"]
    ]
    highest = 0.0
    for rank, (p, number) in enumerate(sorted(family)):
        highest = max(highest, min(1.0, p * (len(family) - rank)))
        rows[number]["p_holm"] = highest
    firsts = [cell for cell in sweep.cells if role(cell) in ("baseline", "feature")]
    status = {shown["cell_key"]: shown["status"] for shown in sweep.rows}
    queues = recompute_queueing.columns(firsts, sweep.results, status)
    for row in rows:
        row |= queues.get(row["cell_key"], {})
        row |= gain(sweep, row, rows)
        row |= over_base(sweep, sweep.by_key[row["cell_key"]])
    return rows


def option(cell: Cell, column: str) -> Any:
    """What the configuration has for `option.FEATURE.NAME`, where the cell has the feature, or for `option.FIELD`."""
    first, *path = column.split(".")[1:]
    value = cell["config"]["feature"].get(first, cell["config"].get(first))
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return str(value) if isinstance(value, bool) else value


def over_base(sweep: Sweep, cell: Cell) -> dict[str, Any]:
    """How many times faster than its base, each relative to its interleaved baseline if both have one."""
    base = sweep.by_key.get(cell.get("base_key", ""))
    if base is None:
        return {}
    sides = [sweep.results.get(one["key"], []) for one in (base, cell)]
    known: dict[str, Any] = {"base": base["label"]}
    if not all(sides) or cell["config"].get("profile", "off") not in ("off", ""):
        return known
    pairs = [[(samples_of(one, True), samples_of(one)) for one in side] for side in sides]
    pairs = [[pair for pair in side if pair[0]] for side in pairs]
    if all(pairs):
        differences = beside_differences(pairs[1]) - beside_differences(pairs[0])
        counts = [len(side) for side in pairs]
        again = [
            beside_differences([(samples_of(one, True), samples_of(one))])
            for aa in sweep.same_engine(cell, ["aa"])
            for one in sweep.results[aa["key"]]
            if samples_of(one, True)
        ]
        df = len(again)
        residuals = np.concatenate([one - one.mean() for one in again]) if again else np.zeros(1)
        variance = sum(float(one.mean()) ** 2 for one in again) / max(1, df)
        prompt_variance = float(residuals @ residuals) / max(1, len(residuals) - df)
    else:
        starts = [[samples_of(one) for one in side] for side in sides]
        both = [*starts[0], *starts[1]]
        means = [np.mean([units(both, lambda k, s=s: math.log(s[k])) for s in side], axis=0) for side in starts]
        differences = means[0] - means[1]
        counts = [len(side) for side in starts]
        variance, df, prompt_variance = starts_variance(sweep, cell)
    share = sum(1 / count for count in counts)
    spread, by_chance = (variance * share, prompt_variance * share) if df else (None, 0.0)
    found = interval(differences, spread, df, by_chance)
    return known | {f"gain_over_base{end}": found[f"speedup{end}"] for end in ("", "_low", "_high")}


def gain(sweep: Sweep, row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Speed-up of a combination ÷ product of its members' own, and its interval: half-widths of logs in quadrature."""
    cell = sweep.by_key[row["cell_key"]]
    if len(cell["features"]) < 2 or row.get("speedup") is None:
        return {}
    members = []
    for name, body in cell["config"]["feature"].items():
        alone = [
            other
            for other in rows
            if (one := sweep.by_key[other["cell_key"]])["baseline_key"] == cell["baseline_key"]
            and one["config"]["feature"] == {name: body}
        ]
        if not alone or alone[0]["speedup"] is None:
            return {}
        members.append(alone[0])
    found = {"interaction_gain": float(row["speedup"] / math.prod(one["speedup"] for one in members))}
    ends = [[one["speedup_low"], one["speedup"], one["speedup_high"]] for one in (row, *members)]
    if any(None in one or not 0 < one[0] < one[2] for one in ends):
        return found
    logs = np.log(np.array(ends, dtype=float))
    down, up = np.diff(logs, axis=1).T
    below = math.hypot(down[0], *up[1:])
    above = math.hypot(up[0], *down[1:])
    low, high = found["interaction_gain"] * math.exp(-below), found["interaction_gain"] * math.exp(above)
    return found | {"interaction_low": low, "interaction_high": high}


def differences(folder: Path) -> tuple[list[str], int]:
    """Where summary.csv differs, one line each, and how many fields with a value were compared."""
    sweep = Sweep(folder)
    wrong, compared = [], 0
    for shown, known in zip(sweep.rows, recomputed(sweep), strict=True):
        expected = known | limits(shown, known)
        for name, text in shown.items():
            if name in JUDGED:
                continue
            value = expected.get(name)
            compared += value is not None
            if not same(text, value):
                wrong.append(f"{shown['cell']}: {name} is {text or 'empty'}, recomputed {value}")
    return wrong, compared


def same(text: str, value: Any) -> bool:
    if value is None or isinstance(value, str):
        return text == (value or "")
    try:
        found = float(text)
    except ValueError:
        return False
    return found == value or abs(found - value) <= CLOSE * max(1.0, abs(value))


def limits(shown: dict[str, str], expected: dict[str, Any]) -> dict[str, Any]:
    """What follows from a prediction and a limit; the two as shown where they can be true, or None."""
    said = {name: float(shown[name]) if shown.get(name) else None for name in SAID}
    latency, offline = expected["latency_mean_s"], not expected.get("load") and not expected.get("profiled")
    if not latency or not offline:
        return {}
    shares = [said[name] for name in SAID[3:] if said[name] is not None]
    if any(not 0 < share <= 1 for share in shares):
        return {}
    predicted, limit = said["predicted_latency_s"], said["limit_latency_s"]
    return said | {
        "prediction_error": predicted / latency - 1 if predicted else None,
        "limit_share": limit / latency if limit else None,
    }


def main(folder: str) -> int:
    """Print what differs; 1 if anything does."""
    wrong, compared = differences(Path(folder))
    print(*wrong, f"{compared} fields compared, {len(wrong)} differ", sep="\n")
    return int(bool(wrong) or not compared)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
