"""The AR model's tokenizer: image tokens, then bytes, then the words of the grammar as merges of bytes.

Any text can be encoded; words of the world are one token each, so that prompts are short.
"""

import random
from typing import TYPE_CHECKING

from sweep.checkpoints.training import sizes
from sweep.checkpoints.world import edits, scenes, sentences

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCES = 20_000  # that merges are learnt from


def build(seed: int, count: int = SENTENCES) -> "Tokenizer":
    """Byte-level BPE whose merges are learnt from `count` sentences and as many instructions without their quotes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learning = Tokenizer(models.BPE())
    learning.pre_tokenizer = _pre_tokenizer()
    learning.train_from_iterator(
        _corpus(seed, count),
        trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False),
    )
    merges = _merges(learning)
    names = [f"<|code_{number}|>" for number in range(sizes.CODEBOOK)] + list(sizes.SPECIALS)
    tokens = names + sorted(alphabet) + ["".join(pair) for pair in merges]
    tokenizer = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in sizes.SPECIALS])
    return tokenizer


def prompt(sentence: str, grid: int = sizes.GRID) -> str:
    """The AR model's input for a picture of grid × grid target tokens (GlmImageProcessor's form)."""
    return f"{sentence}<sop>{grid} {grid}<eop><sop>16 16<eop><|image_start|>"


def edit_prompt(instruction: str, grid: int = sizes.GRID) -> str:
    """The same for an edit of a picture of grid × grid tokens, which the vision tower writes over `<|image|>`."""
    source = f"<|image_start|>{'<|image|>' * grid**2}<|image_end|>"
    return f"{source}{instruction}<sop>{grid} {grid}<eop><|image_start|>"


def _corpus(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    wishes = scenes.wishes(seed, held=False)
    said = []
    for _ in range(count):
        asked = next(wishes)
        said.append(sentences.write(asked, rng))
        if edit := edits.draw_edit(scenes.arrange(asked, rng), rng):
            said.append(edit.instruction)
    said = [sentences.QUOTED.sub("", one) for one in said]
    return said + [f" {one}" for one in said]


def _merges(tokenizer: "Tokenizer") -> list[tuple[str, str]]:
    import json

    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def _pre_tokenizer() -> object:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
