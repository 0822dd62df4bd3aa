"""CFG-parallel: the two branches of classifier-free guidance on two ranks, combined by the unmodified pipeline.

The pipeline calls the DiT for the conditional, then for the unconditional branch. Each rank computes one
of them. The rank that skips the first call answers it with a placeholder. At the second call both ranks
exchange their predictions, and the placeholder is filled in place before the pipeline reads it. The
numbers are the same as without the feature, with half the DiT forwards per rank. When guidance is off,
every rank computes everything, and the evidence shows it.
"""

from typing import Any

import torch

from sweep.engines.diffusers.rank_context import RankContext
from sweep.engines.diffusers.step_clock import DenoisingPipeline


def apply(pipe: DenoisingPipeline, context: RankContext, arguments: dict[str, Any]) -> None:
    """Split the branches over mesh dimension "cfg". Apply after every feature that works inside one forward."""
    if context.mesh is None or context.size("cfg") != 2:
        raise ValueError(f"cfg_parallel needs two ranks for the two branches, got {context.size('cfg')}")
    group = context.mesh.get_group("cfg")
    own_branch = context.mesh.get_local_rank("cfg")
    forward = pipe.transformer.forward
    # GLM-Image's pipeline converts predictions with .float(), which would copy a placeholder of any other type
    float_output = type(pipe.transformer).__name__ == "GlmImageTransformer2DModel"
    first: list[torch.Tensor] = []  # what this rank answered to the first call of the step

    def parallel_forward(*args: object, **kwargs: object) -> object:
        branch = context.clock.branch
        if branch < 0 or not context.cfg_active():
            return forward(*args, **kwargs)
        latents = kwargs["hidden_states"]
        assert isinstance(latents, torch.Tensor)
        if branch == 0:
            first.clear()
            if own_branch == 0:
                first.append(predict(forward(*args, **kwargs)))
            else:
                first.append(torch.empty_like(latents, dtype=torch.float32 if float_output else latents.dtype))
            return (first[0],)
        own = first[0] if own_branch == 0 else predict(forward(*args, **kwargs))
        gathered = [torch.empty_like(own), torch.empty_like(own)]
        torch.distributed.all_gather(gathered, own.contiguous(), group=group)
        if own_branch == 1:
            first[0].copy_(gathered[0])
        return (gathered[1],)

    pipe.transformer.forward = parallel_forward


def predict(output: object) -> torch.Tensor:
    """The prediction in a transformer's tuple output."""
    if not isinstance(output, tuple):
        raise TypeError("cfg_parallel needs a pipeline that calls its transformer with return_dict=False")
    prediction = output[0]
    assert isinstance(prediction, torch.Tensor)
    return prediction
