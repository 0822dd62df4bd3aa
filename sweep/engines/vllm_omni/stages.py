"""How a model's stages are started and called: one diffusion stage, or an AR stage that sends tokens to a DiT stage.

Pure mapping from our specs and requests to vLLM-Omni's arguments, prompts and sampling parameters.
"""

import copy
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from sweep.config.stages import SAMPLING
from sweep.engines.images import read_inputs, read_mask
from sweep.engines.protocol import EngineSpec, Request
from sweep.engines.tokens import fit_tokens
from sweep.engines.vllm_omni import connectors
from sweep.engines.vllm_omni.families import BATCHING, PROMPT_TOKENS, TWO_STAGES, guidance
from sweep.engines.vllm_omni.placement import placed
from sweep.engines.vllm_omni.versions import Generated

BATCH_WAIT_MS = 25.0
"""How long vLLM-Omni may wait for a batch to fill; a full batch does not wait, and ours are always full."""

Times = tuple[float | None, ...]
"""Seconds, one per request of the batch; None for a request that was not measured."""


class Stages:
    """One diffusion stage: Qwen-Image, Z-Image, FLUX and their like."""

    count = 1
    caches = 0  # KV caches that an AR stage hands over for a request, at least

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

    def too_long(self, request: Request) -> str:
        """Why a request has no room in the AR stage, in one line; "" if it has, or there is none."""
        return ""

    def prompt(self, request: Request) -> dict[str, Any]:
        """A prompt as `Omni.generate` takes it."""
        prompt: dict[str, Any] = {"prompt": request.prompt}
        if request.negative_prompt is not None:
            prompt["negative_prompt"] = request.negative_prompt
        if request.input_image is not None:
            pictures = read_inputs(request)
            prompt["multi_modal_data"] = {"image": pictures if len(pictures) > 1 else pictures[0]}
            if (mask := read_mask(request)) is not None:
                prompt["multi_modal_data"]["mask_image"] = mask
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
            diffusion.guidance_scale = guidance(self.spec.family, request.guidance_scale)
            diffusion.guidance_scale_provided = True

    def token_times(self, generated: Sequence[Generated]) -> tuple[Times, Times]:
        """TTFT and TPOT of each request in seconds; () without an AR stage, or where none was measured."""
        return (), ()

    def output_tokens(self, generated: Sequence[Generated]) -> int:
        """AR tokens generated per request."""
        return 0


class TwoStages(Stages):
    """An AR stage whose output a DiT stage renders. A deploy file places both.

    The class has the family's defaults; `spec.stages` has the user's settings, which override them.
    """

    count = 2
    MEMORY_SHARED, MEMORY_SPLIT = 0.35, 0.6  # of its GPU, for the AR stage
    AR: ClassVar[Mapping[str, Any]] = {}
    """Options of the AR stage in the deploy file, in addition to those of `deploy`."""

    AR_SAMPLING: ClassVar[Mapping[str, Any]] = {}
    """How its tokens are drawn: fields of vLLM's SamplingParams."""

    DIT: ClassVar[Mapping[str, Any]] = {"max_num_seqs": 1, "enforce_eager": True, "trust_remote_code": True}
    """Options of the DiT stage. Options of features override them."""

    CONNECTOR = ""
    """What carries the output by default (`connectors`); "" where vLLM-Omni's orchestrator does it, and nothing else
    can."""

    def __init__(self, spec: EngineSpec, folder: Path) -> None:
        super().__init__(spec)
        self._deploy = folder / "deploy.yaml"  # YAML is a superset of JSON
        self._deploy.write_text(json.dumps(self.deploy(), indent=1), encoding="utf-8")

    @property
    def arguments(self) -> dict[str, Any]:
        return {"deploy_config": str(self._deploy), "log_stats": True}

    def deploy(self) -> dict[str, Any]:
        """The deploy file: devices, memory and features of each stage. Features belong to the DiT stage."""
        stages, split = self.spec.stages, self.spec.placement == "split"
        own_ar, own_dit = dict(stages.get("ar", {})), dict(stages.get("dit", {}))
        sampling = {name: own_ar.pop(name) for name in SAMPLING if name in own_ar}
        on_ar, on_dit = placed(stages, split, self.spec.ranks)
        options = {key: value for key, value in self.spec.arguments.items() if key != "max_num_seqs"}
        ar = {
            "max_num_seqs": self.spec.arguments.get("max_num_seqs", 1),
            "gpu_memory_utilization": self.MEMORY_SPLIT if split else self.MEMORY_SHARED,
            **({"tensor_parallel_size": len(on_ar)} if len(on_ar) > 1 else {}),
            **self.AR,
            **own_ar,
            "devices": _joined(on_ar),
            "default_sampling_params": {**self.AR_SAMPLING, **sampling, **self.most_tokens()},
        }
        dit = {**self.DIT, "default_sampling_params": {}, **options, **own_dit, "devices": _joined(on_dit)}
        connected = connectors.edge(stages.get("connector") or self.CONNECTOR)
        return {
            "async_chunk": False,
            "stages": [
                {"stage_id": 0, **ar, **connected.sender},
                {"stage_id": 1, **dit, **connected.receiver},
            ],
            **connected.defined,
        }

    def most_tokens(self) -> dict[str, int]:
        """`max_tokens` of a server, whose requests cannot say it: all are of one size. {} offline."""
        return {}

    def token_times(self, generated: Sequence[Generated]) -> tuple[Times, Times]:
        return _seconds([one.ttft_ms for one in generated]), _seconds([one.tpot_ms for one in generated])

    def output_tokens(self, generated: Sequence[Generated]) -> int:
        return max((one.output_tokens or 0 for one in generated), default=0)


class GlmImage(TwoStages):
    """GLM-Image: stage 0 writes image tokens, stage 1 renders them."""

    tokenizer_folder = "processor"
    FACTOR = 32  # pixels that a token covers, each way
    AR: ClassVar[Mapping[str, Any]] = {
        "enforce_eager": False,
        "trust_remote_code": True,
        "enable_prefix_caching": False,
        "max_num_batched_tokens": 32768,
        "max_model_len": 16384,
        "skip_mm_profiling": True,  # text-to-image: the vision tower is not used
        "mm_processor_cache_gb": 0,
    }
    AR_SAMPLING: ClassVar[Mapping[str, Any]] = {
        "temperature": 0.9,
        "top_p": 0.75,
        "top_k": 16512,
        "stop_token_ids": [16385],
        "detokenize": False,
    }

    def too_long(self, request: Request) -> str:
        """Without the template around the prompt, for which vLLM itself has to have room."""
        room = self.spec.stages.get("ar", {}).get("max_model_len", self.AR["max_model_len"])
        written, read = sum(self.tokens(*request.size)) + 1, self.count_tokens(request.prompt)
        if read + written <= room:
            return ""
        return (
            f"the prompt has {read:,} tokens and the image {written:,}, more than model.stages.ar.max_model_len={room}"
        )

    def most_tokens(self) -> dict[str, int]:
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


def _joined(devices: Sequence[int]) -> str:
    return ",".join(map(str, devices))


def _seconds(milliseconds: Sequence[float | None]) -> Times:
    """The same in seconds; () where all are None."""
    known = any(one is not None for one in milliseconds)
    return tuple(None if one is None else one / 1000 for one in milliseconds) if known else ()


FORMS = {
    "glm_image": "sweep.engines.vllm_omni.stages:GlmImage",
    "bagel": "sweep.engines.vllm_omni.bagel:Bagel",
}
"""Families of TWO_STAGES: the class of each, built from the classes here."""


def describe(spec: EngineSpec, folder: Path) -> Stages:
    """The stages of the spec's model; files that they need are written to `folder`."""
    if spec.family not in TWO_STAGES:
        return Stages(spec)
    module, name = FORMS[spec.family].split(":")
    made: Stages = getattr(importlib.import_module(module), name)(spec, folder)
    return made
