"""Requests as OpenAI's endpoints take them, with the fields that vLLM and vLLM-Omni add."""

import uuid
from collections.abc import Mapping
from typing import Any

from sweep.engines import registry
from sweep.engines.protocol import EngineSpec, Request


def path_of(request: Request) -> str:
    """The endpoint that takes it."""
    if request.text is not None:
        return "/v1/completions"
    return "/v1/images/edits" if request.input_image else "/v1/images/generations"


def body_of(request: Request, model: str) -> dict[str, Any]:
    """JSON body of a request for a text, which streams, or an image; of an edit, its form besides the picture."""
    if request.text is not None:
        return {
            "model": model,
            "prompt": list(request.text.prompt_ids) or request.prompt,
            "max_tokens": request.text.max_tokens,
            "ignore_eos": True,  # vLLM's and SGLang's: the full requested length is written
            "temperature": request.text.temperature,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    body: dict[str, Any] = {
        "model": model,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "size": f"{request.width}x{request.height}",
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "true_cfg_scale": request.guidance_scale,
        "seed": request.seed,
        "response_format": "b64_json",
    }
    if request.prompt_tokens is not None:  # only the embedded server supports it
        body["prompt_tokens"] = request.prompt_tokens
    return body


def body_for(spec: EngineSpec, request: Request, model: str) -> dict[str, Any]:
    """The same plus the extra fields of this engine's server, with guidance as the model's family defines it there."""
    kind, body = registry.kind(spec.engine), body_of(request, model)
    if "guidance_scale" in body:
        body["guidance_scale"] = kind.guidance(spec.family, body["guidance_scale"])
    return body | dict(kind.request_fields)


def form_of(body: Mapping[str, Any], pictures: Mapping[str, bytes]) -> tuple[bytes, str]:
    """An edit as multipart/form-data: the fields of its body that are set, and pictures by field; and the type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in body.items()
        if value is not None
    ]
    for name, picture in pictures.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{name}.png"\r\nContent-Type: image/png'
        parts += [f"--{boundary}\r\n{head}\r\n\r\n".encode(), picture, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"
