"""Tokenizers of FLUX.1's two text encoders, made from the shipped prompts. Prompts are padded to one length.

CLIP's has a token for every byte and no merges: its encoder adds one vector per prompt, so the count hardly matters.
"""

import json
import math
import re
from collections import Counter
from pathlib import Path

from sweep.engines.diffusers.tiny_models.parts import byte_alphabet
from sweep.workload.prompts import SHIPPED

CLIP_LENGTH = 77
CLIP_VOCABULARY = 2 * 256 + 2
"""Bytes, bytes that end a word, and the two specials."""

T5_LENGTH = 512
T5_SPECIALS = ("<pad>", "</s>", "<unk>")
T5_WORDS = 3000
T5_VOCABULARY = 4096
"""Rows of the embedding: specials, words, single characters, and some spare."""

CHARACTER_SCORE = -14.0
"""Log-probability of a single character, below that of any word that is in the vocabulary."""


def write_clip_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer; `<|startoftext|>` and `<|endoftext|>` come last, as in the real one."""
    from transformers import CLIPTokenizer

    letters = byte_alphabet()
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CLIP_LENGTH).save_pretrained(folder)


def write_t5_tokenizer(folder: Path) -> None:
    """T5's tokenizer: words of the shipped prompts, and single characters for all others."""
    from transformers import T5Tokenizer

    lines = [str(json.loads(line)["text"]) for line in SHIPPED.read_text(encoding="utf-8").splitlines()]
    counts = Counter(word for line in lines for word in re.findall(r"\w+", line))
    total = sum(counts.values())
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:T5_WORDS]
    characters = sorted({*map(chr, range(33, 127)), *(letter for line in lines for letter in line if letter > " ")})
    room = T5_VOCABULARY - len(T5_SPECIALS) - len(common) - 1
    pieces = [(special, 0.0) for special in T5_SPECIALS]
    pieces += [("▁", CHARACTER_SCORE)]
    pieces += [(f"▁{word}", math.log(count / total)) for word, count in common]
    pieces += [(letter, CHARACTER_SCORE) for letter in characters[:room]]
    T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH).save_pretrained(folder)
