"""Requests as OpenAI's image endpoints take them, with the fields that vLLM-Omni adds."""

from typing import Any

from sweep.engines.protocol import Request


def body_of(request: Request, model: str) -> dict[str, Any]:
    """JSON body of POST /v1/images/generations; of an edit, the fields of its form besides the picture."""
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
    if request.prompt_tokens is not None:  # only the embedded server knows it
        body["prompt_tokens"] = request.prompt_tokens
    return body
