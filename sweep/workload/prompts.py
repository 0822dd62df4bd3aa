"""Prompts of a workload: one given on the command line, the user's own file, or the shipped ones.

Knows nothing of seeds, batches or engines.
"""

import json
from pathlib import Path
from typing import Any

from sweep.config.workload import Workload
from sweep.refusals import require
from sweep.workload.prompt_files import is_text, read_prompt_file

SHIPPED = Path(__file__).parent / "prompts.jsonl"
"""Shipped prompts, one JSON object per line: id, lang (en, zh), set (world, world_edits, short, long), text; long ones
also `tokens`, their length in tokens as `estimate_tokens` counts it (512, 1,024, 2,048, 2,560, within 2 %)."""

ENGLISH_TOKENS_PER_WORD = 1.3
CHINESE_CHARACTERS_PER_TOKEN = 1.5


def load_prompts(workload: Workload) -> list[str]:
    """The distinct prompts of `workload`, as many as it takes; `build_requests` cycles when there are fewer.

    Raises ConfigError with one line for the user.
    """
    distinct = list(dict.fromkeys(all_prompts(workload)))
    return distinct[: workload.number_of(len(distinct))]


def all_prompts(workload: Workload) -> list[str]:
    """Every prompt that `workload` names, equal ones included.

    Order of preference: `workload.prompt` (may be empty), the file `workload.prompts`, the shipped set.
    Raises ConfigError with one line for the user.
    """
    if workload.prompt is not None:
        require(is_text(workload.prompt), "workload.prompt: not valid Unicode text; pass it as UTF-8")
        return [workload.prompt]
    if workload.prompts is not None:
        return read_prompt_file(workload.prompts, workload.prompts_column)
    return shipped_prompts(workload.prompt_set)


def shipped_prompts(prompt_set: str) -> list[str]:
    """Texts of the shipped set `prompt_set`: world, world_edits, short, long, or mixed (short and long by turns).

    Sentences of the world are what the embedded trained model knows; it has not seen these. Its edits are about the
    picture that is made when no `workload.input_image` is given.
    """
    rows = shipped_rows()
    if prompt_set.startswith("world"):
        return [row["text"] for row in rows if row["set"] == prompt_set]
    short = [row["text"] for row in rows if row["set"] == "short"]
    long = [row["text"] for row in rows if row["set"] == "long"]
    if prompt_set == "mixed":
        pairs = [text for pair in zip(short, long, strict=False) for text in pair]
        together = min(len(short), len(long))
        return pairs + short[together:] + long[together:]
    return long if prompt_set == "long" else short


def shipped_rows() -> list[dict[str, Any]]:
    """The shipped prompts with their id, language, set and, for long ones, nominal length."""
    return [json.loads(line) for line in SHIPPED.read_text(encoding="utf-8").split("\n") if line]


def estimate_tokens(text: str) -> float:
    """Rough length in tokens: Chinese characters and punctuation / 1.5 plus other words x 1.3.

    A rule of thumb for BPE tokenizers such as Qwen's; tokenizers that work on bytes need several times more.
    """
    chinese = sum(is_chinese(character) for character in text)
    rest = "".join(" " if is_chinese(character) else character for character in text)
    return chinese / CHINESE_CHARACTERS_PER_TOKEN + len(rest.split()) * ENGLISH_TOKENS_PER_WORD


def is_chinese(character: str) -> bool:
    """True for Chinese ideographs and the punctuation between them."""
    return "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef" or character in "“”‘’…—"
