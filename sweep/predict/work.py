"""What a call of a network does, counted: operations, parameters, values moved, kernels. Pure.

Knows nothing of models, features or machines.
"""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Work:
    """Counts of one call, or of several added up. A product of (m, k) and (k, n) is 2·m·k·n operations."""

    linear: float = 0.0  # operations of products with weights
    attention: float = 0.0  # operations of QKᵀ and of its product with V, as if nothing were masked
    convolution: float = 0.0  # operations of convolutions
    weights: float = 0.0  # parameters read
    cache: float = 0.0  # values of a KV cache read
    moved: float = 0.0  # values that kernels without products read and write
    kernels: float = 0.0  # launched by the host

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.linear + other.linear,
            self.attention + other.attention,
            self.convolution + other.convolution,
            self.weights + other.weights,
            self.cache + other.cache,
            self.moved + other.moved,
            self.kernels + other.kernels,
        )

    def __mul__(self, calls: float) -> "Work":
        return self.by(calls=calls)

    def by(self, tokens: float = 1.0, width: float = 1.0, calls: float = 1.0) -> "Work":
        """The same over `tokens` times as many tokens, `width` times as wide weights, `calls` times as often.

        Fewer tokens leave the weights that are read and the kernels as they are; narrower weights leave the values
        that move and the kernels.
        """
        return Work(
            self.linear * tokens * width * calls,
            self.attention * tokens * width * calls,
            self.convolution * tokens * width * calls,
            self.weights * width * calls,
            self.cache * tokens * width * calls,
            self.moved * tokens * calls,
            self.kernels * calls,
        )

    @property
    def operations(self) -> float:
        """All operations, which torch's FLOP counter counts as well."""
        return self.linear + self.attention + self.convolution


NOTHING = Work()


_KEYS: dict[int, tuple[Any, tuple[Any, ...]]] = {}
"""By the identity of a shape, which is stored with it: the thousands of configurations of a sweep share a few."""


def key_of(shape: Any) -> tuple[Any, ...]:
    """A shape's values in the order of its fields, hashable: what is counted once can be looked up by it.

    A shape is never changed in place.
    """
    known = _KEYS.get(id(shape))
    if known is None:
        values = (getattr(shape, field.name) for field in fields(shape))
        known = shape, tuple(tuple(value) if isinstance(value, list) else value for value in values)
        _KEYS[id(shape)] = known
    return known[1]


def product(rows: float, inputs: float, outputs: float) -> Work:
    """A product of `rows` rows with weights of (inputs, outputs)."""
    return Work(linear=2.0 * rows * inputs * outputs, weights=float(inputs * outputs), kernels=1)


def attend(queries: float, keys: float, width: float) -> Work:
    """Attention of `queries` to `keys` tokens; `width` is that of all heads together."""
    return Work(attention=4.0 * queries * keys * width, kernels=1)
