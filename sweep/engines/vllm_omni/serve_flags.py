"""Keyword arguments of vllm_omni.Omni as flags of `vllm serve --omni`, which makes keywords of them again. Pure."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

OTHERWISE = {"ulysses_degree": "--usp", "ring_degree": "--ring"}
"""Flags that are not named after their keyword."""

NESTED = "parallel_config"
"""Its keys are separate flags."""


def flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the sizes of parallel_config on the top level."""
    own = {name: value for name, value in arguments.items() if name != NESTED}
    return {**own, **(arguments.get(NESTED) or {})}


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """What follows `vllm serve MODEL --omni`: True is a flag alone, False its --no- form, a mapping is JSON."""
    found: list[str] = []
    for name, value in flat(arguments).items():
        flag = OTHERWISE.get(name, "--" + name.replace("_", "-"))
        if value is None:
            continue
        if isinstance(value, bool):
            found.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            found += [flag, json.dumps(value) if isinstance(value, Mapping | list | tuple) else str(value)]
    return found


def without_flag(arguments: Mapping[str, Any], known: Iterable[str]) -> str:
    """The first keyword that has no flag among `known` ones; "" when all have one."""
    there = set(known)
    return next((name for name in flat(arguments) if OTHERWISE.get(name, name) not in there), "")
