"""Byte-level tokenizers with a few thousand merges learnt from the shipped prompts, for realistic token counts.

With single bytes, a prompt would have four times its usual tokens: text would weigh too much in every DiT forward,
and long prompts would be refused.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweep.engines.diffusers.tiny_models.parts import READS_PICTURES, byte_alphabet, write_json
from sweep.workload.prompts import SHIPPED

MERGES = 3500
PATTERN = (  # how Qwen2 cuts text into words
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATES = (  # of Qwen-Image and Qwen-Image-Edit: the pipelines drop this many tokens with any tokenizer
    "system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships "
    "of the objects and background:\nuser\nassistant\n",
    "system\nDescribe the key features of the input image (color, shape, size, texture, objects, background), then "
    "explain how the user's text instruction should alter or modify the image. Generate a new image that meets the "
    "user's requirements while maintaining consistency with the original input where appropriate.\nuser\nassistant\n",
)
TEMPLATE_WEIGHT = 50  # times each template is read, so that its words become one token each
QWEN_SPECIALS = tuple(
    f"<|{name}|>"
    for name in ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
)
QWEN_VOCABULARY = 4096  # rows of the embedding: specials, bytes, merges, and some spare
CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
)


def corpus() -> Iterable[str]:
    """Texts that the merges are learnt from."""
    for line in SHIPPED.read_text(encoding="utf-8").splitlines():
        yield str(json.loads(line)["text"])
    for template in TEMPLATES:
        yield from [template] * TEMPLATE_WEIGHT


def word_splitter() -> Any:
    """Qwen2's way of cutting text, with bytes written as printable characters."""
    from tokenizers import Regex, pre_tokenizers

    words = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False)
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def learn_merges(count: int = MERGES) -> list[tuple[str, str]]:
    """At most `count` byte-pair merges, most frequent first. Deterministic."""
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = word_splitter()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + count, min_frequency=1, initial_alphabet=byte_alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def byte_level(vocabulary: dict[str, int], merges: list[tuple[str, str]], special: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = word_splitter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def write_qwen_tokenizer(folder: Path, chat: bool = False, specials: tuple[str, ...] = QWEN_SPECIALS) -> None:
    """Qwen2 tokenizer, optionally with a chat template. Special tokens come first, in the order of `specials`."""
    from transformers import PreTrainedTokenizerFast

    merges = learn_merges()
    words = [*specials, *byte_alphabet(), *(left + right for left, right in merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(words))}
    PreTrainedTokenizerFast(
        tokenizer_object=byte_level(vocabulary, merges, specials),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(specials[1:]),
        model_max_length=131072,
    ).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "Qwen2Tokenizer"}
    write_json(config | ({"chat_template": CHAT_TEMPLATE} if chat else {}), path)
    write_json(vocabulary, folder / "vocab.json")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_qwen_processor(folder: Path) -> None:
    """Processor of Qwen2.5-VL: the tokenizer, and how an image becomes patches.

    Written by hand: saving an image processor object would need torchvision.
    """
    write_qwen_tokenizer(folder)
    write_json(
        {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
            **READS_PICTURES,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "min_pixels": 56 * 56,
            "max_pixels": 28 * 28 * 16384,
        },
        folder / "preprocessor_config.json",
    )
