"""Prompts of a given length in a model's own tokens."""

from typing import Any

FILLERS = (" the", "a")  # texts that lengthen a prompt; the first one that is a single token is used


def fit_tokens(prompt: str, count: int, tokenizer: Any) -> str:
    """Cut or lengthen `prompt` to `count` tokens; a little fewer where a cut would split a character."""

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    filler = next((text for text in FILLERS if len(encode(text)) == 1), FILLERS[-1])
    missing = count - len(encode(prompt))
    if missing > 0:
        prompt += filler * missing
    for keep in range(count, 0, -1):
        text = tokenizer.decode(encode(prompt)[:keep], clean_up_tokenization_spaces=False)
        if not text.endswith("\N{REPLACEMENT CHARACTER}") and len(encode(text)) <= count:
            return text
    return prompt[:1]
