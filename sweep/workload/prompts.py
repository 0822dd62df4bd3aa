"""Prompts of a workload: one given on the command line, the user's own file, or the shipped ones.

All rules for prompt files are here, so that a bad file is refused before anything loads.
Knows nothing of seeds, batches or engines.
"""

import json
from pathlib import Path
from typing import Any

from sweep.config import ConfigError, Workload, require

SHIPPED = Path(__file__).parent / "prompts.jsonl"
"""Shipped prompts, one JSON object per line: id, lang (en, zh), set (short, long), text; long ones also
`tokens`, their length in tokens as `estimate_tokens` counts it (512, 1,024, 2,048, 2,560, within 2 %)."""

PROMPT_KEYS = ("prompt", "text")
SUFFIXES = (".txt", ".jsonl")
ENGLISH_TOKENS_PER_WORD = 1.3
CHINESE_CHARACTERS_PER_TOKEN = 1.5


def load_prompts(workload: Workload) -> list[str]:
    """The distinct prompts of `workload`, at most `num_prompts`; `build_requests` cycles when there are fewer.

    Order of preference: `workload.prompt` (may be empty), the file `workload.prompts`, the shipped set.
    Raises ConfigError with one line for the user.
    """
    if workload.prompt is not None:
        prompts = [workload.prompt]
        require(is_text(workload.prompt), "workload.prompt: not valid Unicode text; pass it as UTF-8")
    elif workload.prompts is not None:
        prompts = read_prompt_file(workload.prompts)
    else:
        prompts = shipped_prompts(workload.prompt_set)
    return prompts[: workload.num_prompts]


def read_prompt_file(name: str) -> list[str]:
    """All prompts of a .txt file (one per line, blank lines dropped) or a .jsonl file ("prompt" or "text" key).

    Raises ConfigError when the file is missing, unreadable, not UTF-8, empty or malformed.
    """
    asked = f"workload.prompts={name}"
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    try:
        require(path.exists(), f"{asked}: no such file; check the path, which is relative to {Path.cwd()}")
        require(not path.is_dir(), f"{asked}: this is a folder; give a .txt or .jsonl file in it")
        require(suffix in SUFFIXES, f"{asked}: unknown file type; use .txt (one prompt per line) or .jsonl")
        # "utf-8-sig": editors on Windows put a byte-order mark first
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{asked}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
    except (OSError, ValueError, RuntimeError) as error:  # ValueError covers ConfigError and NUL in a path
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{asked}: cannot be read ({error}); check the path and its permissions") from error
    # Not splitlines(): it also splits on characters such as U+2028 that belong to a prompt.
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    require(bool(lines), f"{asked}: the file is empty; write one prompt per line")
    if suffix == ".txt":
        return [line for _, line in lines]
    return [_prompt_of_json_line(line, f"{asked}, line {number}") for number, line in lines]


def shipped_prompts(prompt_set: str) -> list[str]:
    """Texts of the shipped set `prompt_set`: short, long, or mixed (alternating until both are used up)."""
    rows = shipped_rows()
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


def is_text(text: str) -> bool:
    """False when `text` holds lone surrogates: command-line bytes or JSON escapes that are not characters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _prompt_of_json_line(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'{where}: not valid JSON ({error}); write one object per line, {{"prompt": "…"}}') from error
    require(isinstance(row, dict), f'{where}: not a JSON object; write {{"prompt": "…"}}')
    key = next((key for key in PROMPT_KEYS if key in row), None)
    require(key is not None, f'{where}: has neither "prompt" nor "text"; write {{"prompt": "…"}}')
    text = row[key]
    require(isinstance(text, str), f'{where}: "{key}" is not a string; write {{"prompt": "…"}}')
    require(is_text(text), f'{where}: "{key}" is not valid Unicode text')
    return text
