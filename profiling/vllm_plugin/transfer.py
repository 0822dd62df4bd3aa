"""The hand-over from GLM-Image's AR stage to its DiT: which ids were sent, which arrived.

GLM-Image's AR emits a preview, the image's ids at 1/32 of its size, and an end mark. vLLM-Omni's `ar2diffusion` slices
out the image's ids and doubles them in both directions for the DiT. Both sides reduce their ids to "count:hash" of the
ids at 1/32. Each fingerprint is computed here from the raw ids, without vLLM-Omni's code, so equal fingerprints mean
that the DiT received what the AR wrote. Knows the layout (transformers' GlmImage processor); no torch.
"""

import functools
import hashlib
import math
import os
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from profiling.vllm_plugin.record_files import Place, append_line

FACTOR = 32
"""Pixels an AR id covers in each direction."""

END = 16385
"""The id that ends an image."""


def fingerprint(ids: Sequence[int]) -> str:
    """ "count:hash": how many ids, and the first 16 digits of the SHA-256 of them as little-endian int64."""
    packed = struct.pack(f"<{len(ids)}q", *ids)
    return f"{len(ids)}:{hashlib.sha256(packed).hexdigest()[:16]}"


def image_ids(emitted: Sequence[int], height: int, width: int, edit: bool = False) -> Sequence[int]:
    """The ids of the image itself among those that the AR emitted for `height` x `width` pixels.

    Text-to-image puts a preview of about 16 x 16 ids before them; an edit does so only if it emitted enough ids for
    both. The result is too short for the image if ids are missing.
    """
    rows, columns = height // FACTOR, width // FACTOR
    ratio = rows / columns if columns else 1.0
    half = FACTOR // 2
    preview = max(1, int(math.sqrt(ratio) * half)) * max(1, int(math.sqrt(1 / ratio) * half))
    count = len(emitted) - (1 if emitted and emitted[-1] == END else 0)
    start = 0 if edit and count < preview + rows * columns else preview
    return emitted[start : start + rows * columns]


def halved(ids: Sequence[int], rows: int, columns: int) -> Sequence[int] | None:
    """Undo the doubling of `rows` x `columns` ids; None unless every 2 x 2 square holds one id."""
    if len(ids) != rows * columns or rows % 2 or columns % 2:
        return None
    lines = [ids[start : start + columns] for start in range(0, len(ids), columns)]
    if lines[::2] != lines[1::2] or any(line[::2] != line[1::2] for line in lines):
        return None
    return [single for line in lines[::2] for single in line[::2]]


def received(ids: Sequence[int], rows: int, columns: int) -> str:
    """Fingerprint of the ids that a DiT of `rows` x `columns` positions received; "count:uneven" if not doubled."""
    single = halved(ids, rows, columns)
    return f"{len(ids)}:uneven" if single is None else fingerprint(single)


def sent(output: Any, prompt: Any) -> str:
    """Fingerprint of the ids in an AR stage's `output` that the DiT should receive."""
    completion = output.outputs[0]
    emitted = list(getattr(completion, "cumulative_token_ids", None) or completion.token_ids)
    asked = prompt[0] if isinstance(prompt, list) and prompt else prompt
    fields = asked if isinstance(asked, dict) else getattr(asked, "__dict__", {})
    target = fields.get("mm_processor_kwargs") or {}
    height = int(target.get("target_h") or fields.get("height") or 1024)
    width = int(target.get("target_w") or fields.get("width") or 1024)
    media = fields.get("multi_modal_data") or {}
    edit = "img2img" in (fields.get("modalities") or ()) or any(media.get(k) for k in ("image", "img2img", "images"))
    return fingerprint(image_ids(emitted, height, width, edit))


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
                line = {"request": req_id, "start_s": start, "host_ms": round(host_ms, 4), "tokens_sent": tokens}
                append_line(place.folder / f"transfer-{os.getpid()}.jsonl", line)
            except Exception:
                place.report()

        observed.observed_by_sweep = True  # type: ignore[attr-defined]
        owner._forward_to_next_stage = observed
    return [f"{owner.__name__}._forward_to_next_stage"]
