"""StepClock: which denoising step a rank is in, and which guidance branch its current DiT forward belongs to.

Counts the pipeline's own calls: transformer calls since the last scheduler step. Knows nothing of
guidance scales, ranks or caches.
"""

from collections.abc import Callable
from typing import Protocol

import torch


class DenoisingPipeline(Protocol):
    """What every diffusers pipeline that we drive has."""

    transformer: torch.nn.Module
    scheduler: "Scheduler"


class Scheduler(Protocol):
    """A diffusers scheduler; `step` is replaced on the instance."""

    step: Callable[..., object]


class StepClock:
    """Position in the denoising loop. `branch` is 0 for the first DiT call of a step, 1 for the second, -1 outside."""

    def __init__(self) -> None:
        self.step = 0  # index of the current denoising step, from 0
        self.branch = -1
        self.steps = 0  # steps of the current request
        self._calls = 0  # branches called since the last scheduler step

    def reset(self, steps: int) -> None:
        """Start a request of `steps` denoising steps."""
        self.step, self.branch, self.steps, self._calls = 0, -1, steps, 0

    @property
    def first(self) -> bool:
        """Whether this is the request's first denoising step."""
        return self.step == 0

    @property
    def last(self) -> bool:
        """Whether this is the request's last denoising step."""
        return self.step >= self.steps - 1

    @property
    def in_branch(self) -> bool:
        """Whether the current DiT forward belongs to a denoising step (not to writing an edit's image cache)."""
        return self.branch >= 0

    def attach(self, pipeline: DenoisingPipeline, is_branch: Callable[[dict[str, object]], bool]) -> None:
        """Follow `pipeline`: call after everything else wrapped the transformer, so that every call is seen.

        `is_branch` decides from a transformer call's keyword arguments whether it predicts noise.
        """
        transformer, scheduler = pipeline.transformer, pipeline.scheduler
        forward, scheduler_step = transformer.forward, scheduler.step

        def counted_forward(*args: object, **kwargs: object) -> object:
            if not is_branch(kwargs):
                self.branch = -1
                return forward(*args, **kwargs)
            self.branch = self._calls
            self._calls += 1
            try:
                return forward(*args, **kwargs)
            finally:
                self.branch = -1

        def counted_step(*args: object, **kwargs: object) -> object:
            self._calls = 0
            result = scheduler_step(*args, **kwargs)
            self.step += 1
            return result

        transformer.forward = counted_forward
        scheduler.step = counted_step
