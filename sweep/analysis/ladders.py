"""What the loads of a sweep say together: where throughput stops growing, and what serving costs. Pure, over rows.

A ladder is one configuration under loads that differ only in how many requests are in flight, or in how many arrive per
second. Its knee is where more load stops being worth it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.config.load import Load
from sweep.findings import USABLE
from sweep.plan.cells import AA, Cell

NEAR_BEST = 0.95
"""Share of the highest throughput from which a rung counts as reaching it."""

KEPT_UP = 0.95
"""Requests done ÷ requests that arrived, from which a server keeps up with a rate."""

KNEE, GROWS, SATURATED, ATTAINED = "knee", "still_grows", "saturated", "slo_attained"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Ladder:
    """One configuration under several loads, lightest first."""

    name: str  # its features, batch and everything else that the sweep varies
    level: str  # column that differs: concurrency or request_rate
    rows: tuple[Row, ...]
    code: str  # KNEE, ATTAINED (the SLO), GROWS (it is higher up) or SATURATED (the lightest load is too much)
    text: str  # for people, with the evidence
    knee: float | None = None  # the load at the knee, or the highest that meets the SLO


@dataclass(frozen=True)
class Serving:
    """What serving over HTTP costs: one configuration offline and in a closed load."""

    name: str
    offline_s: float  # of a request; for batches, of an image
    served_s: float
    text: str


def ladders(rows: Sequence[Row], cells: Mapping[str, Cell]) -> list[Ladder]:
    """The ladders of a sweep, in the order of its cells; one rung is not a ladder."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        cell = cells[row["cell_key"]]
        if cell.under_load and row["role"] != AA and row["status"] in USABLE and _rate(row):
            families.setdefault(family_of(cell), []).append(row)
    found = []
    for family in families.values():
        level = "concurrency" if str(family[0]["load"]).startswith("closed") else "request_rate"
        rungs = sorted((row for row in family if row[level] is not None), key=lambda row: float(row[level]))
        if len(rungs) > 1:
            cell = cells[rungs[0]["cell_key"]]
            if level == "concurrency":
                found.append(_closed(name_of(cell), rungs))
            elif all(row.get("goodput_share") is not None for row in rungs):
                found.append(_attained(name_of(cell), rungs, cell.run_config.load))
            else:
                found.append(_open(name_of(cell), rungs))
    return found


def _closed(name: str, rungs: Sequence[Row]) -> Ladder:
    best = max(rungs, key=_rate)
    knee = next(row for row in rungs if _rate(row) + _noise(row, best) >= NEAR_BEST * _rate(best))
    last, level = rungs[-1], "concurrency"
    unit = "images/s" if best.get("images_per_s") else "requests/s"
    if knee is last:
        before = rungs[-2]
        gain = _rate(last) / _rate(before) - 1
        text = (
            f"no knee up to {last[level]} in flight: from {before[level]} to {last[level]}, throughput still grows by "
            f"{gain:.0%}, to {_rate(last):.3g} {unit}; try more"
        )
        return Ladder(name, level, tuple(rungs), GROWS, text)
    share = _rate(knee) / _rate(best)
    most = "the most" if knee is best else f"{share:.0%} of the most ({_rate(best):.3g} at {best[level]})"
    if share < NEAR_BEST:
        most += f", which is within noise (±{_noise(knee, best) / _rate(best):.0%})"
    slower = last["latency_mean_s"] / knee["latency_mean_s"]
    text = (
        f"knee at {knee[level]} in flight: {_rate(knee):.3g} {unit}, {most}, at "
        f"{knee['latency_mean_s']:.3g} s; from there to {last[level]} latency grows {slower:.2g}×"
    )
    return Ladder(name, level, tuple(rungs), KNEE, text, float(knee[level]))


def _noise(row: Row, best: Row) -> float:
    """Half of the 95 % interval of the difference of two rates; 0 where their intervals are unknown."""
    if row is best:
        return 0.0
    ends = [(one.get("requests_per_s_low"), one.get("requests_per_s_high")) for one in (row, best)]
    halves = [(high - low) / 2 for low, high in ends if low is not None and high is not None]
    return math.hypot(*halves) if len(halves) == 2 else 0.0


def _open(name: str, rungs: Sequence[Row]) -> Ladder:
    level = "request_rate"
    kept = [row for row in rungs if _rate(row) >= KEPT_UP * _came(row)]
    best = max(_rate(row) for row in rungs)
    if not kept:
        text = f"already {rungs[0][level]:g} requests/s are too many: at most {best:.3g}/s were done"
        return Ladder(name, level, tuple(rungs), SATURATED, text)
    knee = kept[-1]
    if knee is rungs[-1]:
        text = f"keeps up with all rates up to {knee[level]:g} requests/s; try more"
        return Ladder(name, level, tuple(rungs), GROWS, text)
    over = next(row for row in rungs if row[level] > knee[level])
    latency = "e2e_with_queue_mean_s"
    text = (
        f"keeps up with {knee[level]:g} requests/s at {knee[latency]:.3g} s from when they are due, and not with "
        f"{over[level]:g}/s: {best:.3g}/s at most"
    )
    return Ladder(name, level, tuple(rungs), KNEE, text, float(knee[level]))


def _attained(name: str, rungs: Sequence[Row], load: Load) -> Ladder:
    """The highest rate at which enough requests meet the SLO, below the lowest at which they do not."""
    level = "request_rate"
    limits = ", ".join(f"{limit} {value:g} ms" for limit, value in vars(load.slo).items() if value is not None)
    slo = f"the SLO ({limits} for {load.attain:.0%} of requests)"
    missed = [row for row in rungs if row["goodput_share"] < load.attain]
    least = missed[0][level] if missed else float("inf")
    met = [row for row in rungs if row["goodput_share"] >= load.attain and row[level] < least]
    if not met:
        text = f"misses {slo} already at {least:g} requests/s, where {missed[0]['goodput_share']:.0%} met it"
        return Ladder(name, level, tuple(rungs), SATURATED, text)
    best = met[-1]
    share = f"{best['goodput_share']:.0%} did (95 % interval {best['goodput_low']:.0%} to {best['goodput_high']:.0%})"
    text = f"meets {slo} up to {best[level]:g} requests/s, where {share}"
    if not missed:
        return Ladder(name, level, tuple(rungs), GROWS, f"{text}; try more")
    text += f"; at {least:g}/s {missed[0]['goodput_share']:.0%} did"
    return Ladder(name, level, tuple(rungs), ATTAINED, text, float(best[level]))


def _rate(row: Row) -> float:
    """Images a second, or texts; 0 where there are none."""
    return float(row.get("images_per_s") or row.get("requests_per_s") or 0.0)


def _came(row: Row) -> float:
    """Requests per second that really arrived in the steady state: with a law, their number varies."""
    return float(row["requests_judged"] / row["window_s"]) if row.get("window_s") else float(row["request_rate"])


def serving(rows: Sequence[Row], cells: Mapping[str, Cell]) -> list[Serving]:
    """For every configuration that ran offline and in a closed load.

    With one prompt at a time, it is compared with one request in flight: what a request loses to HTTP. With batches, it
    is compared with the load that served most: what the server loses to batches that are not full.
    """
    offline: dict[str, Row] = {}
    closed: dict[str, list[Row]] = {}
    for row in rows:
        cell = cells[row["cell_key"]]
        if row["role"] == AA or row["status"] not in USABLE or not row.get("latency_mean_s"):
            continue
        if not cell.under_load:
            offline.setdefault(family_of(cell, loads=False), row)
        elif str(row["load"]).startswith("closed"):
            closed.setdefault(family_of(cell, loads=False), []).append(row)
    found = []
    for family, served in closed.items():
        if (same := offline.get(family)) is None:
            continue
        name = name_of(cells[served[0]["cell_key"]])
        alone = next((row for row in served if row["concurrency"] == 1), None)
        if same["batch"] == 1 and alone is not None:
            before, after = float(same["latency_mean_s"]), float(alone["latency_mean_s"])
            text = f"{before:.3g} s offline, {after:.3g} s over HTTP with one request in flight"
            found.append(Serving(name, before, after, f"serving costs {after / before - 1:+.1%} of latency: {text}"))
        elif same["batch"] > 1 and _rate(same):
            best = max(served, key=_rate)
            text = f"{_rate(best):.3g} images/s with {best['concurrency']} in flight, {_rate(same):.3g} in full batches"
            share = f"served, it reaches {_rate(best) / _rate(same):.0%} of its offline throughput"
            found.append(Serving(name, 1 / _rate(same), 1 / _rate(best), f"{share}: {text}"))
    return found


def family_of(cell: Cell, loads: bool = True) -> str:
    """What a ladder's cells share: their whole configuration except the level; without `loads`, except the load."""
    config = {name: value for name, value in cell.config.items() if name not in ("load", "group")}
    if loads:
        config["load"] = {
            name: value
            for name, value in cell.config["load"].items()
            if name not in ("max_concurrency", "request_rate", "num_requests")
            or (name == "max_concurrency" and cell.config["load"]["name"] == "open")
        }
    return json.dumps(config, sort_keys=True, default=str)


def name_of(cell: Cell) -> str:
    """The label without the load."""
    load = cell.run_config.load
    return " ".join(cell.label.replace(load.level, "").removesuffix(f" {load.name} ").split())
