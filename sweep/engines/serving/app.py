"""The HTTP side: OpenAI's image endpoints as vLLM-Omni answers them, models, health, and metrics for Prometheus."""

import asyncio
import base64
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Form, UploadFile
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field

from sweep.engines.protocol import Request
from sweep.engines.serving.batching import BatchQueue, Full, Served, Stopped
from sweep.engines.serving.settings import ServeSettings

MOST_IMAGES = 16  # of one request
RETRY_S = 1  # what a client that is refused is told to wait
_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
"""What a client may call its request in X-Request-Id."""


class Generation(BaseModel):
    """Body of POST /v1/images/generations; fields besides OpenAI's are vLLM-Omni's."""

    prompt: str
    model: str | None = None
    negative_prompt: str | None = " "
    size: str = Field("64x64", pattern=r"^\d{1,5}x\d{1,5}$")
    n: int = Field(1, ge=1, le=MOST_IMAGES)
    num_inference_steps: int = Field(20, ge=1, le=1000)
    guidance_scale: float = Field(4.0, ge=0, allow_inf_nan=False)
    true_cfg_scale: float | None = Field(None, ge=0, allow_inf_nan=False)
    seed: int = Field(0, ge=0, lt=2**63)
    prompt_tokens: int | None = Field(None, ge=1, le=1_000_000)  # pad or trim the prompt to as many; ours alone
    response_format: str = Field("b64_json", pattern="^b64_json$")


@dataclass
class Counts:
    """What /metrics shows."""

    received: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    running: int = 0
    batches: int = 0
    queued_s: float = 0.0
    e2e_s: float = 0.0
    by_size: dict[int, int] = field(default_factory=dict)  # batches by how many requests they held


def make_app(queue: BatchQueue, settings: ServeSettings, counts: Counts, check: Callable[[Request], str]) -> FastAPI:
    """The application. `check` says in one line why the engine cannot generate a request, "" if it can."""
    app = FastAPI(title="sweep", docs_url=None, redoc_url=None, openapi_url=None)
    started = int(time.time())
    uploads = Path(tempfile.mkdtemp(prefix="sweep-uploads-"))

    async def generate(asked: HttpRequest, body: Generation, source: Path | None = None) -> JSONResponse:
        counts.received += 1
        if body.model not in (None, settings.model):
            return _error(404, "model_not_found", f"the model {body.model!r} does not exist; it is {settings.model!r}")
        name = asked.headers.get("x-request-id", "")
        name = name if _NAME.fullmatch(name) else f"q{counts.received}"
        requests = [_request(body, name, counts.received, number, source) for number in range(body.n)]
        if why := next(filter(None, map(check, requests)), ""):
            return _error(400, "invalid_request_error", why)
        began = time.perf_counter()
        try:
            answers = [queue.submit(one) for one in requests]
        except Full:
            counts.refused += 1
            return _error(429, "queue_full", f"{settings.queue} requests wait already; try again later", RETRY_S)
        except Stopped:
            return _error(503, "stopping", "the server is being stopped")
        try:
            served = await asyncio.gather(*map(asyncio.wrap_future, answers))
        except asyncio.CancelledError:
            return _error(503, "stopping", "the server is being stopped")
        except Exception as error:
            counts.failed += 1
            return _error(500, "engine_error", f"{type(error).__name__}: {error}")
        counts.answered += 1
        counts.queued_s += served[0].queued_s
        counts.e2e_s += time.perf_counter() - began
        return JSONResponse(_reply(served, body.size))

    @app.post("/v1/images/generations")
    async def generations(asked: HttpRequest, body: Generation) -> JSONResponse:
        return await generate(asked, body)

    @app.post("/v1/images/edits")
    async def edits(
        asked: HttpRequest,
        image: UploadFile,
        prompt: str = Form(),
        size: str = Form("64x64"),
        num_inference_steps: int = Form(20),
        guidance_scale: float = Form(4.0),
        seed: int = Form(0),
        model: str | None = Form(None),
        negative_prompt: str | None = Form(" "),
        n: int = Form(1),
        prompt_tokens: int | None = Form(None),
    ) -> JSONResponse:
        fields = {
            **{"prompt": prompt, "model": model, "size": size, "n": n, "num_inference_steps": num_inference_steps},
            **{"guidance_scale": guidance_scale, "seed": seed, "negative_prompt": negative_prompt},
            **{"prompt_tokens": prompt_tokens},
        }
        try:
            body = Generation.model_validate(fields)
        except ValueError as error:
            return _error(400, "invalid_request_error", _one_line(error))
        with tempfile.NamedTemporaryFile(dir=uploads, suffix=".png") as file:
            file.write(await image.read())
            file.flush()
            return await generate(asked, body, Path(file.name))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": settings.model, "object": "model", "created": started}]}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(_prometheus(counts, len(queue)))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: HttpRequest, error: RequestValidationError) -> JSONResponse:
        return _error(400, "invalid_request_error", _one_line(error))

    @app.middleware("http")
    async def limit(request: HttpRequest, proceed: Callable[[HttpRequest], Any]) -> Any:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > settings.body_mb * 1e6:
            return _error(413, "body_too_large", f"a request may hold {settings.body_mb:g} MB")
        return await proceed(request)

    return app


def _request(body: Generation, name: str, number: int, image: int, source: Path | None) -> Request:
    width, height = map(int, body.size.split("x"))
    scale = body.guidance_scale if body.true_cfg_scale is None else body.true_cfg_scale
    return Request(
        request_id=f"{name}.{image}" if image else name,
        prompt=body.prompt,
        prompt_index=number,
        seed=body.seed + image,
        height=height,
        width=width,
        steps=body.num_inference_steps,
        guidance_scale=scale,
        negative_prompt=body.negative_prompt,
        prompt_tokens=body.prompt_tokens,
        input_image=None if source is None else str(source),
    )


def _reply(served: list[Served], size: str) -> dict[str, Any]:
    """As vLLM-Omni answers; times in ms."""
    first = served[0]
    batch = first.output
    ttft = batch.ttft_s[first.position] if batch.ttft_s else None
    durations = {"queue_wait_ms": 1e3 * first.queued_s, "stage_0_gen_ms": 1e3 * batch.latency_s}
    told = {"stage_durations": durations, "batch_size": len(batch.request_ids)}
    if ttft is not None:
        told["ttft_ms"] = 1e3 * (first.queued_s + ttft)
    return {
        "created": int(time.time()),
        "data": [{"b64_json": base64.b64encode(one.png).decode()} for one in served],
        "output_format": "png",
        "size": size,
        "metrics": told,
    }


def _error(status: int, code: str, message: str, retry_s: int = 0) -> JSONResponse:
    headers = {"Retry-After": str(retry_s)} if retry_s else None
    return JSONResponse({"error": {"message": message, "type": code, "code": status}}, status, headers)


def _one_line(error: Any) -> str:
    """What a validation found first."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'] if part != 'body')}: {first['msg']}"


def _prometheus(counts: Counts, waiting: int) -> str:
    """Text format 0.0.4."""
    found: list[tuple[str, str, str, float]] = [
        ("sweep_requests_received_total", "counter", "", counts.received),
        ("sweep_requests_success_total", "counter", "", counts.answered),
        ("sweep_requests_refused_total", "counter", "", counts.refused),
        ("sweep_requests_failed_total", "counter", "", counts.failed),
        ("sweep_num_requests_running", "gauge", "", counts.running),
        ("sweep_num_requests_waiting", "gauge", "", waiting),
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
