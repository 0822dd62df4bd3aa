"""Secrets in settings: passwords in URLs, and fields named token, password or key. Found, masked, put back.

What a sweep stores for readers is masked; what its jobs need to run is kept apart, for their owner alone
(`SweepFolder`). Prompts are content, not settings: they stay unchanged. Pure.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"

_WORDS = {"password", "passwd", "passphrase", "pwd", "secret", "credential", "credentials", "apikey"}
_PAIRS = ("api_key", "access_key", "private_key", "auth_key")
_OF_TEXT = {"bos", "eos", "pad", "unk", "sep", "cls", "mask", "image", "text", "special"}
"""Before `_token`: a tokenizer's own, which is no secret."""

_URL = re.compile(r"(?<=://)[^\s/@'\"]+@")
_FIELD = re.compile(r"""([\w.]+)(['"]?\s*[:=]\s*)('[^']*'|"[^"]*"|[^\s,{}\[\]'"]+)""")


def is_secret(name: str) -> bool:
    """Whether a field of this name holds a secret: `hf_token`, `db.password`; not `prompt_tokens`."""
    last = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rpartition(".")[2]).lower().replace("-", "_")
    words = last.split("_")
    token = words[-1] == "token" and not _OF_TEXT & set(words)
    return token or bool(_WORDS & set(words)) or any(pair in last for pair in _PAIRS)


def masked_text(text: str) -> str:
    """An override, a command or a message without the secrets in it."""
    text = _URL.sub(f"{MASK}@", text)
    override = re.fullmatch(r"([+~]{0,2}[\w./@-]+)=(.*)", text, re.DOTALL)
    if override and is_secret(override[1]):
        return f"{override[1]}={MASK}"
    if override and not override[2].lstrip().startswith(("{", "[")):
        return text
    return _FIELD.sub(lambda found: f"{found[1]}{found[2]}{MASK}" if is_secret(found[1]) else found[0], text)


def masked(value: Any, name: str = "") -> Any:
    """A configuration, or a part of one called `name`, as it may be shown: same shape, secrets masked."""
    if isinstance(value, Mapping):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(masked(inner, name) for inner in value)
    if value is None or isinstance(value, bool) or value == "":
        return value
    if is_secret(name):
        return MASK
    return _URL.sub(f"{MASK}@", value) if isinstance(value, str) else value


def secrets_of(value: Any, shown: Any, path: tuple[str | int, ...] = ()) -> list[tuple[list[str | int], Any]]:
    """What `masked` took out of `value` to make `shown`: path and value of each."""
    if isinstance(value, Mapping):
        return [one for key in value for one in secrets_of(value[key], shown[key], (*path, key))]
    if isinstance(value, list | tuple):
        return [one for i, pair in enumerate(zip(value, shown, strict=True)) for one in secrets_of(*pair, (*path, i))]
    return [] if value == shown else [([*path], value)]


def restored(shown: Any, secrets: Sequence[tuple[Sequence[str | int], Any]]) -> Any:
    """Inverse of `masked`, in place: puts back what `secrets_of` found."""
    for path, value in secrets:
        place = shown
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
    return shown
