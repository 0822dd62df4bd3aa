"""The small differences between model families: how to call their pipeline, and what it reports about itself.

Knows pipelines' keyword arguments and tokenizers. Knows nothing of ranks, features or timing.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sweep.engines.diffusers import writing
from sweep.engines.diffusers.families import ONE_AT_A_TIME, PROMPT_TOKENS
from sweep.engines.diffusers.rank_context import RankContext
from sweep.engines.images import read_inputs
from sweep.engines.protocol import NO_TEXT, Request, Writing
from sweep.engines.tokens import fit_tokens


class Adapter(ABC):
    """One model family. `pipe` is its loaded diffusers pipeline."""

    most_prompt_tokens: int | None = None  # the pipeline cuts longer prompts

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer that reads the prompt."""

    @abstractmethod
    def call_arguments(self, requests: Sequence[Request], prompts: Sequence[str]) -> dict[str, Any]:
        """Family-specific keyword arguments of one pipeline call."""

    @abstractmethod
    def cfg_active(self, requests: Sequence[Request]) -> bool:
        """Whether the pipeline will call its DiT twice a step."""

    def is_branch(self, transformer_kwargs: Mapping[str, Any]) -> bool:
        """Whether a DiT call predicts noise."""
        return True

    def output_tokens(self) -> int:
        """AR tokens generated per request by the last call; 0 without an AR stage."""
        return 0

    def refusal(self, request: Request) -> str:
        """Why its AR stage cannot write a text, in one line; "" if it can."""
        return NO_TEXT

    def write(self, request: Request) -> Writing:
        """Begin a text that is not refused."""
        raise ValueError(NO_TEXT)

    def too_long(self, request: Request, prompt: str) -> str:
        """Why its AR stage has no room for this prompt and the image's tokens, in one line; "" if it has."""
        return ""

    def share_ar(self, context: RankContext) -> None:
        """Make rank 0 alone run the AR stage, if there is one, and send its tokens to the other ranks."""
        return

    def shared_arguments(self, requests: Sequence[Request], prompts: Sequence[str]) -> dict[str, Any]:
        """All keyword arguments of one pipeline call."""
        first = requests[0]
        return {
            "prompt": list(prompts),
            "height": first.height,
            "width": first.width,
            "num_inference_steps": first.steps,
            "generator": [torch.Generator("cpu").manual_seed(request.seed) for request in requests],
            **self.call_arguments(requests, prompts),
        }

    def count_tokens(self, prompt: str) -> int:
        """Tokens of `prompt` that the model reads, without the template around it."""
        there, most = self._length(prompt), self.most_prompt_tokens
        return there if most is None else min(there, most)

    def cut(self, prompts: Sequence[str]) -> int:
        """How many of the prompts are longer than what the model reads of them."""
        return sum(self._length(prompt) > self.count_tokens(prompt) for prompt in prompts)

    def _length(self, prompt: str) -> int:
        return len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])

    def fit_prompt(self, request: Request) -> str:
        """The request's prompt, lengthened or cut to `prompt_tokens` as closely as its tokenizer allows."""
        if request.prompt_tokens is None:
            return request.prompt
        return fit_tokens(request.prompt, request.prompt_tokens, self.tokenizer)


PIXELS = 32
"""Pixels that an AR token of GLM-Image covers in each direction."""


class GlmImageAdapter(Adapter):
    """GLM-Image: AR tokens first, then the DiT; guidance against a dropped prior and an empty prompt."""

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        self._generated = 0
        encoder = pipe.vision_language_encoder
        encoder.generate = self._counted(encoder.generate)

    def _counted(self, generate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def counted(**kwargs: Any) -> torch.Tensor:
            tokens = generate(**kwargs)
            self._generated = tokens.shape[-1] - kwargs["input_ids"].shape[-1]
            return tokens

        return counted

    def share_ar(self, context: RankContext) -> None:
        if context.ranks == 1:
            return
        encoder = self.pipe.vision_language_encoder
        generate: Callable[..., torch.Tensor] = encoder.generate

        def generate_once(**kwargs: Any) -> torch.Tensor:
            shape = torch.zeros(2, dtype=torch.int64, device=context.device)
            tokens = generate(**kwargs) if context.rank == 0 else None
            if tokens is not None:
                shape += torch.tensor(tokens.shape, device=context.device)
            torch.distributed.broadcast(shape, src=0)
            if tokens is None:
                tokens = torch.empty(shape.tolist(), dtype=torch.int64, device=context.device)
            torch.distributed.broadcast(tokens, src=0)
            return tokens

        encoder.generate = generate_once

    @property
    def tokenizer(self) -> Any:
        return self.pipe.processor.tokenizer

    def call_arguments(self, requests: Sequence[Request], prompts: Sequence[str]) -> dict[str, Any]:
        # A prompt that spells a control token (such as the image placeholder) is text, not control.
        control = [token for token in self.tokenizer.all_special_tokens if token]
        arguments: dict[str, Any] = {
            "prompt": [spell_out(prompt, control) for prompt in prompts],
            "guidance_scale": requests[0].guidance_scale,
        }
        if requests[0].input_image is not None:
            arguments["image"] = [read_inputs(request) for request in requests]
        return arguments

    def cfg_active(self, requests: Sequence[Request]) -> bool:
        return requests[0].guidance_scale > 1

    def too_long(self, request: Request, prompt: str) -> str:
        room = self.pipe.vision_language_encoder.config.text_config.max_position_embeddings
        image = (request.height // PIXELS) * (request.width // PIXELS)
        if len(prompt.encode()) + image <= room:  # a token is at least a byte
            return ""
        tokens = self.count_tokens(prompt)
        if tokens + image <= room:
            return ""
        return f"the prompt has {tokens:,} tokens and the image {image:,}, more than the AR stage's {room:,} positions"

    def is_branch(self, transformer_kwargs: Mapping[str, Any]) -> bool:
        caches = transformer_kwargs.get("kv_caches")
        return caches is None or caches[0].mode != "write"  # "write": stores an edit's input image, predicts nothing

    def output_tokens(self) -> int:
        return self._generated

    def refusal(self, request: Request) -> str:
        return writing.refusal(self.pipe.vision_language_encoder, request)

    def write(self, request: Request) -> Writing:
        return writing.write(self.pipe.vision_language_encoder, self.tokenizer, self._prompt_ids(request), request)

    def _prompt_ids(self, request: Request) -> list[int]:
        assert request.text is not None
        if request.text.prompt_ids:
            return list(request.text.prompt_ids)
        control = [token for token in self.tokenizer.all_special_tokens if token]
        prompt = spell_out(request.prompt, control)
        if request.text.messages:
            chat = [{"role": role, "content": spell_out(text, control)} for role, text in request.text.messages]
            prompt = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        found: list[int] = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return found


class QwenImageAdapter(Adapter):
    """Qwen-Image: a language model encodes the prompt, the DiT renders the image; guidance needs a negative prompt."""

    MAX_SEQUENCE_LENGTH = 1024  # the pipelines take no more; that of Qwen-Image-Edit only checks it
    most_prompt_tokens = PROMPT_TOKENS.get("qwen_image")

    @property
    def tokenizer(self) -> Any:
        return self.pipe.tokenizer

    def shorten_template(self) -> None:
        """Use a prompt template of three tokens; with one token per byte, the published one would have 200."""
        self.pipe.prompt_template_encode = "<|im_start|>{}<|im_end|>"
        self.pipe.prompt_template_encode_start_idx = 1

    def call_arguments(self, requests: Sequence[Request], prompts: Sequence[str]) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "true_cfg_scale": requests[0].guidance_scale,
            "max_sequence_length": self.MAX_SEQUENCE_LENGTH,
        }
        if self.cfg_active(requests):
            arguments["negative_prompt"] = [request.negative_prompt for request in requests]
        return arguments

    def cfg_active(self, requests: Sequence[Request]) -> bool:
        return requests[0].guidance_scale > 1 and all(request.negative_prompt is not None for request in requests)


class QwenImageEditAdapter(QwenImageAdapter):
    """Qwen-Image-Edit: text encoder and DiT also see the picture to edit, scaled to about 1024² pixels.

    The pipeline takes several pictures with a prompt each. That of Qwen-Image-Edit-2509 (`Plus`) takes several pictures
    for one prompt, and so one request at a time.
    """

    most_prompt_tokens = None

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        self._several_a_prompt = type(pipe).__name__ in ONE_AT_A_TIME
        processor = pipe.image_processor
        processor.resize = each_resized(processor.resize)

    def call_arguments(self, requests: Sequence[Request], prompts: Sequence[str]) -> dict[str, Any]:
        if self._several_a_prompt and len(requests) > 1:
            raise ValueError(f"{type(self.pipe).__name__} of diffusers takes one request at a time: use batch=1")
        pictures = [picture for request in requests for picture in read_inputs(request)]  # of one size, as a batch is
        return {**super().call_arguments(requests, prompts), "image": pictures}


def each_resized(resize: Callable[..., Any]) -> Callable[..., Any]:
    """`VaeImageProcessor.resize` that also takes a list. Without, the text encoder would see the pictures of a batch in
    their own sizes, and a single one in the size that the pipeline chose."""

    @functools.wraps(resize)
    def resized(image: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(image, list):
            return [resize(one, *args, **kwargs) for one in image]
        return resize(image, *args, **kwargs)

    return resized


def spell_out(prompt: str, control: Sequence[str]) -> str:
    """`prompt` with every control token of `control` broken by a space, so that it is read as plain text."""
    for token in control:
        prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
    return prompt


def quiet_libraries() -> None:
    """Keep progress bars and advice of diffusers and transformers out of the engine's log; errors stay."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


ADAPTERS: dict[str, type[Adapter]] = {
    "glm_image": GlmImageAdapter,
    "qwen_image": QwenImageAdapter,
    "qwen_image_edit": QwenImageEditAdapter,
}


def make_adapter(family: str, pipe: Any, embedded: bool) -> Adapter:
    """The adapter of `family` around a loaded pipeline. Raises ValueError for a family without one."""
    if family not in ADAPTERS:
        raise ValueError(f"the diffusers engine has no adapter for model family '{family}'; it has {sorted(ADAPTERS)}")
    adapter = ADAPTERS[family](pipe)
    if embedded and isinstance(adapter, QwenImageAdapter):
        adapter.shorten_template()
    return adapter
