"""TeaCache (arXiv 2411.19108): skip all DiT blocks of a step whose timestep-modulated input barely changed.

The relative L1 change of the first block's modulated input is accumulated over steps, per guidance
branch. Below the threshold the blocks are skipped and the residual of the last full step is added;
else they run and the sum starts again. The first and the last step always run. The paper rescales the
change with a polynomial fitted to each model; here it is used directly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sweep.engines.diffusers.block_counters import IMAGE_OUTPUT, streams, transformer_blocks
from sweep.engines.diffusers.rank_context import RankContext
from sweep.engines.diffusers.step_clock import DenoisingPipeline

DEFAULT_REL_L1_THRESH = 0.2


@dataclass
class BranchState:
    """What one guidance branch remembers from the steps before."""

    modulated: torch.Tensor | None = None  # modulated input of the previous step
    residual: torch.Tensor | None = None  # last full step: image stream after the blocks - before
    accumulated: float = 0.0  # relative L1 change since the last full step


class TeaCache:
    """Decides once a forward, in the first block, and answers for the blocks of a skipped forward."""

    def __init__(self, transformer: torch.nn.Module, context: RankContext, rel_l1_thresh: float) -> None:
        self.context = context
        self.rel_l1_thresh = rel_l1_thresh
        self.image_output = IMAGE_OUTPUT[type(transformer).__name__]
        self.states: dict[int, BranchState] = {}
        self.state = BranchState()
        self.skipping = False
        self.entry: torch.Tensor | None = None  # image stream before the first block
        blocks = transformer_blocks(transformer)
        for block in blocks:
            block.forward = self._skippable(block.forward)
        blocks[-1].forward = self._recording(blocks[-1].forward)
        blocks[0].forward = self._deciding(blocks[0], blocks[0].forward)

    def _decide(self, modulated: torch.Tensor) -> bool:
        """Whether this forward is skipped; the same on every rank that shares it."""
        clock, state = self.context.clock, self.state
        previous, state.modulated = state.modulated, modulated
        if clock.first or clock.last or previous is None or state.residual is None:
            state.accumulated = 0.0
            return False
        sums = torch.stack([(modulated - previous).abs().sum(), previous.abs().sum()]).double()
        change, size = self.context.agree(sums).tolist()
        state.accumulated += change / max(size, 1e-12)
        if state.accumulated < self.rel_l1_thresh:
            return True
        state.accumulated = 0.0
        return False

    def _deciding(self, block: torch.nn.Module, forward: Callable[..., object]) -> Callable[..., object]:
        def decide(*args: object, **kwargs: object) -> object:
            clock = self.context.clock
            self.skipping = False
            if not clock.in_branch:
                return forward(*args, **kwargs)
            if clock.first:
                self.states[clock.branch] = BranchState()  # nothing survives a request
            self.state = self.states[clock.branch]
            image, text = streams(args, kwargs)
            self.entry = image
            self.skipping = self._decide(modulated_input(block, args, kwargs))
            if self.skipping and self.state.residual is not None:
                return self._answer(image + self.state.residual, text)
            return forward(*args, **kwargs)

        return decide

    def _skippable(self, forward: Callable[..., object]) -> Callable[..., object]:
        def run_or_pass(*args: object, **kwargs: object) -> object:
            return self._answer(*streams(args, kwargs)) if self.skipping else forward(*args, **kwargs)

        return run_or_pass

    def _recording(self, forward: Callable[..., object]) -> Callable[..., object]:
        def record(*args: object, **kwargs: object) -> object:
            output = forward(*args, **kwargs)
            if self.context.clock.in_branch and not self.skipping:
                assert isinstance(output, tuple)
                assert self.entry is not None
                self.state.residual = output[self.image_output] - self.entry
            return output

        return record

    def _answer(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (image, text) if self.image_output == 0 else (text, image)


def modulated_input(block: Any, args: Sequence[object], kwargs: Mapping[str, object]) -> torch.Tensor:
    """The image stream after the first block's norm and timestep modulation: (batch, sequence, width)."""
    image, text = streams(args, kwargs)
    temb = args[2] if len(args) > 2 else kwargs["temb"]
    if hasattr(block, "img_norm1"):  # Qwen-Image
        scale_shift_gate = block.img_mod(temb).chunk(2, dim=-1)[0]
        return block._modulate(block.img_norm1(image), scale_shift_gate, kwargs.get("modulate_index"))[0]
    return block.norm1(image, text, temb)[0]  # GLM-Image


def apply(pipe: DenoisingPipeline, context: RankContext, arguments: dict[str, Any]) -> None:
    """Switch TeaCache on. `arguments`: rel_l1_thresh, the accumulated relative L1 change that forces a full step."""
    TeaCache(pipe.transformer, context, float(arguments.get("rel_l1_thresh", DEFAULT_REL_L1_THRESH)))
