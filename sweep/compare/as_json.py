"""A comparison or a ranking as JSON values, for dashboards.

    {"schema_version": 1, "kind": "comparison", "exit_code": 1, "failed_on": ["regression"],
     "options": {"min_change": 0.02, "relative": false, "by": [], "ignore": [], "fail_on": ["regression", "status"]},
     "before": {"name", "start", "git_commit", "machine", "versions"},
     "comparisons": [{"after": {as before}, "counts": {"slower": 1, …}, "notes": ["…"],
       "cells": [{"cell", "cell_key", "role", "model", "engine", "batch",
                  "speed": {"verdict", "ratio", "low", "high", "pairs", "p_value", "p_holm", "why", "why_code"},
                  "phases": {"total_ms", "shifts": [{"phase", "ms", "share"}]},
                  "status": {"before", "after", "change", "reason"},
                  "quality": {"change", "before": {"mean_diff", "max_diff", "psnr_db", "ssim"}, "after": {…}},
                  "load": {"goodput", "failed", "before": {"words", "slo", "requests_per_s", "goodput_per_s",
                           "goodput_share", "goodput_low", "goodput_high", "sent", "failed"}, "after": {…}},
                  "differs": {"engine.args.enforce_eager": ["absent", "true"]},
                  "trusted": true, "doubt": "", "failures": ["regression"]}],
       "only_before": [{"cell", "cell_key", "model", "engine", "status"}], "only_after": […]}]}

    {"schema_version": 1, "kind": "best", "exit_code": 0, "failed_on": [], "regressions": "",
     "wanted": {"min_psnr_db": 35.0, "min_ssim": null}, "rankings": [{"context": {"model", "engine", "batch", "width",
       "height", "steps", "load"}, "left_out": 0, "too_poor": 0, "cells": [{"rank", "report", "cell", "cell_key",
       "speedup", "low", "high", "called", "quality": {…}, "peak_memory_gb", "images_per_s", "status", "reason"}]}]}

`left_out` cells could not be ranked; `too_poor` are below what was `wanted`.
`ratio` is before ÷ after: above 1 is faster. `low` and `high` bound its 95 % interval. `p_holm` is the p-value adjusted
for all cells that the command judged; it is null for other cells. `verdict` is slower, maybe slower (judged alone, but
not among so many cells), slightly slower (less than min_change), the same three for faster, no difference, unknown, or
"" (not judged; `why` says why). `load` is null offline; its `goodput` and `failed` are worse, better, "" (no change
that their intervals show) or, for goodput, other slo. Missing or infinite numbers are null. `schema_version` rises
whenever a field changes its meaning or is removed.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.compare import describe
from sweep.compare.best import Ranked, Ranking, Wanted
from sweep.compare.decide import Comparison, Matched, Options
from sweep.compare.load import Cell, Report
from sweep.compare.loads import LoadChange
from sweep.compare.matching import differences

SCHEMA_VERSION = 1


def comparison_values(
    comparisons: Sequence[Comparison], options: Options, fail_on: Sequence[str], failed_on: Sequence[str]
) -> dict[str, Any]:
    """The whole comparison; every matched cell has an entry."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "comparison",
        "exit_code": int(bool(failed_on)),
        "failed_on": list(failed_on),
        "options": {
            "min_change": options.min_change,
            "relative": options.relative,
            "by": list(options.rule.by),
            "ignore": list(options.rule.ignore),
            "fail_on": list(fail_on),
        },
        "before": _report(comparisons[0].before),
        "comparisons": [
            {
                "after": _report(comparison.after),
                "counts": describe.counts(comparison),
                "notes": describe.notes(comparison, options),
                "cells": [_matched(one) for one in comparison.matched],
                "only_before": [_single(cell) for cell in comparison.only_before],
                "only_after": [_single(cell) for cell in comparison.only_after],
            }
            for comparison in comparisons
        ],
    }


def ranking_values(
    rankings: Sequence[Ranking], wanted: Wanted, regressions: str, failed_on: Sequence[str]
) -> dict[str, Any]:
    """All rankings in full. `regressions` says what comparing several reports found."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "best",
        "exit_code": int(bool(failed_on)),
        "failed_on": list(failed_on),
        "regressions": regressions,
        "wanted": dataclasses.asdict(wanted),
        "rankings": [
            {
                "context": dataclasses.asdict(ranking.context),
                "left_out": ranking.left_out,
                "too_poor": ranking.too_poor,
                "cells": [_ranked(place, one) for place, one in enumerate(ranking.ranked, 1)],
            }
            for ranking in rankings
        ],
    }


def _report(report: Report) -> dict[str, Any]:
    return {
        "name": report.name,
        "start": report.start,
        "git_commit": report.git_commit,
        "machine": dict(report.machine),
        "versions": dict(report.versions),
    }


def _matched(one: Matched) -> dict[str, Any]:
    speed, cell = one.speed, one.after
    return {
        "cell": cell.label,
        "cell_key": cell.key,
        "role": cell.role,
        "model": cell.model,
        "engine": cell.engine,
        "batch": cell.batch,
        "speed": {
            "verdict": speed.verdict,
            **_finite(
                {
                    "ratio": speed.ratio.ratio,
                    "low": speed.ratio.low,
                    "high": speed.ratio.high,
                    "pairs": speed.ratio.pairs,
                    "p_value": speed.ratio.p_value,
                    "p_holm": speed.p_holm,
                }
            ),
            "why": speed.why.text if speed.why else "",
            "why_code": speed.why.code if speed.why else "",
        },
        "phases": {
            "total_ms": one.explanation.total_ms if one.explanation.shifts else None,
            "shifts": [{"phase": s.phase, "ms": s.ms, "share": s.share} for s in one.explanation.shifts],
        },
        "status": {
            "before": one.before.status,
            "after": cell.status,
            "change": one.status,
            "reason": cell.reason,
        },
        "quality": {
            "change": one.quality,
            "before": _finite(one.before.quality),
            "after": _finite(cell.quality),
        },
        "load": None if one.load is None else _load(one.load),
        "differs": {name: list(pair) for name, pair in differences(one.before, one.after).items()},
        "trusted": not one.doubt,
        "doubt": one.doubt,
        "failures": list(one.failures),
    }


def _load(one: LoadChange) -> dict[str, Any]:
    sides = {"before": dataclasses.asdict(one.before), "after": dataclasses.asdict(one.after)}
    return {"goodput": one.goodput, "failed": one.failed, **sides}


def _single(cell: Cell) -> dict[str, Any]:
    names = ("model", "engine", "status")
    return {"cell": cell.label, "cell_key": cell.key} | {name: getattr(cell, name) for name in names}


def _ranked(place: int, one: Ranked) -> dict[str, Any]:
    cell = one.cell
    return {
        "rank": place,
        "report": one.report,
        "cell": cell.label,
        "cell_key": cell.key,
        "speedup": one.speedup,
        "low": cell.speedup["low"],
        "high": cell.speedup["high"],
        "called": cell.speedup["called"],
        "quality": _finite(cell.quality),
        **_finite(cell.metrics),
        "status": cell.status,
        "reason": cell.reason,
    }


def _finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None or not math.isfinite(value) else value for name, value in values.items()}
