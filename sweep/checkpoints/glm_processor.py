"""Tokenizer, picture processor and chat template of GLM-Image's AR model, with the real model's token ids."""

import json
from pathlib import Path

from sweep.checkpoints.tokenizers import byte_level, learn_merges
from sweep.engines.diffusers.tiny_models.parts import READS_PICTURES, byte_alphabet, write_json

VOCABULARY = 168064  # 16,512 image ids and GLM-4's 151,552 text ids
VISION_VOCABULARY = 16512
IMAGE_START, IMAGE_END = 16384, 16385
PAD, GRID_START, GRID_END, IMAGE = 167841, 167845, 167846, 167855
NAMED = {
    PAD: "<|endoftext|>",
    167842: "[MASK]",
    167843: "[gMASK]",
    167844: "[sMASK]",
    GRID_START: "<sop>",
    GRID_END: "<eop>",
    167847: "<|system|>",
    167848: "<|user|>",
    167849: "<|assistant|>",
    IMAGE: "<|image|>",
}
START_TOKEN, END_TOKEN = f"<|dit_token_{IMAGE_START}|>", f"<|dit_token_{IMAGE_END}|>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}{%- if message.content is string -%}{{ message.content }}{%- else -%}"
    "{%- for item in message.content -%}{%- if item.type == 'image' -%}"
    + START_TOKEN
    + "<|image|>"
    + END_TOKEN
    + "{%- elif item.type == 'text' -%}{{ item.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
)


def write_processor(folder: Path) -> None:
    """Write the folder `processor`. Every id below VOCABULARY has a token; those that are never used are fillers."""
    from transformers import PreTrainedTokenizerFast

    merges = learn_merges()
    text = dict.fromkeys([*byte_alphabet(), *(left + right for left, right in merges)])
    vocabulary = {f"<|dit_token_{i}|>": i for i in range(VISION_VOCABULARY)}
    vocabulary |= {token: i for i, token in enumerate(text, start=VISION_VOCABULARY)}
    vocabulary |= {NAMED.get(i, f"<|unused_{i}|>"): i for i in range(len(vocabulary), VOCABULARY)}
    PreTrainedTokenizerFast(
        tokenizer_object=byte_level(vocabulary, merges, [START_TOKEN, END_TOKEN, *NAMED.values()]),
        bos_token=START_TOKEN,
        eos_token=END_TOKEN,
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=131072,
        extra_special_tokens={"image_token": "<|image|>", "grid_bos_token": "<sop>", "grid_eos_token": "<eop>"},
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"processor_class": "GlmImageProcessor"}
    write_json(config, path)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    # Written by hand: saving an image processor object would need torchvision. A patch is 16x16 pixels.
    write_json(
        {
            "image_processor_type": "GlmImageImageProcessor",
            "processor_class": "GlmImageProcessor",
            **READS_PICTURES,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "patch_size": 16,
            "temporal_patch_size": 1,
            "merge_size": 1,
            "size": {"shortest_edge": 512 * 512, "longest_edge": 2048 * 2048},
        },
        folder / "preprocessor_config.json",
    )
