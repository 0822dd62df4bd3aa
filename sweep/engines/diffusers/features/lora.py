"""A LoRA adapter on a diffusers pipeline: linear layers of the DiT add the product of two thin matrices.

The weights stay as they are (nothing is merged), so the work is that of an adapter that can be exchanged between
requests. Needs no further library. `lora_files` has checked that the adapter fits.
"""

from pathlib import Path
from typing import Any

import torch

from sweep.engines import lora_files
from sweep.engines.diffusers.rank_context import RankContext
from sweep.engines.diffusers.step_clock import DenoisingPipeline


def apply(pipe: DenoisingPipeline, context: RankContext, arguments: dict[str, Any]) -> None:
    """Let the layers of the adapter in `arguments["path"]` add its product times `scale`.

    Counts as `lora_layers` how many of them ran in a request. Raises ConfigError for an adapter that cannot be read.
    """
    from safetensors.torch import load_file

    folder = Path(arguments["path"])
    adapter = lora_files.read(folder, f"feature.lora.path={folder}")
    factor = float(arguments.get("scale", 1.0)) * adapter.alpha / adapter.rank
    transformer = pipe.transformer
    tensors = load_file(folder / lora_files.WEIGHTS, device=str(context.device))
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        kind = lora_files.A if name.endswith(lora_files.A) else lora_files.B
        parts.setdefault(lora_files.layer_of(name), {})[kind] = tensor.to(transformer.dtype)
    ran: set[str] = set()
    for layer, pair in parts.items():
        _adapt(transformer.get_submodule(layer), layer, pair[lora_files.A], pair[lora_files.B] * factor, ran, context)


def _adapt(
    module: torch.nn.Module, layer: str, a: torch.Tensor, b: torch.Tensor, ran: set[str], context: RankContext
) -> None:
    forward = module.forward

    def adapted(states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not context.counts["lora_layers"]:  # a new request
            ran.clear()
        ran.add(layer)
        context.counts["lora_layers"] = len(ran)
        output: torch.Tensor = forward(states, *args, **kwargs)
        return output + states @ a.T @ b.T

    module.forward = adapted
