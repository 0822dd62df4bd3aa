"""Seconds that an engine takes to start: assumed, from the starts in docs/results and of the embedded models. Pure.

They differ by a factor of two from start to start, with kernels compiled before, and with the host.
"""

from dataclasses import dataclass

from sweep.predict.point import Point


@dataclass(frozen=True)
class Start:
    """An engine that is forked from one which has imported everything (engine.fork=true)."""

    first_s: float  # the first of a sweep, which waits for the imports that all share
    later_s: float


IMPORTS_S = 25.0
"""vLLM-Omni's and diffusers' imports on a GPU host: 20 to 29 s (docs/results, Engine starts)."""

COMPILED = Start(22.0 + IMPORTS_S, 15.0)
"""vLLM-Omni, blocks compiled: 16 to 27 s the first time on a host; medians of batch-2-gpus, single-1-gpu, control-1-gpu
and matrix-4-gpus are 10 to 18 s."""

EAGER = Start(15.0 + IMPORTS_S, 5.0)
"""vLLM-Omni without compilation: medians of matrix-2-gpus, single-eager-1-gpu and pairs-4-gpus are 5 to 7 s."""

TWO_STAGES = Start(41.0 + IMPORTS_S, 16.0)
"""vLLM-Omni with an AR stage: 40 and 42 s the first time, then 11 to 22 s (glm-*-gpus)."""

NATIVE = Start(18.0 + IMPORTS_S, 18.0)
"""diffusers on a GPU: one start of 17.8 s (control-1-gpu)."""

ON_CPU = Start(4.0, 0.3)
ON_CPU_RANKS = Start(6.0, 2.3)
"""Embedded models on two shared cores, 2026-11-29: one process, and two that find each other."""


def start_of(point: Point) -> Start:
    """How long the engine of a configuration takes to start."""
    if point.device == "cpu":
        return ON_CPU if point.ranks == 1 else ON_CPU_RANKS
    if point.engine != "vllm_omni":
        return NATIVE
    if point.model.ar is not None:
        return TWO_STAGES
    return COMPILED if point.compiled else EAGER
