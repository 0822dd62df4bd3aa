"""Settings from Python as the overrides that one types on the command line. Pure; knows Hydra's grammar, no field."""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweep.refusals import ConfigError

Overrides = str | Iterable[str] | Mapping[str, Any]
"""A command's arguments as typed, in one string or in a list; or a mapping from field to value, see `overrides_of`."""

_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_CONSTANTS = ("true", "false", "null", "none", "nan", "inf")


def as_typed(given: Overrides) -> list[str]:
    """The arguments of `python -m sweep`, without -m. Raises ConfigError."""
    if isinstance(given, Mapping):
        return overrides_of(given)
    try:
        arguments = shlex.split(given) if isinstance(given, str) else list(given)
    except ValueError as error:
        raise ConfigError(f"{given}: {error}; close the quotes, or give a list of strings") from None
    for argument in arguments:
        if not isinstance(argument, str):
            raise ConfigError(f"{argument!r} is not text; give overrides like 'batch=1,2', or a dict")
    return [argument for argument in arguments if argument not in ("-m", "--multirun")]


def overrides_of(fields: Mapping[str, Any]) -> list[str]:
    """`{"feature": ["teacache", ["cfg_parallel", "teacache"]], "batch": 2}` as overrides.

    A list or tuple holds the values that the sweep varies; a list inside it is one value. Anything else is one value,
    and a text is taken literally: it needs no quotes. Raises ConfigError.
    """
    found = []
    for name, value in fields.items():
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not values:
            raise ConfigError(f"{name}: [] gives no value; choose at least one")
        found.append(f"{name}={','.join(_value(name, one) for one in values)}")
    return found


def folder_override(folder: Path) -> str:
    """The folder of a sweep, which may contain any character."""
    return f"hydra.sweep.dir={quoted(str(folder))}"


def quoted(text: str) -> str:
    """A text as Hydra's grammar and OmegaConf read it back unchanged."""
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # OmegaConf's part: no interpolation
    return "'" + re.sub(r"(\\+)(?='|$)", r"\1\1", literal).replace("'", r"\'") + "'"


def _value(name: str, value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(float(value) if isinstance(value, float) else int(value))  # numpy's write their type too
    if isinstance(value, str | Path):
        text = str(value)
        return text if _PLAIN.fullmatch(text) and text.lower() not in _CONSTANTS else quoted(text)
    if isinstance(value, list | tuple):
        return f"[{','.join(_value(name, one) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_value(name, one)}' for key, one in value.items())}}}"
    if hasattr(value, "item"):  # other numbers of numpy's
        return _value(name, value.item())
    raise ConfigError(f"{name}: {value!r} is no text, number, list or dict")
