"""What `python -m sweep.predict OVERRIDES` prints: an answer, tables, or JSON."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from sweep.predict import shown
from sweep.predict.calibrate import Calibration
from sweep.predict.memory import Ledger
from sweep.predict.relative import Relative, relatives
from sweep.predict.row import Row
from sweep.predict.search import GOALS, Best
from sweep.predict.shown import number

Calibrations = Callable[[Row], Calibration]


def print_text(rows: Sequence[Row], found: Best | None, goal: str | None, calibration: Calibrations) -> None:
    """An answer in a sentence, then the table; for a single configuration its phases and memory as well."""
    console = Console()
    several = len({row.device.name for row in rows}) > 1
    listed = list(found.rows) if found else list(rows)
    predicted = [row for row in rows if row.prediction]
    beside = _beside(rows, listed[: shown.MOST])
    shown.show(console, [answer(rows, found, goal)])
    console.print()
    if listed:
        console.print(shown.table(listed, several, console.width, beside))
        shown.show(console, shown.skips(listed))
        if len(listed) > shown.MOST:
            shown.show(console, [f"… and {len(listed) - shown.MOST:,} more; --json has all"])
        console.print()
    whole = listed[0] if found and listed else predicted[0] if len(predicted) == 1 else None
    if whole is not None and whole.prediction is not None:
        console.print(shown.phases(whole.prediction, console.width))
        console.print()
        console.print(shown.memory(whole.prediction))
        console.print()
    for line in _known_as(listed or predicted, calibration):
        shown.show(console, [line])


def _known_as(rows: Sequence[Row], calibration: Calibrations) -> list[str]:
    """How figures are known: for each device and engine, and what was assumed about caches."""
    lines = ["counted: operations, weights, KV cache, exchanged bytes, from the model's own shape"]
    seen: set[tuple[str, str]] = set()
    skips: dict[str, float] = {}
    for row in rows:
        if row.prediction is None:
            continue
        if row.prediction.point.effects.skip:
            skips["+".join(name for name in row.features if _skips(row, name))] = row.prediction.point.effects.skip
        if (row.device.name, row.run.engine.name) not in seen:
            seen.add((row.device.name, row.run.engine.name))
            lines += shown.grades(row.device, calibration(row))
    if skips:
        said = ", ".join(f"{name} skips {share:.0%} of the blocks" for name, share in skips.items())
        lines.append(f"assumed: {said}; their files say it (predict: skip)")
    return lines


def _skips(row: Row, name: str) -> bool:
    body = row.run.feature.get(name) or {}
    return "skip" in (body.get("predict") or {})


def answer(rows: Sequence[Row], found: Best | None, goal: str | None) -> str:
    """One sentence: what is best, or what the one configuration takes, or how many fit."""
    predicted = [row for row in rows if row.prediction]
    if found is not None and goal is not None:
        if not found.rows:
            return f"None of {found.tried:,} configurations is left: {_why_none(found)}."
        first = found.rows[0]
        made = first.prediction
        assert made is not None
        left = _why_none(found)
        return (
            f"{GOALS[goal][0].capitalize()} {goal} of {found.tried:,}: {first.label} on {_gpus(first)}, "
            f"{number(made.latency_s)} s, {number(made.images_per_s)} images/s, {number(made.memory.told / 1e9)} GB"
            f"{f' ({left})' if left else ''}."
        )
    if len(predicted) == 1:
        made = predicted[0].prediction
        assert made is not None
        share = made.limit_s / made.latency_s
        fits = {None: "memory of the device unknown", True: "fits", False: "does not fit"}[made.fits]
        room = f" of {number(made.memory_bytes / 1e9)}" if made.memory_bytes else ""
        return (
            f"{predicted[0].label} on {_gpus(predicted[0])}: {number(made.latency_s)} s, {share:.0%} of what the "
            f"hardware allows; {number(made.memory.told / 1e9)}{room} GB, {fits}."
        )
    fitting = sum(row.prediction.fits is not False for row in predicted if row.prediction)
    skipped = len(rows) - len(predicted)
    fastest = min(predicted, key=_by_images)
    return (
        f"{fitting} of {len(predicted)} fit{f', {skipped} are skipped' if skipped else ''}; most images per second: "
        f"{fastest.label} on {_gpus(fastest)}."
    )


def _by_images(row: Row) -> tuple[bool, float]:
    found = row.prediction
    return (found.fits is False, -found.images_per_s) if found else (True, math.inf)


def _gpus(row: Row) -> str:
    assert row.prediction is not None
    count = row.prediction.point.gpus
    return f"{count} × {row.device.name}"


def _why_none(found: Best) -> str:
    reasons = [f"{count:,} miss {name}" for name, count in found.missed.items()]
    reasons += [f"{count:,} have no known {name}" for name, count in found.unknown.items()]
    reasons += [f"{found.full:,} do not fit into memory"] if found.full else []
    reasons += [f"{found.skipped:,} are skipped"] if found.skipped else []
    return ", ".join(reasons)


def print_json(rows: Sequence[Row], found: Best | None, goal: str | None, calibration: Calibrations) -> None:
    """All of it, for programs."""
    listed = list(found.rows) if found else list(rows)
    cells = [_as_json(row, one, calibration) for row, one in zip(listed, _beside(rows, listed), strict=True)]
    print(json.dumps({"answer": answer(rows, found, goal), "cells": cells}))


def _beside(rows: Sequence[Row], listed: Sequence[Row]) -> list[Relative]:
    """How the listed rows compare with all rows."""
    of_all = {id(row): one for row, one in zip(rows, relatives(rows), strict=True)}
    return [of_all[id(row)] for row in listed]


def _as_json(row: Row, beside: Relative, calibration: Calibrations) -> dict[str, Any]:
    made = row.prediction
    data: dict[str, Any] = {"cell": row.label, "features": list(row.features), "hardware": row.device.name}
    if made is None:
        return {**data, "skip": row.skip}
    return {
        **data,
        "gpus": made.point.gpus,
        "batch": made.point.batch,
        "fits": made.fits,
        "latency_s": made.latency_s,
        "limit_s": made.limit_s,
        "images_per_s": made.images_per_s,
        "limit_images_per_s": made.most_images_per_s,
        "speedup": beside.speedup,
        "parallel_efficiency": beside.efficiency,
        "batching_gain": beside.batching_gain,
        "sent_bytes": made.sent_bytes,
        "skipped_blocks_share": made.point.effects.skip,
        "energy_j_per_image": made.energy_j,
        "cost_per_image": made.cost,
        "memory_gb": made.memory.told / 1e9,
        "memory": {name: {"gb": size / 1e9, "grade": Ledger.grade(name)} for name, size in made.memory.parts},
        "phases": {
            phase.name: {
                "ms": phase.seconds * 1e3,
                "limit_ms": phase.limit_s * 1e3,
                "operations": phase.phase.work.operations,
                "weight_bytes": phase.phase.weight_bytes,
                "bound": phase.bound,
            }
            for phase in made.phases
        },
        "grade": calibration(row).factors.grade,
    }
