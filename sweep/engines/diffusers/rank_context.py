"""RankContext: what a feature module knows about the rank that it is applied on.

A feature module exposes `apply(pipe, context, arguments)`. It never starts processes, never reads
configuration, and learns here who its neighbours are and where in the denoising loop it is called.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from sweep.engines.diffusers.step_clock import StepClock

MESH_DIMS = ("cfg", "ring", "ulysses", "tp")
"""Dimensions of the mesh of ranks, outermost first; each has size 1 unless its feature is on."""

SHARING_DIMS = ("ring", "ulysses", "tp")
"""Dimensions whose ranks work on one DiT forward together, so they must take the same decisions."""


@dataclass
class RankContext:
    """One rank among `ranks`. `mesh` is None when there is only one."""

    rank: int
    ranks: int
    device: torch.device
    mesh: DeviceMesh | None  # dims MESH_DIMS
    clock: StepClock
    cfg_active: Callable[[], bool]  # whether the running request calls the DiT twice a step
    counts: Counter[str] = field(default_factory=Counter)  # what features counted since the request began, by name

    def size(self, dim: str) -> int:
        """Ranks along `dim` of the mesh; 1 without a mesh."""
        return 1 if self.mesh is None else self.mesh[dim].size()

    def agree(self, values: torch.Tensor) -> torch.Tensor:
        """Sum `values` over all ranks that share this rank's DiT forward: each of them gets the same numbers."""
        if self.mesh is None:
            return values
        for dim in SHARING_DIMS:
            if self.size(dim) > 1:
                values = values.clone()
                torch.distributed.all_reduce(values, group=self.mesh.get_group(dim))
        return values


def mesh_shape(features: Mapping[str, Mapping[str, Any]]) -> tuple[int, int, int, int]:
    """Size of each of MESH_DIMS from the features' arguments (`degree`; cfg_parallel always splits in two)."""
    cfg = 2 if "cfg_parallel" in features else 1
    ring, ulysses, tp = (int(features[dim].get("degree", 2)) if dim in features else 1 for dim in SHARING_DIMS)
    return cfg, ring, ulysses, tp
