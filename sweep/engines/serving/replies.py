"""What all endpoints share: names of requests, errors as OpenAI words them, and what /metrics shows."""

import re
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse

from sweep.engines.serving.batching import Served
from sweep.engines.serving.settings import ServeSettings

RETRY_S = 1  # how long a refused client should wait
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
"""What a client may call its request in X-Request-Id."""


@dataclass
class Counts:
    """What /metrics shows."""

    received: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    abandoned: int = 0  # texts whose clients went away
    running: int = 0
    batches: int = 0
    prompt_tokens: int = 0  # of texts
    written_tokens: int = 0
    queued_s: float = 0.0
    e2e_s: float = 0.0
    by_size: dict[int, int] = field(default_factory=dict)  # batches by how many requests they held


def name_of(asked: HttpRequest, counts: Counts) -> str:
    """A request's name: the one from its client, else its number."""
    name = asked.headers.get("x-request-id", "")
    return name if _NAME.fullmatch(name) else f"q{counts.received}"


def error(status: int, code: str, message: str, retry_s: int = 0) -> JSONResponse:
    """A reply of OpenAI's form."""
    headers = {"Retry-After": str(retry_s)} if retry_s else None
    return JSONResponse({"error": {"message": message, "type": code, "code": status}}, status, headers)


def invalid(message: str) -> JSONResponse:
    """The request cannot be fulfilled."""
    return error(400, "invalid_request_error", message)


def other_model(name: str, settings: ServeSettings) -> JSONResponse:
    """The request names another model; there is only one."""
    return error(404, "model_not_found", f"the model {name!r} does not exist; it is {settings.model!r}")


def full(counts: Counts, settings: ServeSettings) -> JSONResponse:
    """The queue is full."""
    counts.refused += 1
    return error(429, "queue_full", f"{settings.queue} requests wait already; try again later", RETRY_S)


def stopping() -> JSONResponse:
    """The server is being stopped."""
    return error(503, "stopping", "the server is being stopped")


def failed(counts: Counts, why: BaseException) -> JSONResponse:
    """The engine raised an exception."""
    counts.failed += 1
    return error(500, "engine_error", f"{type(why).__name__}: {why}")


def timings(served: Served) -> dict[str, Any]:
    """What the server knows of a request's time, in ms, in vLLM-Omni's form."""
    batch = served.output
    ttft = batch.ttft_s[served.position] if batch.ttft_s else None
    durations = {"queue_wait_ms": 1e3 * served.queued_s, "stage_0_gen_ms": 1e3 * batch.latency_s}
    times: dict[str, Any] = {"stage_durations": durations, "batch_size": len(batch.request_ids)}
    if ttft is not None:
        times["ttft_ms"] = 1e3 * (served.queued_s + ttft)
    return times


def one_line(error: Any) -> str:
    """The first error of a validation."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'] if part != 'body')}: {first['msg']}"


def prometheus(counts: Counts, waiting: int) -> str:
    """Text format 0.0.4."""
    found: list[tuple[str, str, str, float]] = [
        ("sweep_requests_received_total", "counter", "", counts.received),
        ("sweep_requests_success_total", "counter", "", counts.answered),
        ("sweep_requests_refused_total", "counter", "", counts.refused),
        ("sweep_requests_failed_total", "counter", "", counts.failed),
        ("sweep_requests_abandoned_total", "counter", "", counts.abandoned),
        ("sweep_num_requests_running", "gauge", "", counts.running),
        ("sweep_num_requests_waiting", "gauge", "", waiting),
        ("sweep_prompt_tokens_total", "counter", "", counts.prompt_tokens),
        ("sweep_generation_tokens_total", "counter", "", counts.written_tokens),
        ("sweep_queue_wait_seconds_total", "counter", "", counts.queued_s),
        ("sweep_e2e_request_latency_seconds_total", "counter", "", counts.e2e_s),
        ("sweep_batches_total", "counter", "", counts.batches),
        *(("sweep_batches_of_size_total", "counter", f'{{size="{size}"}}', n) for size, n in counts.by_size.items()),
    ]
    lines, named = [], set()
    for name, kind, labels, value in found:
        if name not in named:
            named.add(name)
            lines.append(f"# TYPE {name} {kind}")
        lines.append(f"{name}{labels} {value:g}")
    return "\n".join(lines) + "\n"
