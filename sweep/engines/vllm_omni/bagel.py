"""BAGEL's two stages: an AR stage reads the prompt and hands its KV cache to a DiT stage, which draws with it.

Guidance has three branches: with the prompt, without its text, and without the picture to edit. The AR stage reads the
negative prompt as a companion of the request and hands over that cache too; where no picture is edited, the third
branch uses the first one's. Names are those of vLLM-Omni's deploy/bagel.yaml, stage_input_processors/bagel.py and
diffusion/models/bagel/pipeline_bagel.py (0.26).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sweep.engines.protocol import Request
from sweep.engines.vllm_omni.stages import TwoStages

COMPANIONS = 2
"""Requests of the AR stage for one picture: the prompt, and the negative prompt for guidance."""

IMAGE_GUIDANCE = 1.5
"""`cfg_img_scale` with guidance: the pipeline's default, so that the third branch is computed."""


class Bagel(TwoStages):
    """BAGEL-7B-MoT."""

    tokenizer_folder = ""  # its files are next to the weights
    caches = 1
    MEMORY_SHARED, MEMORY_SPLIT = 0.45, 0.6
    CONNECTOR = "shared_memory"
    AR: ClassVar[Mapping[str, Any]] = {
        "trust_remote_code": True,
        "enable_prefix_caching": False,
        "max_num_batched_tokens": 32768,
        "skip_mm_profiling": True,  # text-to-image: the vision tower is not used
    }
    AR_SAMPLING: ClassVar[Mapping[str, Any]] = {
        "temperature": 0.4,
        "top_p": 0.9,
        "top_k": 1,
        "max_tokens": 2048,  # never reached: the stage ends a request once its KV cache is on its way
        "detokenize": True,
        "repetition_penalty": 1.05,
    }

    def deploy(self) -> dict[str, Any]:
        made = super().deploy()
        if "max_num_seqs" not in self.spec.stages.get("ar", {}):
            made["stages"][0]["max_num_seqs"] *= COMPANIONS
        return made

    def prompt(self, request: Request) -> dict[str, Any]:
        prompt: dict[str, Any] = {"prompt": f"<|im_start|>{request.prompt}<|im_end|>", "modalities": ["image"]}
        if request.guidance_scale > 1 and request.negative_prompt:
            prompt["negative_prompt"] = request.negative_prompt
        return prompt

    def parameters(self, request: Request, defaults: Sequence[Any]) -> list[Any]:
        ar = copy.deepcopy(defaults[0])
        ar.seed = request.seed
        (diffusion,) = super().parameters(request, defaults)
        diffusion.num_inference_steps = request.steps + 1  # points in time; the steps lie between them
        return [ar, diffusion]

    def guide(self, request: Request, diffusion: Any) -> None:
        guided = request.guidance_scale > 1
        scales = {"cfg_text_scale": request.guidance_scale, "cfg_img_scale": IMAGE_GUIDANCE if guided else 1.0}
        diffusion.extra_args = {**(diffusion.extra_args or {}), **scales}
