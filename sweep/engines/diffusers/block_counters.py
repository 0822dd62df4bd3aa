"""What a DiT really executed: counts of forwards and blocks, and how many image tokens a block saw.

Counters wrap `forward` on the instance, as the innermost wrapper, so a block that a cache answers is
not counted. Also knows where the two model families keep the image stream in a block's call. Knows
nothing of why a block was skipped.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from sweep.engines.diffusers.step_clock import StepClock

IMAGE_OUTPUT = {"GlmImageTransformer2DModel": 0, "QwenImageTransformer2DModel": 1}
"""Transformer class -> which of a block's two outputs is the image stream; the other one is the text stream."""


def transformer_blocks(transformer: torch.nn.Module) -> Sequence[torch.nn.Module]:
    """The DiT's blocks, in order."""
    return list(transformer.get_submodule("transformer_blocks").children())


def streams(args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[torch.Tensor, torch.Tensor]:
    """Image stream and text stream, each (batch, sequence, width), of a block's call."""
    hidden = args[0] if args else kwargs["hidden_states"]
    text = args[1] if len(args) > 1 else kwargs["encoder_hidden_states"]
    assert isinstance(hidden, torch.Tensor)
    assert isinstance(text, torch.Tensor)
    return hidden, text


class BlockCounters:
    """Counts over one request; create it before any feature is applied, `count_forwards` after all of them."""

    def __init__(self, transformer: torch.nn.Module, clock: StepClock) -> None:
        self.clock = clock
        self.blocks = len(transformer_blocks(transformer))
        self.reset()
        for block in transformer_blocks(transformer):
            block.forward = self._count_block(block.forward)

    def reset(self) -> None:
        """Start a request."""
        self.blocks_run = 0
        self.forwards = 0
        self.image_sequence = 0

    @property
    def blocks_skipped(self) -> int:
        """Blocks that the counted forwards would have executed without a cache, minus those executed."""
        return self.forwards * self.blocks - self.blocks_run

    def count_forwards(self, transformer: torch.nn.Module) -> None:
        """Count each forward that really computes: wrap below anything that hands a branch to another rank."""
        forward = transformer.forward

        def counted(*args: object, **kwargs: object) -> object:
            if self.clock.in_branch:
                self.forwards += 1
            return forward(*args, **kwargs)

        transformer.forward = counted

    def _count_block(self, forward: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            if self.clock.in_branch:  # writing the image cache of an edit is not denoising work
                self.blocks_run += 1
                self.image_sequence = max(self.image_sequence, streams(args, kwargs)[0].shape[1])
            return forward(*args, **kwargs)

        return counted
