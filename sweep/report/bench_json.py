"""bench.json of a cell under load: its requests in the field names of vLLM's serving benchmark.

For scripts that read what `vllm bench serve --save-result --save-detailed` writes (vllm/benchmarks/serve.py, 0.26). As
there, all requests of the load count, from the first one sent to the last one done; summary.csv counts those of the
steady state. What was not measured is null or left out. Pure; writes no files.
"""

import math
import statistics
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sweep.analysis import load_metrics, metrics
from sweep.config.model import EDITS, TEXT
from sweep.plan.cells import Cell
from sweep.results.records import RequestRow, RunResult

BACKENDS = {"text_to_image": "openai-images", EDITS: "openai-image-edits", TEXT: "openai"}
"""The API that a task calls. vLLM itself has only the one for texts, by this name."""

PERCENTILES = (50, 90, 95, 99)
"""As with `--metric-percentiles 50,90,95,99`."""


def document(cell: Cell, result: RunResult) -> dict[str, Any]:
    """One engine start of a cell under load. Durations in seconds, except those that end with `_ms`."""
    rows = sorted((*result.requests, *result.failed), key=lambda one: (one.sent_s or 0.0, one.request_id))
    done, load = list(result.requests), cell.config["load"]
    span_s = _span_s(rows)
    tokens_in = _total([one.prompt_tokens for one in done])
    tokens_out = _total([one.output_tokens for one in done])
    every = None if tokens_in is None else tokens_in + (tokens_out or 0)
    return {
        **cell.config.get("metadata", {}),  # as `--metadata KEY=VALUE`; what was measured goes first
        **_setting(cell, result, len(rows)),
        "duration": span_s,
        "completed": len(done),
        "failed": len(result.failed),
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "request_throughput": _rate(len(done), span_s),
        "request_goodput": _goodput(done, dict(load["slo"]), span_s),
        "output_throughput": _rate(tokens_out, span_s),
        "total_token_throughput": _rate(every, span_s),
        **_details(rows, tokens_in, tokens_out),
        **_statistics("ttft", [one.ttft_s for one in done if one.ttft_s is not None]),
        **_statistics("tpot", [one.tpot_s for one in done if one.tpot_s is not None]),
        **_statistics("itl", [gap for one in done for gap in one.itl_s]),
        **_statistics("e2el", [one.e2e_s for one in done]),
    }


def _setting(cell: Cell, result: RunResult, count: int) -> dict[str, Any]:
    config, load = cell.config, cell.config["load"]
    backend = BACKENDS[config["workload"]["task"]]
    closed = load["name"] == "closed"
    burstiness = {"gamma": load["burstiness"], "poisson": 1.0}.get(load["arrivals"])  # vLLM's arrivals are gamma too
    return {
        "date": _date(result.started_at),
        "endpoint_type": backend,
        "backend": backend,
        "label": cell.label,
        "model_id": config["model"]["name"],
        "tokenizer_id": None,
        "num_prompts": count,
        "request_rate": "inf" if closed else load["request_rate"],
        "burstiness": None if closed or load["trace"] else burstiness,
        "max_concurrency": load["max_concurrency"],
    }


def _details(rows: Sequence[RequestRow], tokens_in: int | None, tokens_out: int | None) -> dict[str, Any]:
    """Values of single requests, in the order in which they were sent; of failed ones 0, as in vLLM."""
    found: dict[str, Any] = {}
    if tokens_in is not None:
        found["input_lens"] = [one.prompt_tokens for one in rows]
    if tokens_out is not None:
        found["output_lens"] = [one.output_tokens for one in rows]
    if any(one.ttft_s is not None for one in rows):
        found["ttfts"] = [one.ttft_s or 0.0 for one in rows]
    if any(one.itl_s for one in rows):
        found["itls"] = [list(one.itl_s) for one in rows]
    if all(one.sent_s is not None for one in rows):
        found["start_times"] = [one.sent_s for one in rows]
    found["errors"] = [one.error for one in rows]
    return found


def _statistics(name: str, values_s: Sequence[float]) -> dict[str, float | None]:
    """Mean, median, standard deviation and percentiles in milliseconds; {} where nothing was measured."""
    if not values_s:
        return {}
    values = [1e3 * one for one in values_s]
    spread = {f"p{q}_{name}_ms": metrics.percentile(values, q) for q in PERCENTILES}
    return {
        f"mean_{name}_ms": metrics.mean(values),
        f"median_{name}_ms": metrics.percentile(values, 50),
        f"std_{name}_ms": statistics.pstdev(values),
        **spread,
    }


def _goodput(done: Sequence[RequestRow], slo: dict[str, float | None], span_s: float | None) -> float | None:
    """Requests a second that meet every limit; None without limits."""
    if all(limit is None for limit in slo.values()):
        return None
    return _rate(sum(load_metrics.meets(one, slo) for one in done), span_s)


def _span_s(rows: Sequence[RequestRow]) -> float | None:
    sent = [one.sent_s for one in rows if one.sent_s is not None]
    done = [one.done_s for one in rows if one.done_s is not None]
    return max(done) - min(sent) if sent and done else None


def _total(counts: Sequence[int]) -> int | None:
    """None where nothing was counted: the server reports no tokens, or has none."""
    return sum(counts) or None


def _rate(count: int | None, span_s: float | None) -> float | None:
    return count / span_s if count is not None and span_s and math.isfinite(span_s) else None


def _date(started_at: str) -> str | None:
    """`20261129-102600`, in UTC."""
    try:
        return datetime.fromisoformat(started_at).strftime("%Y%m%d-%H%M%S")
    except ValueError:
        return None
