"""Tensor parallelism of a DiT: every linear layer of its `_tp_plan` is split over the ranks of the mesh's `tp` dim.

The plan and its layer styles are diffusers'; the same code runs on cuda with nccl and on cpu with gloo.
Knows nothing of sequence parallelism, which may be applied together with it.
"""

from typing import Any

from diffusers.hooks.tensor_parallel import _resolve_tp_plan, _styles
from torch.distributed.tensor.parallel import parallelize_module

from sweep.engines.diffusers.rank_context import RankContext
from sweep.engines.diffusers.step_clock import DenoisingPipeline


def apply(pipe: DenoisingPipeline, context: RankContext, arguments: dict[str, Any]) -> None:
    """Shard `pipe.transformer` in place; `arguments["degree"]` must be the size of the mesh's `tp` dim.

    Raises ValueError for a model without a plan, or whose heads the ranks cannot share evenly. Must be called
    by all ranks, with the weights already on their device.
    """
    transformer = pipe.transformer
    if getattr(transformer, "_tp_plan", None) is None:
        raise ValueError(f"tp: {type(transformer).__name__} has no tensor-parallel plan (_tp_plan) in diffusers")
    degree = context.size("tp")
    wanted = int(arguments.get("degree", degree))
    if context.mesh is None or degree < 2 or wanted != degree:
        raise ValueError(f"tp: degree {wanted} does not match the mesh of ranks, which has {degree}")
    heads = transformer.config.num_attention_heads
    if heads % degree:
        raise ValueError(f"tp: degree {degree} must divide the model's {heads} attention heads")
    # `enable_parallelism` would do the same, but refuses cpu.
    for module, plan in _resolve_tp_plan(transformer, transformer._tp_plan):
        parallelize_module(module, context.mesh["tp"], _styles(plan))
