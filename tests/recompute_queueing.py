"""Columns of the queueing model, again: every request of every lane, one after another. As `recompute`: imports nothing
of the framework. Random numbers are those that the model's docstring defines, so the numbers are the same to 1e-9."""

import bisect
import heapq
import itertools
import json
import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests import recompute_loads

Row = dict[str, Any]
LANES, FEWEST = 64, 8


def columns(cells: Sequence[Row], results: dict[str, list[Row]], status: dict[str, str]) -> dict[str, Row]:
    """By the key of each cell under load that has a prediction. `cells` without A/A runs and repeats."""
    known = [cell for cell in cells if cell["key"] in results and cell["config"].get("profile", "off") in ("", "off")]
    found = {}
    for cell in known:
        if recompute_loads.under_load(cell) and status[cell["key"]] in ("PASS", "WARN") and plain(cell, results):
            same = sorted((one for one in known if server(one) == server(cell)), key=weight)
            times = service(same, results, limit(cell))
            if times is not None:
                found[cell["key"]] = predicted(cell, results[cell["key"]], times)
    return found


def server(cell: Row) -> str:
    config = {name: value for name, value in cell["config"].items() if name not in ("load", "group")}
    mix = cell["config"].get("load", {}).get("mix") or {}
    several = mix if mix.get("edits") or mix.get("sizes", "fixed") != "fixed" else None
    return json.dumps([config, several], sort_keys=True)


def limit(cell: Row) -> int:
    load, config = cell["config"]["load"], cell["config"]
    if config["workload"]["task"] == "text":
        return 1
    most = load["max_concurrency"] if load["name"] == "open" else None
    return int(min(config["batch"], most or config["batch"]))


def plain(cell: Row, results: dict[str, list[Row]]) -> bool:
    """Whether one queue of equal requests describes it; of the engines that are embedded."""
    mix = cell["config"]["load"].get("mix") or {}
    mixed = mix.get("edits") or mix.get("sizes", "fixed") != "fixed"
    known = all(one["queue_s"] is not None for result in results[cell["key"]] for one in result["requests"])
    return cell["config"]["engine"]["name"] in ("diffusers", "noop") and known and not (mixed and limit(cell) > 1)


def weight(cell: Row) -> tuple[int, float]:
    load = cell["config"].get("load", {"name": "offline"})
    if load["name"] == "offline":
        return 1, 0.0
    if load["name"] == "open":
        return 2, load["request_rate"] or math.inf
    return (0, 0.0) if load["max_concurrency"] == 1 else (3, load["max_concurrency"])


def service(same: Sequence[Row], results: dict[str, list[Row]], batch: int) -> Row | None:
    """Sorted times by size up to `batch`, the pause between batches, and what requests take outside."""
    sizes: dict[int, list[float]] = {}
    pause, outside = None, None
    for cell in same:
        own, pauses, rest = shown(cell, results[cell["key"]])
        for size, values in own.items():
            if size <= batch and len(values) >= FEWEST:
                sizes.setdefault(size, values)
        pause = pauses if pause is None and len(pauses) >= FEWEST else pause
        outside = rest if outside is None and len(rest) >= FEWEST else outside
    if outside is None or (1 not in sizes if batch == 1 else len(sizes) < 2):
        return None
    every = {size: sorted(sizes[size]) if size in sizes else between(sizes, size) for size in range(1, batch + 1)}
    return {"sizes": every, "pause": statistics.median(pause) if pause else 0.0, "outside": outside}


def between(sizes: dict[int, list[float]], size: int) -> list[float]:
    """On the line through two sizes, at the middles of 64 equally likely parts."""
    known = sorted(sizes)
    right = min(max(bisect.bisect(known, size), 1), len(known) - 1)
    middles = [(n + 0.5) / 64 for n in range(64)]
    a, b = (
        np.interp(np.array(middles) * (len(sizes[one]) - 1), range(len(sizes[one])), sorted(sizes[one]))
        for one in known[right - 1 : right + 1]
    )
    return sorted(max(0.0, x) for x in a + (size - known[right - 1]) / (known[right] - known[right - 1]) * (b - a))


def shown(cell: Row, results: Sequence[Row]) -> tuple[dict[int, list[float]], list[float], list[float]]:
    sizes: dict[int, list[float]] = {}
    pauses, outside = [], []
    loaded = recompute_loads.under_load(cell)
    for result in results:
        took = {one["batch_index"]: one["latency_s"] for one in result["batches"]}
        members: dict[int, list[Row]] = {}
        for one in result["requests"]:
            members.setdefault(one["batch_index"], []).append(one)
        for index, seconds in took.items():
            sizes.setdefault(len(members[index]), []).append(seconds)
            outside += [max(0.0, one["e2e_s"] - one["queue_s"] - seconds) for one in members[index]] if loaded else []
        order = sorted(members, key=lambda index: members[index][0]["start_s"])
        for before, after in itertools.pairwise(order):
            end = members[before][0]["start_s"] + took[before]
            came = min(one["start_s"] - one["queue_s"] for one in members[after]) if loaded else math.inf
            waits = cell["config"]["load"].get("batch_wait_ms") and len(members[after]) < limit(cell)
            if came < end <= members[after][0]["start_s"] and not waits:
                pauses.append(members[after][0]["start_s"] - end)
    return sizes, pauses, outside


def predicted(cell: Row, results: Sequence[Row], times: Row) -> Row:
    """What the first start's load shows over all lanes."""
    load, result = cell["config"]["load"], results[0]
    every = [*result["requests"], *result["failed"]]
    count = len(every)
    rng = np.random.default_rng(0)
    draws = rng.random((LANES, count))
    rest = rng.choice(np.array(times["outside"]), (LANES, count))
    limits = {name: value for name, value in load["slo"].items() if value is not None}
    slo_s = limits["e2el"] / 1000 if set(limits) == {"e2el"} and load["name"] == "open" else None
    latencies, rates, busy, met, counted = [], [], [], 0, 0
    if load["name"] == "open":
        every.sort(key=lambda one: one["intended_s"])
        judged = {(one["request_id"], one["repeat"]) for one in recompute_loads.window(cell, result)[2]}
        due = [one["intended_s"] for one in every]
    for lane in range(LANES):
        if load["name"] == "open":
            done, worked = opened(cell, times, due, draws[lane], rest[lane])
            sent = due
            chosen = [one["exit_code"] != 0 or (one["request_id"], one["repeat"]) in judged for one in every]
        else:
            sent, done, worked = closed(cell, times, count, draws[lane], rest[lane])
            begin = sorted(done)[min(load["max_concurrency"], count) - 1]
            chosen = [one >= begin for one in sent]
        picked = [place for place in range(count) if chosen[place]]
        took = [done[place] - sent[place] for place in picked if not math.isnan(done[place])]
        latencies += took
        met, counted = met + sum(one <= (slo_s or 0.0) for one in took), counted + len(picked)
        first, last = min(sent[place] for place in picked), max(sent[place] for place in picked)
        within = sum(first < one <= last for one in done)
        rates.append(within / (last - first) if last > first else 0.0)
        busy.append(worked / (max(one for one in done if not math.isnan(one)) - min(sent)))
    return {
        "predicted_p50_s": float(np.percentile(latencies, 50)),
        "predicted_p95_s": float(np.percentile(latencies, 95)),
        "predicted_requests_per_s": statistics.fmean(rates),
        "predicted_goodput_share": None if slo_s is None else met / counted,
        "predicted_busy": statistics.fmean(busy),
    }


def serve(
    cell: Row, times: Row, due: Sequence[float], draws: Sequence[float], done_at: Callable[[list[int], float], None]
) -> float:
    """One server, event by event; `done_at` hears of each batch and may send further requests, by appending to `due`.
    Returns how long it worked."""
    batch, wait = limit(cell), cell["config"]["load"].get("batch_wait_ms", 0.0) / 1000
    room = cell["config"]["load"].get("queue") or math.inf
    events = [(moment, 0, number) for number, moment in enumerate(due)]
    heapq.heapify(events)
    known, waiting, idle, number, worked = len(due), deque[int](), True, 0, 0.0
    while events:
        now, kind, name = heapq.heappop(events)
        if kind == 0 and len(waiting) < room:
            waiting.append(name)
            if wait:
                heapq.heappush(events, (due[name] + wait, 2, name))
        idle = idle or kind == 1
        if idle and waiting and (len(waiting) >= batch or now >= due[waiting[0]] + wait):
            taken = [waiting.popleft() for _ in range(min(batch, len(waiting)))]
            values = times["sizes"][len(taken)]
            seconds = values[int(draws[number] * len(values))]
            number, idle, worked = number + 1, False, worked + seconds + times["pause"]
            done_at(taken, now + seconds)
            for more in range(known, len(due)):
                heapq.heappush(events, (due[more], 0, more))
            known = len(due)
            heapq.heappush(events, (now + seconds + times["pause"], 1, -1))
    return worked


def opened(
    cell: Row, times: Row, due: Sequence[float], draws: Sequence[float], rest: Sequence[float]
) -> tuple[list[float], float]:
    done = [math.nan] * len(due)

    def done_at(taken: list[int], moment: float) -> None:
        for one in taken:
            done[one] = moment + rest[one]

    return done, serve(cell, times, due, draws, done_at)


def closed(
    cell: Row, times: Row, count: int, draws: Sequence[float], rest: Sequence[float]
) -> tuple[list[float], list[float], float]:
    """Requests are numbered in the order in which they are served."""
    due = [0.0] * min(cell["config"]["load"]["max_concurrency"], count)
    sent, done = [], []

    def done_at(taken: list[int], moment: float) -> None:
        for one in taken:
            sent.append(due[one])
            done.append(moment + rest[len(done)])
            if len(due) < count:
                due.append(done[-1])

    worked = serve(cell, times, due, draws, done_at)
    return sent, done, worked
