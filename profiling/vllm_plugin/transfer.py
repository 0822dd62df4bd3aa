"""The hand-over from GLM-Image's AR stage to its DiT in vLLM-Omni: which ids were sent.

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


def written(output: Any) -> list[int]:
    """All ids in an AR stage's `output`; of one that says only that its KV cache is ready, those that came with it."""
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
                }
                append_line(place.folder / f"transfer-{os.getpid()}.jsonl", line)
            except Exception:
                place.report()

        observed.observed_by_sweep = True  # type: ignore[attr-defined]
        owner._forward_to_next_stage = observed
    return [f"{owner.__name__}._forward_to_next_stage"]
