"""How much of an AR stage's memory its requests used, next to what vLLM reserved for it at start-up.

vLLM takes its share of a GPU at once and divides what is left after loading into blocks of a KV cache. This counts the
blocks that requests held, from what the scheduler sends to the runner. No torch.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from profiling.vllm_plugin.memory import Allocated

NULL = 0
"""Placeholder for a block whose keys a layer no longer needs."""


class Blocks:
    """The blocks that running requests hold; a shared block counts once."""

    def __init__(self) -> None:
        self._held: dict[str, set[int]] = {}
        self._peak = 0

    def schedule(self, scheduled: Any) -> None:
        """A step begins, as vLLM's SchedulerOutput describes it. Cheap where no request got a block."""
        new, cached = scheduled.scheduled_new_reqs, scheduled.scheduled_cached_reqs
        added = getattr(cached, "new_block_ids", ())
        if not new and not any(added):
            return
        for name, blocks in zip(cached.req_ids, added, strict=False):
            if blocks:
                before = set() if name in cached.resumed_req_ids else self._held.get(name, set())
                self._held[name] = before | _numbers(blocks)
        for request in new:
            self._held[request.req_id] = _numbers(getattr(request, "block_ids", ()))
        running = [*cached.req_ids, *(request.req_id for request in new)]
        self._held = {name: self._held.get(name, set()) for name in running}
        self._peak = max(self._peak, self._now())

    def take(self) -> int:
        """The most blocks held at once since the last call."""
        peak, self._peak = self._peak, self._now()
        return peak

    def _now(self) -> int:
        return len(set().union(*self._held.values()))


def _numbers(groups: Iterable[Iterable[int]]) -> set[int]:
    """The blocks of all groups of layers, which take them from one pool."""
    return {block for group in groups for block in group if block != NULL}


def counts(runner: Any, blocks: int, allocated: Allocated | None) -> dict[str, int]:
    """Bytes that a runner holds, and bytes that its requests used; {} if the runner does not report them.

    `blocks` is the most that requests held, `allocated` what the allocator reports, if one counts. The cache is
    allocated as a whole, so unused blocks are subtracted from the allocator's peak.
    """
    cache = getattr(runner, "kv_cache_config", None)
    tensors: Sequence[Any] = getattr(cache, "kv_cache_tensors", None) or ()
    number = getattr(cache, "num_blocks", 0)
    reserved = sum(tensor.size for tensor in tensors)
    if not number or not reserved:
        return {}
    used = reserved // number * blocks
    found = {"kv_blocks": number, "kv_blocks_used": blocks, "kv_reserved_bytes": reserved, "kv_used_bytes": used}
    weights = getattr(runner, "model_memory_usage", None)
    if weights:
        found["weights_bytes"] = int(weights)
    if allocated is not None:
        found["memory_reserved_bytes"] = allocated.reserved_peak
        found["memory_used_bytes"] = max(0, allocated.peak - reserved + used)
    return found
