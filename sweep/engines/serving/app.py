"""The HTTP side: OpenAI's image endpoints as vLLM-Omni answers them, models, health, and metrics for Prometheus.

Texts are in `texts`.
"""

import asyncio
import base64
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Form, UploadFile
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from sweep.engines.protocol import NO_TEXT, Request
from sweep.engines.serving.batching import BatchQueue, Full, Served, Stopped
from sweep.engines.serving.replies import (
    Counts,
    error,
    failed,
    full,
    invalid,
    name_of,
    one_line,
    other_model,
    prometheus,
    stopping,
    timings,
)
from sweep.engines.serving.settings import ServeSettings
from sweep.engines.serving.texts import add_texts

MOST_IMAGES = 16  # of one request


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


Check = Callable[[Request], str]
"""Says in one line why the engine cannot generate a request, "" if it can."""


def make_app(
    queue: BatchQueue, settings: ServeSettings, counts: Counts, check: Check, check_text: Check = lambda _: NO_TEXT
) -> FastAPI:
    """The application."""
    app = FastAPI(title="sweep", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Limit, bytes_allowed=settings.body_mb * 1e6)
    add_texts(app, queue, settings, counts, check_text)
    started = int(time.time())
    uploads = Path(tempfile.mkdtemp(prefix="sweep-uploads-"))

    async def generate(asked: HttpRequest, body: Generation, source: Path | None = None) -> JSONResponse:
        counts.received += 1
        if body.model not in (None, settings.model):
            return other_model(str(body.model), settings)
        name = name_of(asked, counts)
        requests = [_request(body, name, counts.received, number, source) for number in range(body.n)]
        if why := next(filter(None, map(check, requests)), ""):
            return invalid(why)
        began = time.perf_counter()
        try:
            answers = [queue.submit(one) for one in requests]
        except Full:
            return full(counts, settings)
        except Stopped:
            return stopping()
        try:
            served = await asyncio.gather(*map(asyncio.wrap_future, answers))
        except asyncio.CancelledError:
            return stopping()
        except Exception as raised:
            return failed(counts, raised)
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
        except ValueError as wrong:
            return invalid(one_line(wrong))
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
        return PlainTextResponse(prometheus(counts, len(queue)))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: HttpRequest, wrong: RequestValidationError) -> JSONResponse:
        return invalid(one_line(wrong))

    return app


DRAINED = 8
"""A refused request is read up to this many times the allowed bytes: a client that still sends reads no answer."""


async def _drain(receive: Receive, most: float) -> None:
    """Read a body and drop it, until it ends or is longer than `most` bytes."""
    read, more = 0, True
    while more and read <= most:
        message = await receive()
        more = bool(message.get("more_body"))  # none when the client is gone
        read += len(message.get("body", b""))


class Limit:
    """Refuses requests that say they are too large. Plain ASGI, so it costs nothing per streamed token."""

    def __init__(self, app: ASGIApp, bytes_allowed: float) -> None:
        self._app, self._bytes_allowed = app, bytes_allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        headers = dict(scope.get("headers", ()))
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._bytes_allowed:
            await _drain(receive, DRAINED * self._bytes_allowed)
            refused = error(413, "body_too_large", f"a request may hold {self._bytes_allowed / 1e6:g} MB")
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)


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
    return {
        "created": int(time.time()),
        "data": [{"b64_json": base64.b64encode(one.png).decode()} for one in served],
        "output_format": "png",
        "size": size,
        "metrics": timings(served[0]),
    }
