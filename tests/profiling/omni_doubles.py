"""Small torch modules with the shapes of vLLM-Omni's: attributes, hooks and call paths as in its source.

tests/profiling/test_vllm_plugin_source.py holds the names against that source.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from profiling.vllm_plugin import writer
from profiling.vllm_plugin.record_files import DitRecord, dit_record, read_lines

WIDTH = 8
BLOCKS = 3
"""Blocks of the DiT; a refiner comes to them."""

IMAGE_TOKENS = 16


class Block(nn.Module):
    """A DiT block."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden_states: torch.Tensor, temb: torch.Tensor | None = None) -> torch.Tensor:
        return hidden_states + self.linear(hidden_states)


class Attention(nn.Module):
    """vLLM-Omni's attention layer: a back end that runs unless the input is float32."""

    class Backend:
        """A back end's class."""

        @staticmethod
        def get_name() -> str:
            return "FLASH_ATTN"

    class Implementation:
        """What computes."""

        def forward(self, query: torch.Tensor) -> torch.Tensor:
            return query

    def __init__(self) -> None:
        super().__init__()
        self.attn_backend = self.Backend
        self.attn_impl_cls = self.Implementation
        self.attention = self.Implementation()
        self.sdpa_fallback = self.Implementation()
        self.use_ring = False
        self.ring_runner = None

    def forward(self, query: torch.Tensor) -> torch.Tensor:
        chosen = self.sdpa_fallback if query.dtype == torch.float32 else self.attention
        return chosen.forward(query)


class Transformer(nn.Module):
    """A DiT with a refiner before its blocks, as Z-Image has: of the same class, but it sees the whole sequence."""

    _repeated_blocks: ClassVar = ["Block"]
    _layerwise_offload_blocks_attrs: ClassVar = ["transformer_blocks"]

    def __init__(self) -> None:
        super().__init__()
        self.refiners = nn.ModuleList([Block()])
        self.transformer_blocks = nn.ModuleList([Block() for _ in range(BLOCKS)])
        self.attention = Attention()

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor | None = None,
        prior_token_id: torch.Tensor | None = None,
        kv_cache: Any = None,
    ) -> tuple[torch.Tensor]:
        if hidden_states.dim() == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        hidden_states = self.attention(hidden_states)
        for block in self.refiners:
            block(torch.cat([hidden_states, hidden_states], dim=1))
        for block in self.transformer_blocks:
            hidden_states = block(hidden_states=hidden_states, temb=timestep)
        return (hidden_states,)


class Encoder(nn.Module):
    """A text encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.linear(tokens)


class Vae(nn.Module):
    """A VAE that decodes in tiles when asked to, and shares them out as vLLM-Omni's distributed ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(WIDTH, WIDTH)
        self.encoder = nn.Linear(WIDTH, WIDTH)
        self.use_slicing = False
        self.use_tiling = False
        self.distributed_executor = Executor()

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return self.encoder(image)

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor]:
        if not self.use_tiling:
            return (self.decoder(latents),)
        return (self.distributed_executor.execute(latents, self.decoder),)


class Executor:
    """Runs the tiles of this rank."""

    def execute(self, latents: torch.Tensor, decode: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return torch.cat([decode(tile) for tile in latents.chunk(2, dim=1)], dim=1)


class BaseScheduler:
    """Where `step` comes from."""

    def step(self, noise: torch.Tensor, timestep: object, latents: torch.Tensor) -> tuple[torch.Tensor]:
        return (latents - 0.1 * noise,)


class Scheduler(BaseScheduler):
    """Calls its parent's step."""

    def step(self, noise: torch.Tensor, timestep: object, latents: torch.Tensor) -> tuple[torch.Tensor]:
        return super().step(noise, timestep, latents)


@dataclass
class Batch:
    """vLLM-Omni's DiffusionRequestBatch."""

    request_ids: Sequence[str] = ("request-0",)
    dummy: bool = False
    steps: int = 4
    guidance: bool = True

    def is_dummy_run(self) -> bool:
        return self.dummy


class Pipeline(nn.Module):
    """A diffusion pipeline with two-branch guidance."""

    _dit_modules: ClassVar = ["transformer"]
    _encoder_modules: ClassVar = ["text_encoder"]
    _vae_modules: ClassVar = ["vae"]

    def __init__(self) -> None:
        super().__init__()
        self.transformer: Any = Transformer()
        self.text_encoder = Encoder()
        self.vae = Vae()
        self.scheduler = Scheduler()
        self.fail_at = ""

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        return self.text_encoder(torch.ones(1, 4, WIDTH))

    def predict(self, latents: torch.Tensor, guidance: bool) -> torch.Tensor:
        noise = self.transformer(hidden_states=latents, timestep=torch.zeros(1))[0]
        if guidance:
            noise = noise + self.transformer(hidden_states=latents, timestep=torch.zeros(1))[0]
        return noise

    def forward(self, req: Batch) -> torch.Tensor:
        for prompt in ("prompt", "negative"):
            self.encode_prompt(prompt)
        scheduler = copy.deepcopy(self.scheduler)
        latents = torch.ones(1, IMAGE_TOKENS, WIDTH)
        for step in range(req.steps):
            noise = self.predict(latents, req.guidance)
            if self.fail_at == "scheduler":
                raise MemoryError("out of memory")
            (latents,) = scheduler.step(noise, step, latents)
        return self.vae.decode(latents, return_dict=False)[0]


@dataclass
class Device:
    """torch.device of a CPU."""

    type: str = "cpu"


class Cache:
    """A cache back end, switched on."""

    def is_enabled(self) -> bool:
        return True


@dataclass
class Configuration:
    """OmniDiffusionConfig."""

    cache_backend: str | None = None


class Runner:
    """vLLM-Omni's DiffusionModelRunner, with a pipeline that is made before."""

    def __init__(self, pipeline: Any = None) -> None:
        self.device = Device()
        self.od_config = Configuration()
        self.cache_backend: Cache | None = None
        self.state_cache: dict[str, int] = {}
        self.pipeline: Any = None
        self._made = pipeline or Pipeline()

    def load_model(self, load_format: str = "default") -> None:
        if load_format != "dummy":
            self.pipeline = self._made

    def execute_model(self, batch: Batch) -> torch.Tensor:
        with torch.inference_mode():
            return self.pipeline.forward(batch)

    def execute_stepwise(self, scheduler_output: Any) -> None:
        for request in scheduler_output.scheduled_new_reqs:
            self.pipeline.encode_prompt("prompt")
            self.state_cache[request.request_id] = 2  # steps left
        latents = torch.ones(1, IMAGE_TOKENS, WIDTH)
        noise = self.pipeline.predict(latents, guidance=False)
        for name in list(self.state_cache):
            self.pipeline.scheduler.step(noise, 0, latents)
            self.state_cache[name] -= 1
            if not self.state_cache[name]:
                self.pipeline.vae.decode(latents, return_dict=False)
                del self.state_cache[name]


@dataclass
class Here:
    """A place that fails a test when something is reported."""

    folder: Path
    reports: list[str] = field(default_factory=list)

    def report(self) -> None:
        import traceback

        self.reports.append(traceback.format_exc())


class HookedForward:
    """vLLM-Omni's HookRegistry on a module: `forward` of the instance dispatches to a hook that replaces it."""

    def __init__(self, module: nn.Module, new_forward: Callable[..., Any]) -> None:
        self._hooks = {"teacache": self}
        self._new_fwd_impl_hook = self
        self.fn_ref = self
        self.original_forward = module.forward
        module._omni_original_forward = module.forward  # type: ignore[assignment]
        module._hook_registry = self  # type: ignore[assignment]
        module.forward = lambda *args, **kwargs: new_forward(self, *args, **kwargs)  # type: ignore[method-assign]


def lines(folder: Path) -> list[DitRecord]:
    """All records of the folder's only dit file, once all are written."""
    writer.settle()
    (path,) = folder.glob("dit-rank0-*.jsonl")
    return [dit_record(line) for line in read_lines(path)[0]]
