"""A DiT and a rank that only says how large its mesh is: for checks that come before any collective."""

from types import SimpleNamespace

import torch

from sweep.engines.diffusers.rank_context import RankContext
from sweep.engines.diffusers.step_clock import StepClock


class MeshOf(RankContext):
    """Rank 0 of a mesh with the given sizes; any collective on it fails."""

    def __init__(self, **sizes: int) -> None:
        super().__init__(
            rank=0,
            ranks=max(sizes.values()),
            device=torch.device("cpu"),
            mesh=SimpleNamespace(),  # type: ignore[arg-type]
            clock=StepClock(),
            cfg_active=lambda: True,
        )
        self.sizes = sizes

    def size(self, dim: str) -> int:
        return self.sizes.get(dim, 1)


def tiny_qwen_dit() -> SimpleNamespace:
    """What `apply` reads of a pipeline: tiny Qwen-Image's transformer."""
    from diffusers import QwenImageTransformer2DModel

    from sweep.engines.diffusers.tiny_models.checkpoints import ensure_checkpoint

    folder = ensure_checkpoint("tiny_qwen_image") / "transformer"
    return SimpleNamespace(transformer=QwenImageTransformer2DModel.from_pretrained(folder))
