"""Tiny pipelines with random weights, as the engine loads them."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from profiling.phases import PhaseRecord

STEPS = 3


def load(name: str) -> Any:
    """A pipeline of the embedded checkpoint `name`."""
    import torch
    from diffusers import DiffusionPipeline

    from sweep.engines.diffusers.tiny_models.checkpoints import ensure_checkpoint

    torch.set_num_threads(1)
    pipeline = DiffusionPipeline.from_pretrained(ensure_checkpoint(name))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def arguments(pipeline: Any, **changes: Any) -> dict[str, Any]:
    """One request of STEPS steps at 64 x 64 with classifier-free guidance."""
    import torch

    guidance = (
        {"guidance_scale": 4.0}
        if hasattr(pipeline, "vision_language_encoder")
        else {"true_cfg_scale": 4.0, "negative_prompt": " "}
    )
    request = {"prompt": "a red fox", "height": 64, "width": 64, "num_inference_steps": STEPS}
    return request | guidance | {"generator": torch.Generator().manual_seed(1)} | changes


def count(records: Iterable[PhaseRecord]) -> Counter[str]:
    """How often each phase was recorded."""
    return Counter(record.phase for record in records)
