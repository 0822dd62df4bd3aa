"""A point with what really ran: the depth of its checkpoint, and what ranks report of blocks and compiling. Pure."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweep.config.model import Model
from sweep.predict import dit, shapes
from sweep.predict.effects import Effects
from sweep.predict.point import Point
from sweep.refusals import require

SAME_SIZE = 0.02
"""Largest relative difference between counted and held parameters: biases and norms are not counted."""

LOADED, PEAK = "memory_loaded_bytes", "memory_peak_{phase}_bytes"
"""Counts of a rank: bytes after loading, and the most in a phase."""

AR_RESERVED = "ar_memory_reserved_bytes"
"""Likewise what the AR stage's process holds for itself, in vLLM-Omni."""


@dataclass(frozen=True)
class Executed:
    """What all ranks of a cell did."""

    blocks_run: int = 0
    blocks_skipped: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)  # of the first rank
    counts: tuple[Mapping[str, int], ...] = ()  # of each rank
    dit_parameters: int = 0  # that the first rank held; 0: unknown

    @property
    def skip(self) -> float | None:
        """Share of the blocks that were skipped; None where they were not counted."""
        whole = self.blocks_run + self.blocks_skipped
        return self.blocks_skipped / whole if self.blocks_run else None

    @property
    def parts_bytes(self) -> dict[str, float]:
        """Memory of the fullest rank by component, as the workers recorded it; {} where they did not.

        Weights are everything that was loaded. A phase counts what its fullest moment adds to them.
        """
        known = [one for one in self.counts if one.get(LOADED)]
        if not known:
            return {}
        fullest = max(known, key=lambda one: max(value for name, value in one.items() if name.startswith("memory_")))
        found = {"weights": float(fullest[LOADED])}
        for part, phases in _PHASES.items():
            peak = max((fullest.get(PEAK.format(phase=phase), 0) for phase in phases), default=0)
            if peak:
                found[part] = max(0.0, float(peak - fullest[LOADED]))
        reserved = max((one.get(AR_RESERVED, 0) for one in self.counts), default=0)
        return found | ({"ar_reserved": float(reserved)} if reserved else {})


_PHASES = {"dit_activations": ("denoise_step", "dit_forward"), "vae_activations": ("vae_decode",)}


def model_that_ran(model: Model, random: Mapping[str, Any], stored: Mapping[str, Any], did: Executed) -> Model:
    """The model with the shapes of the checkpoint that ran.

    `stored` are those that were read when the sweep ran, `random` is what random weights record of themselves. Without
    either, the number of blocks comes from the ranks, and published weights with fewer have 4 layers in other parts,
    as random weights were first built. Raises ConfigError.
    """
    if stored:
        return shapes.with_shapes(model, stored)
    if random.get("layers"):
        return shapes.at_depth(model, random["layers"], random.get("parameters"))
    blocks = int(did.settings.get("dit_blocks") or 0)
    if not (model.repo and model.dit is not None and blocks and blocks != model.dit.layers):
        return model
    return shapes.at_depth(model, {"dit": blocks, "text": 4} | ({"ar": 4} if model.ar is not None else {}))


def check_size(model: Model, effects: Effects, did: Executed) -> None:
    """Raises ConfigError where a rank's number of DiT parameters differs from the shape's: it is another model."""
    divided = effects.width > 1 or effects.stages > 1 or effects.gathers
    if not did.dit_parameters or model.dit is None or divided:
        return
    held, counted = did.dit_parameters, dit.parameters(model.dit, model.patch)
    require(abs(held / counted - 1) < SAME_SIZE, f"{model.name}: {held:,} DiT parameters, its shape has {counted:,.0f}")


def with_compiling(point: Point, did: Executed) -> Point:
    """The point with blocks compiled or not, as the ranks report."""
    compiled = did.settings.get("compiled")
    if compiled is None:
        return point
    return dataclasses.replace(point, effects=dataclasses.replace(point.effects, compiled=compiled != "none"))


def with_skips(point: Point, did: Executed) -> Point:
    """The point with the share of blocks that were skipped."""
    if did.skip is None or did.skip == point.effects.skip:
        return point
    return dataclasses.replace(point, effects=dataclasses.replace(point.effects, skip=did.skip))
