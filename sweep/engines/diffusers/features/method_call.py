"""Features that diffusers enables with a method call: `call` names it, `expect` what must hold afterwards.

Implements conf/feature files that need no module of their own, such as `vae_slicing`. Reading a setting
back shows that it was set, not what it did; a rule that counts work is better if one exists.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any


def apply(pipe: Any, arguments: Mapping[str, Any]) -> None:
    """Call `arguments["call"]` (a path from the pipeline, e.g. vae.enable_slicing) with `arguments["with"]`.

    Raises ValueError when the pipeline has no such method.
    """
    path = str(arguments["call"])
    try:
        method = _follow(pipe, path)
    except AttributeError as error:
        raise ValueError(f"{type(pipe).__name__} has no {path}: {error}") from error
    method(**dict(arguments.get("with") or {}))


def read_back(pipe: Any, arguments: Mapping[str, Any]) -> str:
    """`on` when every attribute that `expect` names has its value, else what was found instead."""
    wrong = []
    for path, expected in dict(arguments.get("expect") or {}).items():
        try:
            found = _follow(pipe, str(path))
        except AttributeError:
            found = "missing"
        if found != expected:
            wrong.append(f"{path}={found}")
    if not arguments.get("expect"):
        return "its file names no setting to read back"
    return "on" if not wrong else ", ".join(wrong)


def _follow(root: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), root)
