"""The hand-over from an AR stage to its DiT in vLLM-Omni: which ids were sent, how many bytes, and how long it took.

vLLM-Omni's `ar2diffusion` slices out the image's ids and doubles them for the DiT. What was sent is computed from the
raw ids (`profiling.image_tokens`), without vLLM-Omni's code. No torch.
"""

import functools
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from profiling.image_tokens import fingerprint, image_ids
from profiling.vllm_plugin.record_files import Place, append_line

SENT: dict[str, int] = {}
"""Bytes of the messages to a diffusion stage's process, by request, until its hand-over is written."""


MOST_SENT = 256


class Counting:
    """A client's encoder, which remembers how long its last message was."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.length = 0

    def encode(self, message: Any) -> Any:
        """As vLLM-Omni's OmniMsgpackEncoder."""
        encoded = self.encoder.encode(message)
        self.length = len(encoded)
        return encoded


def hook_sender(cls: Any, place: Place) -> list[str]:
    """Note the bytes of each request that a client sends to its diffusion stage; returns the wrapped names."""
    original: Callable[..., Awaitable[None]] = cls.add_request_async
    if not hasattr(original, "observed_by_sweep"):

        @functools.wraps(original)
        async def observed(self: Any, request_id: str, *args: Any, **kwargs: Any) -> None:
            encoder = getattr(self, "_encoder", None)
            if encoder is not None and not isinstance(encoder, Counting):
                encoder = self._encoder = Counting(encoder)
            await original(self, request_id, *args, **kwargs)
            if encoder is not None:
                SENT[request_id] = encoder.length
                if len(SENT) > MOST_SENT:  # requests of a single stage are never handed over
                    del SENT[next(iter(SENT))]

        observed.observed_by_sweep = True  # type: ignore[attr-defined]
        cls.add_request_async = observed
    return [f"{cls.__name__}.add_request_async"]


def written(output: Any) -> list[int]:
    """All ids in an AR stage's `output`; of one that only reports its KV cache as ready, those that came with it."""
    completions = getattr(output, "outputs", None)
    if completions is None:
        return list(output.new_token_ids)
    completion = completions[0]
    return list(getattr(completion, "cumulative_token_ids", None) or completion.token_ids)


def sent(output: Any, prompt: Any) -> str:
    """Fingerprint of the ids in an AR stage's `output` that the DiT should receive."""
    asked = prompt[0] if isinstance(prompt, list) and prompt else prompt
    fields = asked if isinstance(asked, dict) else getattr(asked, "__dict__", {})
    target = fields.get("mm_processor_kwargs") or {}
    height = int(target.get("target_h") or fields.get("height") or 1024)
    width = int(target.get("target_w") or fields.get("width") or 1024)
    media = fields.get("multi_modal_data") or {}
    edit = "img2img" in (fields.get("modalities") or ()) or any(media.get(k) for k in ("image", "img2img", "images"))
    return fingerprint(image_ids(written(output), height, width, edit))


def hook_orchestrator(cls: Any, place: Place) -> list[str]:
    """Make the orchestrator write a line for each output that it hands to a diffusion stage; returns the wrapped names.

    Errors here are reported; the hand-over itself is never disturbed.
    """
    owner: Any = next(c for c in cls.__mro__ if "_forward_to_next_stage" in vars(c))
    original: Callable[..., Awaitable[None]] = owner._forward_to_next_stage
    if not hasattr(original, "observed_by_sweep"):

        @functools.wraps(original)
        async def observed(
            self: Any, req_id: str, src_stage_id: int, output: Any, req_state: Any, *args: Any, **kwargs: Any
        ) -> None:
            start = time.perf_counter()
            await original(self, req_id, src_stage_id, output, req_state, *args, **kwargs)
            host_ms = (time.perf_counter() - start) * 1000.0
            try:
                pool = self.stage_pools[src_stage_id + 1]
                if pool.stage_type != "diffusion" or src_stage_id + 1 not in req_state.stage_submit_ts:
                    return  # not handed over (yet)
                function = getattr(pool.stage_client, "custom_process_input_func", None)
                glm = getattr(function, "__module__", "").endswith(".glm_image")
                tokens = sent(output, req_state.prompt) if glm else ""
                line = {
                    "request": req_id,
                    "start_s": start,
                    "host_ms": round(host_ms, 4),
                    "tokens_sent": tokens,
                    "tokens_written": len(written(output)),
                    "bytes": SENT.pop(req_id, 0),
                }
                append_line(place.folder / f"transfer-{os.getpid()}.jsonl", line)
            except Exception:
                place.report()

        observed.observed_by_sweep = True  # type: ignore[attr-defined]
        owner._forward_to_next_stage = observed
    return [f"{owner.__name__}._forward_to_next_stage"]
