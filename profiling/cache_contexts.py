"""What cache-dit did in a request, read from its contexts: which steps it answered, under which mask, and how.

Serves our own engine and our plugin in vLLM-Omni's workers. Only reads, except `count_extrapolations`, which wraps one
method of a class. Imports nothing from cache-dit; callers pass in its classes.
"""

from collections.abc import Callable, Iterable
from typing import Any

Context = Any
"""A cache_dit CachedContext of one list of blocks. It covers both guidance branches if cache-dit separates them."""


def contexts(transformer: Any) -> tuple[Context, ...]:
    """The contexts of a transformer that cache-dit patched; () for any other."""
    manager = getattr(transformer, "_context_manager", None)
    return tuple(getattr(manager, "_cached_context_manager", {}).values())


def cached_steps(found: Iterable[Context]) -> int:
    """Forwards answered from the cache, over both guidance branches."""
    return sum(len(one.cached_steps) + len(one.cfg_cached_steps) for one in found)


def mask_of(context: Context) -> str:
    """Its steps computation mask as `11110101`, 1 for a step that computes; "" without one."""
    return "".join(str(step) for step in context.cache_config.steps_computation_mask or ())


def counts(found: Iterable[Context]) -> dict[str, int]:
    """`masked_steps`: forwards that were answered from the cache while a mask was in force."""
    return {"masked_steps": cached_steps([one for one in found if mask_of(one)])}


def settings(found: Iterable[Context]) -> dict[str, str]:
    """`cache_mask`: the masks in force; "none" without a mask."""
    return {"cache_mask": "+".join(sorted({mask for one in found if (mask := mask_of(one))})) or "none"}


def count_extrapolations(state: Any, counted: Callable[[], None]) -> None:
    """Call `counted` whenever a TaylorSeerState extrapolates with a derivative; without one it repeats a value.

    Replaces a method of the class `state`, because each request makes new objects of it.
    """
    plain = state.approximate
    if hasattr(plain, "observed_by_sweep"):
        plain.observed_by_sweep.append(counted)
        return
    listening = [counted]

    def approximate(self: Any, *args: Any, **kwargs: Any) -> Any:
        derivatives = self.state["dY_current"][1:]
        if derivatives and derivatives[0] is not None:
            for one in listening:
                one()
        return plain(self, *args, **kwargs)

    approximate.observed_by_sweep = listening  # type: ignore[attr-defined]
    state.approximate = approximate
