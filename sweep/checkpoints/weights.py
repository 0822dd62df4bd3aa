"""Random tensors by rule: each follows from its own name and the seed, so shards and order do not matter.

Matrices get a standard deviation of gain / √(fan in), which keeps activations of order one at any width;
biases are zero and norms one unless a rule says otherwise. Knows nothing of files.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rules:
    """How the tensors of one part are drawn. Keys are parts of names; the last that matches wins."""

    gains: Mapping[str, float] = field(default_factory=dict)  # of matrices; default 1
    biases: Mapping[str, float] = field(default_factory=dict)  # standard deviation; default 0
    norms: Mapping[str, float] = field(default_factory=dict)  # constant of a norm's scale; default 1
    tables: tuple[str, ...] = ()  # embedding tables: the gain itself is the standard deviation
    reshape: Callable[[str, "torch.Tensor"], None] | None = None  # final change to a tensor, in place


@dataclass(frozen=True)
class Sampler:
    """Draws tensors on `device` ("cuda" or "cpu") and hands them over on the CPU in bfloat16."""

    seed: int
    device: str

    def draw(self, part: str, name: str, shape: Shape, rules: Rules) -> "torch.Tensor":
        """The tensor called `name` in `part`: always the same for the same arguments, seed and kind of device."""
        import torch

        # In float32 and rounded at the end: torch's bfloat16 numbers differ from one torch release to the next.
        tensor = torch.empty(shape, dtype=torch.float32, device=self.device)
        kind, spread = _rule(name, shape, rules)
        if kind == "constant":
            tensor.fill_(spread)
        else:
            digest = hashlib.sha256(f"{self.seed} {part} {name}".encode()).digest()
            generator = torch.Generator(device=self.device).manual_seed(int.from_bytes(digest[:6], "big"))
            tensor.normal_(0.0, spread, generator=generator)
        if rules.reshape is not None:
            rules.reshape(name, tensor)
        return tensor.to(torch.bfloat16).cpu()


def _rule(name: str, shape: Shape, rules: Rules) -> tuple[str, float]:
    """Whether a tensor is constant or normal, and its constant or standard deviation."""
    if name.endswith("bias"):
        spread = _last(rules.biases, name, 0.0)
        return ("normal" if spread else "constant"), spread
    if len(shape) < 2 or name.endswith("gamma"):
        return "constant", _last(rules.norms, name, 1.0)
    gain = _last(rules.gains, name, 1.0)
    fan_in = 1 if any(table in name for table in rules.tables) else math.prod(shape[1:])
    return "normal", gain / math.sqrt(fan_in)


def _last(rules: Mapping[str, float], name: str, default: float) -> float:
    return ([default] + [value for part, value in rules.items() if part in name])[-1]
