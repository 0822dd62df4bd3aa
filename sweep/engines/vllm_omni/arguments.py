"""Keyword arguments of vllm_omni.Omni: those of all features of a cell, merged."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.config.feature import Feature
from sweep.engines.feature_arguments import with_ranks
from sweep.refusals import ConfigError


def arguments(features: Sequence[Feature], ranks: int) -> dict[str, Any]:
    """Keyword arguments of vllm_omni.Omni: those of the features, merged; the word "ranks" stands for `ranks`.

    Raises ConfigError when two features give one key different values.
    """
    merged: dict[str, Any] = {}
    said_by: dict[tuple[str, ...], str] = {}
    for feature in features:
        _merge(merged, with_ranks(feature.engines.get("vllm_omni") or {}, ranks), feature.name, said_by)
    return merged


def _merge(
    into: dict[str, Any],
    arguments: Mapping[str, Any],
    name: str,
    said_by: dict[tuple[str, ...], str],
    path: tuple[str, ...] = (),
) -> None:
    """Add a feature's arguments, mappings key by key. `said_by` knows which feature set each key or mapping first."""
    for key, value in arguments.items():
        here = (*path, key)
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value, name, said_by, here)
        elif key not in into:
            into[key] = value
            said_by[here] = name
        elif into[key] != value:
            first = next(said_by[here[:n]] for n in range(len(here), 0, -1) if here[:n] in said_by)
            raise ConfigError(
                f"features {first} and {name} set vLLM-Omni's {'.'.join(here)} to different values "
                f"({into[key]} and {value}); choose one of them, or list it under `conflicts` in the other's file"
            )


def data_ranks(arguments: Mapping[str, Any]) -> int:
    """Ranks that vLLM-Omni divides the requests of a batch among; 1 where every rank has a part in each request.

    It divides them only under distributed layerwise offload.
    """
    degree = (arguments.get("parallel_config") or {}).get("data_parallel_size", 1)
    return int(degree) if arguments.get("enable_distributed_layerwise_offload") else 1
