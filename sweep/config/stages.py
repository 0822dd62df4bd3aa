"""How the stages of a model are started and sampled: `model.stages.ar.max_model_len=8192`; part of the schema of a run.

Does not know how an engine uses a field. A field that is not set is left to the engine, whose defaults
docs/gpu-host.md lists.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sweep.refusals import nearest, require

PREFIX = "model.stages."
"""What the fields here begin with on the command line."""

KV_DTYPES = ("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2")
"""Dtypes of the KV cache of an AR stage; auto: the model's dtype."""

CONNECTORS = (
    "shared_memory",
    "mooncake_store",
    "mooncake_transfer_engine",
    "mori_transfer_engine",
    "yuanrong",
    "yuanrong_transfer_engine",
)
"""What carries a stage's output to the next one, by the names of vLLM-Omni's connectors."""


def device_numbers(devices: str) -> tuple[int, ...]:
    """`0,1` or `0+1` as numbers; () where it is neither. On the command line of a sweep a comma would begin a second
    cell."""
    parts = re.split(r"[,+]", devices.replace(" ", ""))
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


@dataclass
class DitStage:
    """How the DiT stage of a model with several stages is started; None: as its engine does by default.

    What accelerates it is in conf/feature/, its steps, guidance and seeds are in `workload`.
    """

    devices: str | None = None  # of the cell's GPUs, counted from 0: 1, or 1+2 for several; as many as features need
    max_num_seqs: int | None = None  # most requests that are drawn at once
    enforce_eager: bool | None = None  # no compilation

    def __post_init__(self) -> None:
        _check_devices("dit", self.devices)
        _at_least_1("dit", self, ("max_num_seqs",))


@dataclass
class ArStage:
    """How the AR stage of a model with several stages is started and sampled; None: as its engine does by default."""

    devices: str | None = None  # of the cell's GPUs, counted from 0: 0, or 0+1 for tensor parallelism over two
    gpu_memory_utilization: float | None = None  # share of a GPU that it reserves: weights, activations, paged KV cache
    max_model_len: int | None = None  # most tokens of a request: its prompt and what is written
    max_num_batched_tokens: int | None = None  # most tokens of one step; longer prompts are read in chunks
    max_num_seqs: int | None = None  # most requests that are written at once; None: engine.max_num_seqs
    enforce_eager: bool | None = None  # no CUDA graphs
    enable_prefix_caching: bool | None = None  # keep the KV cache of a prompt for others with the same prefix
    kv_cache_dtype: str | None = None  # of the KV cache (KV_DTYPES)
    block_size: int | None = None  # tokens of a block of the paged KV cache
    # Sampling.
    temperature: float | None = None  # 0 takes the likeliest token
    top_p: float | None = None  # share of probability that tokens are drawn from
    top_k: int | None = None  # likeliest tokens that are drawn from; 0: all
    min_p: float | None = None  # least probability, as a share of the likeliest token's
    repetition_penalty: float | None = None  # above 1, tokens that were there become less likely

    def __post_init__(self) -> None:
        _check_devices("ar", self.devices)
        _at_least_1("ar", self, ("max_model_len", "max_num_batched_tokens", "max_num_seqs", "block_size"))
        limits = {
            "gpu_memory_utilization": (0.01, 1.0),
            "temperature": (0.0, 2.0),
            "top_p": (0.001, 1.0),
            "top_k": (0, 1_000_000),
            "min_p": (0.0, 1.0),
            "repetition_penalty": (0.01, 10.0),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            require(
                value is None or low <= value <= high,
                f"model.stages.ar.{name}={value}: must be from {low:g} to {high:g}",
            )
        _one_of("ar.kv_cache_dtype", self.kv_cache_dtype, KV_DTYPES)


SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Fields of an AR stage that say how tokens are drawn; the others say how its engine is started."""


def _check_devices(name: str, devices: str | None) -> None:
    numbers = device_numbers(devices or "")
    require(
        devices is None or (bool(numbers) and len(set(numbers)) == len(numbers)),
        f"model.stages.{name}.devices={devices}: must be numbers of the cell's GPUs, counted from 0, as in 0 or 0+1",
    )


def _one_of(name: str, value: str | None, known: tuple[str, ...]) -> None:
    choose = f"choose from {', '.join(known)}{nearest(value or '', known)}"
    require(value is None or value in known, f"model.stages.{name}={value}: {choose}")


def _at_least_1(name: str, stage: "ArStage | DitStage", fields: Iterable[str]) -> None:
    for field_name in fields:
        value = getattr(stage, field_name)
        require(value is None or value >= 1, f"model.stages.{name}.{field_name}={value}: must be at least 1")


@dataclass
class Stages:
    """The stages of a model that vLLM-Omni runs as engines of their own, and what connects them."""

    ar: ArStage = field(default_factory=ArStage)
    dit: DitStage = field(default_factory=DitStage)
    connector: str | None = None  # what carries the AR stage's output to the DiT stage (CONNECTORS); None: the default

    def __post_init__(self) -> None:
        _one_of("connector", self.connector, CONNECTORS)

    def given(self) -> dict[str, Any]:
        """What is set, by stage: `{"ar": {"max_model_len": 8192}}`; {} where nothing is."""
        stages = {name: _given(getattr(self, name)) for name in ("ar", "dit")}
        found: dict[str, Any] = {name: values for name, values in stages.items() if values}
        return found | ({} if self.connector is None else {"connector": self.connector})

    def fields(self) -> dict[str, Any]:
        """The same in the names of the command line: `{"model.stages.ar.max_model_len": 8192}`."""
        found: dict[str, Any] = {}
        for name, value in self.given().items():
            whole = f"{PREFIX}{name}"
            found |= {f"{whole}.{key}": one for key, one in value.items()} if name != "connector" else {whole: value}
        return found


def _given(stage: "ArStage | DitStage") -> dict[str, Any]:
    return {name: value for name, value in vars(stage).items() if value is not None}
