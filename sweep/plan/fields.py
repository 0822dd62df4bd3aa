"""What a composed configuration may hold: fields that exist, and numbers that are finite and not absurdly large.

Pure. The schema (sweep/config) checks the range of each field; this module checks what holds for all of them.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sweep.config.run import RunConfig
from sweep.names import unknown_field
from sweep.refusals import ConfigError, require

MOST_REQUESTS = 1_000_000
"""Largest number of measured requests of a cell; each is a row of its result."""


MOST_TOKENS = 100_000_000
"""Largest number of random tokens of a cell: they are in memory before the first is sent."""


def refuse_unknown(config: DictConfig) -> None:
    """Check that every field is in the schema: `+workload.step=3` can add any. Raises ConfigError.

    Engine arguments and feature options are free; the code that uses them checks them.
    """
    for name in _unknown(config, ""):
        raise ConfigError(unknown_field(name))


def _unknown(config: DictConfig, prefix: str) -> Iterator[str]:
    kind = OmegaConf.get_type(config)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return
    known = {field.name for field in dataclasses.fields(kind)}
    for key in map(str, config):
        if key not in known:
            yield f"{prefix}{key}"
        elif isinstance(node := config._get_node(key), DictConfig) and not node._is_none():
            yield from _unknown(node, f"{prefix}{key}.")


def refuse_not_finite(value: Any, name: str = "") -> None:
    """Check every number of a configuration, those of features and engine arguments included. Raises ConfigError."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            refuse_not_finite(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            refuse_not_finite(inner, name)
    elif isinstance(value, float):
        require(math.isfinite(value), f"{name}={value}: must be a finite number")


def refuse_too_many(run: RunConfig) -> None:
    """Check that planning and storing the requests of one cell ends. Raises ConfigError."""
    work = run.workload
    most = max(work.number_of(0) * work.seeds_per_prompt, run.batch)
    sizes = f"workload.num_prompts={work.num_prompts}, seeds_per_prompt={work.seeds_per_prompt}, batch={run.batch}"
    asked = f"{sizes}, repeats={work.repeats}"
    require(
        most * work.repeats <= MOST_REQUESTS,
        f"{asked}: a cell measures at most {MOST_REQUESTS:,} requests; choose smaller numbers",
    )
    sent = run.load.requests
    require(sent <= MOST_REQUESTS, f"load: a cell sends at most {MOST_REQUESTS:,} requests, not {sent:,}")
    tokens = sent * (work.input_len or 0)
    asked = f"workload.input_len={work.input_len}, {sent:,} requests"
    require(tokens <= MOST_TOKENS, f"{asked}: a cell sends at most {MOST_TOKENS:,} tokens of random prompts")
