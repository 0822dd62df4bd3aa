"""Columns of cells under load, again, from the files of the cells. As `recompute`: imports nothing of the framework."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]


def under_load(cell: Row) -> bool:
    return cell["config"].get("load", {}).get("name", "offline") != "offline"


def window(cell: Row, result: Row) -> tuple[float, float, list[Row], list[Row]]:
    """From, to, and the requests sent and done within."""
    load = cell["config"]["load"]
    by_sending = sorted(result["requests"], key=lambda one: one["sent_s"])
    done = sorted(one["done_s"] for one in by_sending)
    end = by_sending[-1]["sent_s"]
    if load["name"] == "closed":
        begin = done[min(load["max_concurrency"], len(done)) - 1]
    else:
        begin = by_sending[left_out([one["e2e_s"] for one in by_sending])]["sent_s"]
    sent = [one for one in by_sending if begin <= one["sent_s"] <= end]
    ended = [one for one in by_sending if begin < one["done_s"] <= end]
    if min(len(sent), len(ended)) < 8 or end <= begin:
        return by_sending[0]["sent_s"], done[-1], by_sending, by_sending
    return begin, end, sent, ended


def left_out(values: Sequence[float]) -> int:
    """MSER-5: where the variance of the mean of what follows is smallest, in the first half."""
    means = np.array([np.mean(values[at : at + 5]) for at in range(0, len(values) - 4, 5)])
    candidates = [number for number in range(len(means) // 2 + 1) if len(means) - number >= 2]
    if not candidates:
        return 0
    return 5 * min(candidates, key=lambda number: float(np.var(means[number:])) / (len(means) - number))


def taken(one: Row) -> float:
    return float(one["done_s"] - one["intended_s"])


def meets(one: Row, slo: dict[str, float | None]) -> bool:
    took = {"ttft": one["ttft_s"], "tpot": one["tpot_s"], "e2el": taken(one)}
    return all(limit is None or (took[name] is not None and 1000 * took[name] <= limit) for name, limit in slo.items())


def wilson(good: int, count: int) -> tuple[float, float]:
    z = 1.959963984540054
    middle, root = good + z * z / 2, z * math.sqrt(good * (count - good) / count + z * z / 4)
    return max(0.0, (middle - root) / (count + z * z)), min(1.0, (middle + root) / (count + z * z))


def columns(cell: Row, results: Sequence[Row], mean: Any, percentile: Any) -> Row:
    """What replaces or adds to the columns of an offline cell."""
    load = cell["config"]["load"]
    parts = [window(cell, result) for result in results]
    wall_s = math.fsum(end - begin for begin, end, _, _ in parts)
    sent = [one for _, _, part, _ in parts for one in part]
    ended = [one for _, _, _, part in parts for one in part]
    every = [one for result in results for one in result["requests"]]
    failed = sum(len(result["failed"]) for result in results)
    latencies = [one["e2e_s"] for one in sent]
    due = [taken(one) for one in sent] if load["name"] == "open" else []
    tokens = sum(one["output_tokens"] for one in ended)
    texts = cell["config"]["workload"]["task"] == "text"
    named = {"closed": f"closed, {load['max_concurrency']} in flight"}
    asked = load["trace"] or f"{load['request_rate'] or 0:g}/s {load['arrivals']}"
    row: Row = {
        "load": named.get(load["name"], f"open, {asked}"),
        "concurrency": load["max_concurrency"],
        "request_rate": load["request_rate"],
        "latency_mean_s": mean(latencies),
        **{f"latency_p{q}_s": percentile(latencies, q) for q in (50, 90, 95, 99)},
        "e2e_with_queue_mean_s": mean(due),
        **{f"e2e_with_queue_p{q}_s": percentile(due, q) for q in (50, 90, 95, 99)},
        "images_per_s": None if texts else len(ended) / wall_s,
        "requests_per_s": len(ended) / wall_s,
        "images_per_s_per_gpu": None if texts else len(ended) / wall_s / cell["gpus"],
        "output_tokens_per_s": tokens / wall_s if tokens else None,
        "queue_mean_s": mean([one["queue_s"] for one in sent if one["queue_s"] is not None]),
        "batch_mean": len(every) / sum(len(result["batches"]) for result in results),
        "requests_sent": len(every) + failed,
        "requests_failed": failed,
        "requests_judged": len(sent),
        "window_s": wall_s,
        "in_flight": math.fsum(
            spent((begin, end, result["requests"])) for (begin, end, _, _), result in zip(parts, results, strict=True)
        )
        / wall_s,
    }
    row |= dict(zip(("requests_per_s_low", "requests_per_s_high"), rate_interval(parts), strict=True))
    for name in ("ttft", "tpot"):
        values = [one[f"{name}_s"] for one in sent if one[f"{name}_s"] is not None]
        row |= {f"{name}_mean_s": mean(values)} | {f"{name}_p{q}_s": percentile(values, q) for q in (95, 99)}
    if texts:
        gaps = [gap for one in sent for gap in one["itl_s"]]
        row |= {"itl_mean_s": mean(gaps)} | {f"itl_p{q}_s": percentile(gaps, q) for q in (95, 99)}
        row["input_tokens_per_s"] = sum(one["prompt_tokens"] for one in ended) / wall_s
        row |= dict.fromkeys(("steps", "width", "height"), 0)
        row |= dict.fromkeys(("energy_j_per_image", "cost_per_image"))
    seen = max((rank["block_sequence"] for r in results for b in r["batches"] for rank in b["evidence"]), default=0)
    drawn = seen and not tokens and cell["config"]["workload"]["task"] == "text_to_image"
    row["image_tokens_per_s"] = seen * len(ended) / wall_s if drawn else None
    if any(limit is not None for limit in load["slo"].values()):
        good, count = sum(meets(one, load["slo"]) for one in sent), len(sent) + failed
        row["goodput_per_s"] = sum(meets(one, load["slo"]) for one in ended) / wall_s
        row |= {"goodput_share": good / count} | dict(
            zip(("goodput_low", "goodput_high"), wilson(good, count), strict=True)
        )
    return row


def rate_interval(parts: Sequence[tuple[float, float, list[Row], list[Row]]]) -> tuple[float | None, float | None]:
    """Student's, from seconds a request in up to ten parts of equally many requests done."""
    from scipy import stats

    each: list[float] = []
    for begin, end, sent, ended in parts:
        done = np.sort([one["done_s"] for one in ended])
        count = min(10, len(done) // 4)
        if count < 4 or (sent is ended and begin < end):
            continue
        cuts = [part * len(done) // count for part in range(count + 1)]
        times = [begin, *(float(done[cut - 1]) for cut in cuts[1:])]
        each += list(np.diff(times) / np.diff(cuts))
    if not each:
        return None, None
    middle, half = np.mean(each), stats.sem(each) * stats.t.ppf(0.975, len(each) - 1)
    return (float(1 / (middle + half)), float(1 / (middle - half))) if half < middle else (None, None)


def spent(part: tuple[float, float, list[Row]]) -> float:
    """Seconds that requests were under way within a window."""
    begin, end, every = part
    return math.fsum(max(0.0, min(one["done_s"], end) - max(one["sent_s"], begin)) for one in every)


def samples(cell: Row, result: Row) -> dict[tuple[int, int, int], float]:
    """Means of up to ten consecutive parts, of at least three requests each."""
    sent = window(cell, result)[2]
    count = min(10, len(sent) // 3)
    edges = [number * len(sent) // count for number in range(count + 1)] if count else []
    parts = [sent[low:high] for low, high in itertools.pairwise(edges)]
    return {(number, 0, 0): math.fsum(map(taken, part)) / len(part) for number, part in enumerate(parts)}


def apart(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Their union as spans that do not overlap: requests under load do."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found
