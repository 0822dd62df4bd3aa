"""Cache-DiT's DBCache on a diffusers pipeline: the first blocks always run, the others are skipped while the
residual of the first ones barely changes between steps.

The rule, its warm-up and its buffers are the cache-dit library's. What is done here instead of its
`enable_cache`: one cache context for each guidance branch, named by the step clock (the library counts calls
in pairs, which is wrong without guidance and under cfg_parallel), and a decision that all ranks sharing a
forward take together. Blocks keep their own `forward`, so counters around them stay in force.
"""

import difflib
import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from cache_dit.caching.cache_blocks.pattern_0_1_2 import CachedBlocks_Pattern_0_1_2
from cache_dit.caching.cache_contexts.cache_config import DBCacheConfig
from cache_dit.caching.cache_contexts.cache_manager import CachedContextManager
from cache_dit.caching.cache_contexts.calibrators import TaylorSeerCalibratorConfig
from cache_dit.caching.cache_contexts.calibrators.taylorseer import TaylorSeerState
from cache_dit.caching.cache_interface import steps_mask
from cache_dit.caching.forward_pattern import ForwardPattern
from cache_dit.logger import suppress_loggers

from profiling.cache_contexts import count_extrapolations, mask_of
from sweep.engines.diffusers.rank_context import RankContext
from sweep.engines.diffusers.step_clock import DenoisingPipeline

BLOCK_PATTERNS: dict[str, ForwardPattern] = {
    "GlmImageTransformer2DModel": ForwardPattern.Pattern_0,  # a block returns (image, text)
    "QwenImageTransformer2DModel": ForwardPattern.Pattern_1,  # a block returns (text, image)
}

MASKS = ("slow", "medium", "fast", "ultra")
MASK_POLICIES = ("static", "dynamic")


@dataclass(frozen=True)
class CacheSettings:
    """DBCache's parameters; Fn and Bn are the library's Fn_compute_blocks and Bn_compute_blocks."""

    Fn: int = 1  # first blocks, which always run and decide
    Bn: int = 0  # last blocks, which always run
    max_warmup_steps: int = 4  # first steps, which never skip
    residual_diff_threshold: float = 0.24  # relative L1 change of the first blocks' residual that forces a full step
    # of scm
    mask: str = ""  # the library's steps computation mask of this name; "" for none
    mask_policy: str = "static"  # static: masked steps never compute; dynamic: the residual decides
    # of taylorseer
    taylorseer_order: int = 0  # of the series that skipped steps extrapolate with; 0: they repeat the last value

    @staticmethod
    def read(arguments: dict[str, Any], blocks: int) -> "CacheSettings":
        """Check `arguments` for a transformer of `blocks` blocks. Raises ValueError."""
        known = CacheSettings.__dataclass_fields__
        for name in arguments:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise ValueError(
                    f"cache_dit: unknown argument '{name}'" + (f"; did you mean {near[0]}?" if near else "")
                )
        settings = CacheSettings(**arguments)
        if settings.Fn < 1 or settings.Bn < 0 or settings.Fn + settings.Bn >= blocks:
            raise ValueError(
                f"cache_dit: Fn={settings.Fn} and Bn={settings.Bn} leave no block to skip; "
                f"Fn must be at least 1 and Fn + Bn less than the model's {blocks} blocks"
            )
        for name, value, choices in (("mask", settings.mask, MASKS), ("steps", settings.mask_policy, MASK_POLICIES)):
            if value and value not in choices:
                raise ValueError(f"scm: {name}={value}: choose {', '.join(choices)}")
        return settings

    def config(self, steps: int) -> DBCacheConfig:
        """The library's settings for a request of so many denoising steps."""
        config = DBCacheConfig(
            Fn_compute_blocks=self.Fn,
            Bn_compute_blocks=self.Bn,
            max_warmup_steps=self.max_warmup_steps,
            residual_diff_threshold=float(self.residual_diff_threshold),
            enable_separate_cfg=False,  # each branch has a context of its own
        )
        if not self.mask or (steps < 8 and steps not in (4, 6)):  # the library has no mask for so few steps
            return config
        mask = steps_mask(mask_policy=self.mask, total_steps=steps)
        return replace(config, steps_computation_mask=mask, steps_computation_policy=self.mask_policy)


class AgreeingContextManager(CachedContextManager):
    """The library's contexts, with one decision for all ranks that share a DiT forward.

    The library averages over every process there is; that would mix the guidance branches of cfg_parallel.
    """

    def __init__(self, rank_context: RankContext) -> None:
        super().__init__(name="sweep", persistent_context=True)
        self.rank_context = rank_context

    def similarity(
        self,
        t1: torch.Tensor,
        t2: torch.Tensor,
        *,
        threshold: float,
        parallelized: bool = False,
        prefix: str = "Fn",
    ) -> bool:
        """Whether this step's residual `t2` is so near to the last computed one, `t1`, that blocks may be skipped."""
        if not 0.0 < threshold < 1.0 or t1.shape != t2.shape:  # the library's special cases: never, always
            return super().similarity(t1, t2, threshold=threshold, parallelized=False, prefix=prefix)
        sums = torch.stack([(t1 - t2).abs().sum(dtype=torch.float32), t1.abs().sum(dtype=torch.float32)])
        change, size = self.rank_context.agree(sums).tolist()
        relative = change / size if size > 0 else float(change > 0)
        self.add_residual_diff(relative)
        return relative < threshold


class CachedBlocks(CachedBlocks_Pattern_0_1_2):
    """All blocks of a transformer as one; knows what went into the first block and which layer caches are in use."""

    def __init__(self, blocks: torch.nn.ModuleList, pattern: ForwardPattern, manager: AgreeingContextManager) -> None:
        super().__init__(
            blocks,
            forward_pattern=pattern,
            check_forward_pattern=False,  # reads signatures, which wrapped blocks need not keep
            cache_prefix="transformer_blocks",
            cache_context="branch",
            context_manager=manager,
        )
        self.entered: torch.Tensor | None = None  # image tokens as the first block got them
        self.layer_caches: Any = None  # GLM-Image edits: keys and values of the source image, one entry a block
        for index, block in enumerate(blocks):
            self.follow(block, index)

    def follow(self, block: torch.nn.Module, index: int) -> None:
        """Wrap `block.forward`: note its input, give it its own layer cache (the model hands out only the first)."""
        forward = block.forward

        @functools.wraps(forward)
        def followed(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if index == 0:
                self.entered = hidden_states
            if self.layer_caches is not None:
                kwargs["kv_cache"] = self.layer_caches[index]
            return forward(hidden_states, *args, **kwargs)

        block.forward = followed

    def _get_Fn_residual(self, original_hidden_states: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        # Sequence parallelism splits the tokens on entry to the first block: compare with what that block saw.
        assert self.entered is not None
        residual = hidden_states - self.entered
        self.entered = None
        return residual


def apply(pipe: DenoisingPipeline, context: RankContext, arguments: dict[str, Any]) -> None:
    """Switch DBCache on for `pipe.transformer`; call before context parallelism is applied.

    Raises ValueError for a model whose blocks are not known here, an unknown argument, or Fn and Bn that
    leave nothing to skip.
    """
    suppress_loggers(["cache_dit*"])
    transformer = pipe.transformer
    pattern = BLOCK_PATTERNS.get(type(transformer).__name__)
    if pattern is None:
        raise ValueError(
            f"cache_dit: no block pattern for {type(transformer).__name__}; known: {', '.join(sorted(BLOCK_PATTERNS))}"
        )
    blocks = transformer.transformer_blocks
    settings = CacheSettings.read(arguments, len(blocks))
    order = settings.taylorseer_order
    calibrator = TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None
    manager = AgreeingContextManager(context)
    cached_blocks = CachedBlocks(blocks, pattern, manager)
    stand_in = torch.nn.ModuleList([cached_blocks])
    clock, forward = context.clock, transformer.forward

    def extrapolated() -> None:
        context.counts["extrapolations"] += 1

    count_extrapolations(TaylorSeerState, extrapolated)

    @functools.wraps(forward)
    def cached_forward(*args: Any, **kwargs: Any) -> Any:
        if not clock.in_branch:  # writes an edit's image cache: every block must run
            return forward(*args, **kwargs)
        branch = f"branch {clock.branch}"
        if clock.first:  # a new request
            config = settings.config(clock.steps)
            manager.reset_context(branch, cache_config=config, calibrator_config=calibrator)
        cached_blocks.cache_context = branch
        cached_blocks.layer_caches = kwargs.get("kv_caches")
        transformer.transformer_blocks = stand_in
        before = len(manager.get_context(branch).cached_steps)
        try:
            return forward(*args, **kwargs)
        finally:
            running = manager.get_context(branch)
            if mask_of(running):
                context.counts["masked_steps"] += len(running.cached_steps) - before
            transformer.transformer_blocks = blocks
            cached_blocks.layer_caches = cached_blocks.entered = None

    transformer.forward = cached_forward
