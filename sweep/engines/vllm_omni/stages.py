"""How a model's stages are started and called: one diffusion stage, or an AR stage that sends tokens to a DiT stage.

Pure mapping from our specs and requests to vLLM-Omni's arguments, prompts and sampling parameters.
"""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep.engines.images import read_input
from sweep.engines.protocol import EngineSpec, Request
from sweep.engines.tokens import fit_tokens
from sweep.engines.vllm_omni.families import BATCHING, PROMPT_TOKENS, TWO_STAGES
from sweep.engines.vllm_omni.versions import Generated

BATCH_WAIT_MS = 25.0
"""How long vLLM-Omni may wait for a batch to fill; a full batch does not wait, and ours are always full."""

Times = tuple[float | None, ...]
"""Seconds, one per request of the batch; None for a request that was not measured."""


class Stages:
    """One diffusion stage: Qwen-Image, Z-Image, FLUX and their like."""

    count = 1

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self._tokenizer: Any = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of Omni."""
        batching = {"request_batch_max_wait_ms": BATCH_WAIT_MS}
        if self.spec.family not in BATCHING:
            return {**self.spec.arguments, "max_num_seqs": 1}
        return {**batching, **self.spec.arguments}

    def fit(self, request: Request) -> Request:
        """The request with its prompt lengthened or cut to `prompt_tokens`.

        Raises ValueError for a prompt that the pipeline would refuse, which it does not survive.
        """
        if request.prompt_tokens is not None:
            request = replace(request, prompt=fit_tokens(request.prompt, request.prompt_tokens, self.tokenizer))
        most = PROMPT_TOKENS.get(self.spec.family)
        if most is None or len(request.prompt.encode()) <= most:  # a token has at least a byte
            return request
        if (tokens := self.count_tokens(request.prompt)) > most:
            too_long = f"prompt {request.prompt_index} has {tokens:,} tokens"
            raise ValueError(f"{too_long}, and vLLM-Omni takes at most {most:,} for {self.spec.model}")
        return request

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that reads the prompt, loaded at first use."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(Path(self.spec.checkpoint) / self.tokenizer_folder)
        return self._tokenizer

    tokenizer_folder = "tokenizer"

    def count_tokens(self, prompt: str) -> int:
        """Tokens of the prompt, without the template around it."""
        return len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])

    def prompt(self, request: Request) -> dict[str, Any]:
        """A prompt as `Omni.generate` takes it."""
        prompt: dict[str, Any] = {"prompt": request.prompt}
        if request.negative_prompt is not None:
            prompt["negative_prompt"] = request.negative_prompt
        if request.input_image is not None:
            prompt["multi_modal_data"] = {"image": read_input(request)}
        return prompt

    def parameters(self, request: Request, defaults: Sequence[Any]) -> list[Any]:
        """Sampling parameters, one object per stage. Noise comes from a CPU generator, as in the diffusers engine."""
        diffusion = copy.deepcopy(defaults[-1])
        diffusion.seed = request.seed
        diffusion.generator_device = "cpu"
        diffusion.height, diffusion.width = request.height, request.width
        diffusion.num_inference_steps = request.steps
        diffusion.num_outputs_per_prompt = 1
        self.guide(request, diffusion)
        return [diffusion]

    def guide(self, request: Request, diffusion: Any) -> None:
        """Set classifier-free guidance under the name that the family reads."""
        if self.spec.family.startswith("qwen_image"):
            diffusion.true_cfg_scale = request.guidance_scale
            diffusion.max_sequence_length = PROMPT_TOKENS[self.spec.family]
        else:
            diffusion.guidance_scale = request.guidance_scale
            diffusion.guidance_scale_provided = True

    def token_times(self, generated: Sequence[Generated]) -> tuple[Times, Times]:
        """TTFT and TPOT of each request in seconds; () without an AR stage, or where none was measured."""
        return (), ()

    def output_tokens(self, generated: Sequence[Generated]) -> int:
        """AR tokens generated per request."""
        return 0


class GlmImage(Stages):
    """GLM-Image: stage 0 writes image tokens, stage 1 renders them. A deploy file places the two stages."""

    count = 2
    tokenizer_folder = "processor"
    FACTOR = 32  # pixels that a token covers, each way
    MAX_MODEL_LEN = 16384
    MEMORY_SHARED, MEMORY_SPLIT = 0.35, 0.6  # of its GPU, for the AR stage

    def __init__(self, spec: EngineSpec, folder: Path) -> None:
        super().__init__(spec)
        self._deploy = folder / "deploy.yaml"  # YAML is a superset of JSON
        self._deploy.write_text(json.dumps(self.deploy(), indent=1), encoding="utf-8")

    @property
    def arguments(self) -> dict[str, Any]:
        return {"deploy_config": str(self._deploy), "log_stats": True}

    def deploy(self) -> dict[str, Any]:
        """The deploy file: devices, memory and features of each stage. Features belong to the DiT stage."""
        split = self.spec.placement == "split"
        first = int(split)
        batch = self.spec.arguments.get("max_num_seqs", 1)
        diffusion = {key: value for key, value in self.spec.arguments.items() if key != "max_num_seqs"}
        return {
            "async_chunk": False,
            "stages": [
                {
                    "stage_id": 0,
                    "devices": "0",
                    "max_num_seqs": batch,
                    "gpu_memory_utilization": self.MEMORY_SPLIT if split else self.MEMORY_SHARED,
                    "enforce_eager": False,
                    "trust_remote_code": True,
                    "enable_prefix_caching": False,
                    "max_num_batched_tokens": 32768,
                    "max_model_len": self.MAX_MODEL_LEN,
                    "skip_mm_profiling": True,  # text-to-image: the vision tower is not used
                    "mm_processor_cache_gb": 0,
                    "default_sampling_params": {
                        "temperature": 0.9,
                        "top_p": 0.75,
                        "top_k": 16512,
                        "stop_token_ids": [16385],
                        "detokenize": False,
                        **self._most_tokens(),
                    },
                },
                {
                    "stage_id": 1,
                    "devices": ",".join(str(first + rank) for rank in range(self.spec.ranks)),
                    "max_num_seqs": 1,
                    "enforce_eager": True,
                    "trust_remote_code": True,
                    "default_sampling_params": {},
                    **diffusion,
                },
            ],
        }

    def _most_tokens(self) -> dict[str, int]:
        """Of a server, whose requests cannot say it: all are of one size."""
        size = self.spec.serve.get("size")
        return {"max_tokens": sum(self.tokens(*size)) + 1} if size else {}

    def tokens(self, width: int, height: int) -> tuple[int, int]:
        """(preview, target) image tokens that the AR stage writes for this size; one end token follows."""
        rows, columns = height // self.FACTOR, width // self.FACTOR
        ratio, half = rows / columns, self.FACTOR // 2
        preview = max(1, int(math.sqrt(ratio) * half)) * max(1, int(math.sqrt(1 / ratio) * half))
        return preview, rows * columns

    def prompt(self, request: Request) -> dict[str, Any]:
        size = {"target_h": request.height, "target_w": request.width}
        return {
            **super().prompt(request),
            "height": request.height,
            "width": request.width,
            "mm_processor_kwargs": size,  # makes the processor append the grid tokens
        }

    def parameters(self, request: Request, defaults: Sequence[Any]) -> list[Any]:
        ar = copy.deepcopy(defaults[0])
        ar.seed = request.seed
        ar.max_tokens = sum(self.tokens(*request.size)) + 1
        ar.extra_args = {**(ar.extra_args or {}), "target_h": request.height, "target_w": request.width}
        return [ar, *super().parameters(request, defaults)]

    def token_times(self, generated: Sequence[Generated]) -> tuple[Times, Times]:
        return _seconds([one.ttft_ms for one in generated]), _seconds([one.tpot_ms for one in generated])

    def output_tokens(self, generated: Sequence[Generated]) -> int:
        return max((one.output_tokens or 0 for one in generated), default=0)


def _seconds(milliseconds: Sequence[float | None]) -> Times:
    """The same in seconds; () where all are None."""
    known = any(one is not None for one in milliseconds)
    return tuple(None if one is None else one / 1000 for one in milliseconds) if known else ()


def describe(spec: EngineSpec, folder: Path) -> Stages:
    """The stages of the spec's model; files that they need are written to `folder`."""
    return GlmImage(spec, folder) if spec.family in TWO_STAGES else Stages(spec)
