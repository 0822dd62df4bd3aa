"""Conversations in ShareGPT's format: a list of {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}]}.

Takes the first answered question of each, and the answer. Ignores files that hold something else.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from sweep.refusals import ConfigError, require
from sweep.workload.prompt_files import is_text

USERS, MODELS = ("human", "user"), ("gpt", "chatgpt", "assistant", "bing", "bard")


def read_conversations(name: str) -> list[tuple[str, str]]:
    """Questions with their answers, in the file's order; [] for any other file, and for one that cannot be read.

    Conversations without an answered question are left out, as those that begin with the model. Raises ConfigError
    when none is left, or for one that is malformed.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() != ".json":
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):  # the reader of prompts says why
        return []
    if not (isinstance(entries, list) and entries and isinstance(entries[0], dict) and "conversations" in entries[0]):
        return []
    asked = f"workload.prompts={name}"
    found = [_first(entry, f"{asked}, entry {number}") for number, entry in enumerate(entries, start=1)]
    answered = [one for one in found if one is not None]
    require(bool(answered), f"{asked}: no conversation in it has a question with an answer")
    return answered


def _first(entry: Any, where: str) -> tuple[str, str] | None:
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(turns, list):
        raise ConfigError(f'{where}: has no list "conversations"')
    spoken = [_turn(turn, where) for turn in turns]
    for (who, question), (then, answer) in pairwise(spoken):
        if who in USERS and then in MODELS and question.strip() and answer.strip():
            return question, answer
    return None


def _turn(turn: Any, where: str) -> tuple[str, str]:
    pair = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
    who, text = pair
    if not (isinstance(who, str) and isinstance(text, str)):
        raise ConfigError(f'{where}: a turn is no {{"from": "human", "value": "…"}}')
    require(is_text(text), f"{where}: not valid Unicode text")
    return who, text
