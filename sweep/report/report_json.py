"""report.json: what a sweep found, for machines. docs/report.md and report.schema.json define the format.

Plain values in, plain values out; reads and writes no files.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from sweep.analysis import options
from sweep.analysis.column import IDENTITY, METRIC, PHASE, STATUS
from sweep.analysis.columns import of_kind
from sweep.analysis.control_group import CONTROL, Comparison, ControlGroup, Missing, Side
from sweep.analysis.engine_starts import Measured, baseline_samples, measured_cells
from sweep.analysis.evidence import total_evidence
from sweep.analysis.paired import Start
from sweep.analysis.queueing import Queueing
from sweep.analysis.summary import Row, Summary
from sweep.findings import Finding
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from sweep.plan.settings import settings_of, shared
from sweep.predict import queueing
from sweep.report.conclusion import Conclusion

SCHEMA_VERSION = 1

_METRICS, _PHASES = of_kind(METRIC), of_kind(PHASE)
_FIRST = ("cell", "cell_key", "role", "model", "engine", "parallel", "gpus", "batch", "width", "height", "steps")
_IDENTITY = tuple(dict.fromkeys((*_FIRST, *of_kind(IDENTITY))))


_LOAD = (
    *("load", "concurrency", "request_rate", "part", "requests_sent", "requests_failed", "requests_judged"),
    "window_s",
)
"""Additional fields of a cell under load."""


def document(
    plan: Plan,
    summary: Summary,
    results: Mapping[str, Any],
    manifest: Mapping[str, Any],
    note: str,
    concluded: Sequence[Conclusion] = (),
) -> dict[str, Any]:
    """The whole report as JSON values. `results`, by cell key, are those that the summary was computed from."""
    measured = measured_cells(plan, results)
    settings = {row["cell_key"]: settings_of(plan.by_key[row["cell_key"]]) for row in summary.rows}
    common = shared(list(settings.values()))
    group = {"control": _control(summary.control)} if summary.control else {}
    facts = ("command", "start", "end", "git_commit", "versions", "machine", "engine_starts")
    return {
        "schema_version": SCHEMA_VERSION,
        "sweep": {name: manifest.get(name) for name in facts} | {"random_weights": bool(note), "note": note},
        "conclusions": [{"code": one.code, "text": one.text, "cells": list(one.cells)} for one in concluded],
        "noise": _noise(summary),
        "settings": common,
        "cells": [
            _cell(row, plan.by_key[key], measured.get(key))
            | {"settings": {name: value for name, value in settings[key].items() if name not in common}}
            for row in summary.rows
            if (key := row["cell_key"])
        ],
        **group,
        **_loads(summary),
    }


def _loads(summary: Summary) -> dict[str, Any]:
    """Nothing for a sweep without loads."""
    found: dict[str, Any] = {}
    if summary.ladders:
        found["ladders"] = [
            {
                "name": one.name,
                "level": one.level,
                "cells": [row["cell_key"] for row in one.rows],
                "code": one.code,
                "knee": one.knee,
                "text": one.text,
            }
            for one in summary.ladders
        ]
    if queues := [one for one in summary.queues if one.rungs]:
        found["queueing"] = [_queue(one) for one in queues]
    if summary.serving:
        found["serving"] = [dataclasses.asdict(one) for one in summary.serving]
    if summary.trends:
        found["trends"] = [
            {
                "name": one.name,
                "cell_key": one.root,
                "parts": one.parts,
                "hours": one.hours,
                "findings": [_finding(each) for each in one.findings],
                "text": one.text,
            }
            for one in summary.trends
        ]
    return found


def _queue(one: Queueing) -> dict[str, Any]:
    """One configuration by the queueing model; predictions of its cells are among their metrics."""
    station, judged = one.rungs[0].station, one.judged
    errors = [abs(error) for rung in judged for error in rung.errors.values()]
    return {
        "name": one.name,
        "grade": queueing.MEASURED,
        "service_times": [
            {"batch": size, "mean_s": station.service.mean_s(size), "batches": len(values), "cell_key": key}
            for size, values in station.service.by_size.items()
            if (key := one.source.sizes.get(size))
        ],
        "saturates_at_per_s": station.saturates_at,
        "cells": [rung.data.cell.key for rung in one.rungs],
        "judged": [rung.data.cell.key for rung in judged],
        "worst_error": max(errors, default=None),
        "text": one.text,
    }


def _noise(summary: Summary) -> list[dict[str, Any]]:
    entries = []
    for name, floor in summary.floors.items():
        pixels = summary.pixels.get(name)
        entries.append(
            {
                "model": name[0],
                "engine": name[1],
                "starts": floor.starts,
                "sd": floor.alone.sd,
                "df": floor.alone.df,
                "prompt_sd": floor.alone.prompt_sd,
                "mean_diff": pixels.mean_diff if pixels else None,
                "max_diff": pixels.max_diff if pixels else None,
            }
        )
    return entries


def _cell(row: Row, cell: Cell, measured: Measured | None) -> dict[str, Any]:
    mean_diff, psnr_db = row.get("mean_diff"), row.get("psnr_db")
    return {
        **{name: row.get(name) for name in _IDENTITY},
        "baseline_key": cell.baseline_key,
        "features": list(cell.features),
        "options": options.without_prefix(row),
        "prompts": row.get("prompts"),
        **{name: row.get(name) or "" for name in of_kind(STATUS)},
        "findings": [_finding(one) for one in row["findings"]],
        "valid": row.get("valid"),
        "doubts": [_finding(one) for one in row["doubts"]],
        "notes": [_finding(one) for one in row["notes"]],
        **{name: row.get(name) or "" for name in ("profiled", "trace")},
        "speedup": {
            "ratio": row.get("speedup"),
            "low": row.get("speedup_low"),
            "high": row.get("speedup_high"),
            "called": row.get("called") or "",
            "p_value": row.get("p_value"),
            "p_holm": row.get("p_holm"),
            "interaction_gain": row.get("interaction_gain"),
            "interaction_low": row.get("interaction_low"),
            "interaction_high": row.get("interaction_high"),
        },
        **({"over_base": _over_base(row, cell)} if cell.base_key else {}),
        "quality": {
            "mean_diff": mean_diff,
            "max_diff": row.get("max_diff"),
            "psnr_db": None if psnr_db is None or math.isinf(psnr_db) else psnr_db,
            "ssim": row.get("ssim"),
            "clip_similarity": row.get("clip_similarity"),
            "identical": None if mean_diff is None else mean_diff == 0,
        },
        "phases_ms": {name.removesuffix("_ms"): row[name] for name in _PHASES if row.get(name) is not None},
        "bottleneck": row.get("bottleneck"),
        **({name: row[name] for name in _LOAD} | _slo(cell) if row.get("load") else {}),
        "metrics": {name: row[name] for name in _METRICS if row.get(name) is not None},
        "evidence": {"text": row.get("evidence") or "", "ranks": _ranks(measured)},
        "starts": [_start(*both) for both in _samples(measured)],
    }


def _over_base(row: Row, cell: Cell) -> dict[str, Any]:
    """What the cell's add-on gains."""
    gain = {end or "ratio": row.get(f"gain_over_base{end and '_'}{end}") for end in ("", "low", "high")}
    return {"base": row.get("base") or "", "base_key": cell.base_key, **gain}


def _slo(cell: Cell) -> dict[str, Any]:
    """The limits of load.slo in ms; {} without any, as in plans of earlier versions."""
    limits = cell.config.get("load", {}).get("slo") or {}
    return {"slo": dict(limits)} if any(limit is not None for limit in limits.values()) else {}


def _finding(one: Finding) -> dict[str, str]:
    """Code and text, and the status if it sets one."""
    return {"code": one.code, "text": one.text} | ({"status": one.status} if one.status else {})


def _control(group: ControlGroup) -> dict[str, Any]:
    return {
        "engine": CONTROL,
        "compared": [_comparison(one) for one in group.compared],
        "missing": [_sides(one) | {"reason": one.reason} for one in group.missing],
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    ratio, images = one.ratio, one.images
    return {
        **_sides(one),
        "latency_ratio": {
            "ratio": ratio.ratio,
            "low": ratio.low,
            "high": ratio.high,
            "called": ratio.called,
            "pairs": ratio.pairs,
        },
        "quality": {
            "mean_diff": images.mean_diff if images else None,
            "max_diff": images.max_diff if images else None,
            "psnr_db": images.psnr_db if images and math.isfinite(images.psnr_db) else None,
            "ssim": images.ssim if images else None,
            "identical": images.mean_diff == 0 if images else None,
            "problem": one.images_problem,
        },
        "doubts": list(one.doubts),
    }


def _sides(one: Comparison | Missing) -> dict[str, Any]:
    return {"name": one.name, "model": one.model, "cell": _side(one.cell), "control": _side(one.control)}


def _side(side: Side) -> dict[str, Any]:
    return {
        "cell": side.label,
        "cell_key": side.key,
        "engine": side.engine,
        "latency_mean_s": side.latency_mean_s,
        "peak_memory_gb": side.peak_memory_gb,
        "energy_j_per_image": side.energy_j_per_image,
        "load_s": side.load_s,
        "phases_ms": dict(side.phases_ms),
    }


def _ranks(measured: Measured | None) -> list[dict[str, Any]]:
    if measured is None:
        return []
    whole = total_evidence([b.evidence for b in measured.results[0].batches])
    return [structs.asdict(rank) for rank in whole]


def _samples(measured: Measured | None) -> list[tuple[Start, Start]]:
    if measured is None:
        return []
    return [(own, baseline_samples(result)) for own, result in zip(measured.starts, measured.results, strict=True)]


def _start(own: Start, reference: Start) -> dict[str, Any]:
    return {"samples": _flat(own), "reference": _flat(reference)}


def _flat(start: Start) -> Sequence[Sequence[float]]:
    return [[*key, seconds] for key, seconds in start.items()]
