"""The hand-over of KV caches between an AR stage and a DiT stage of vLLM-Omni (BAGEL): what was sent, what arrived.

The AR stage's process sends the cache of each request and of its guidance branches through a connector; the DiT's
process fetches them before it draws. Both write a line with the size and a checksum of each cache. Checksums are
integers, so they are the same on any device. torch is looked up, never imported.
"""

import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from profiling.vllm_plugin import pipeline_facts
from profiling.vllm_plugin.record_files import Place, append_line
from profiling.vllm_plugin.writer import writer

SENT, RECEIVED = "kvsent", "kvreceived"
"""First word of the files' names."""

NOTHING = "none"
"""Fingerprint of a cache that did not arrive."""

PERIOD = 8191
"""Weights of a checksum repeat after this many values; a prime, so that no head or block size divides it."""

_AS_INTEGERS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}
"""By the bytes of a value."""


def hook_manager(cls: Any, place: Place) -> list[str]:
    """Wrap how a process sends and receives the KV cache of one request; returns the wrapped names.

    Errors here are reported; the hand-over itself is never disturbed.
    """
    send, receive = cls._transfer_kv_cache, cls.receive_kv_cache_for_request
    names = [f"{cls.__name__}._transfer_kv_cache", f"{cls.__name__}.receive_kv_cache_for_request"]
    if hasattr(send, "observed_by_sweep"):
        return names

    @functools.wraps(send)
    def observed_send(self: Any, kv_data: Any, transfer_req_id: str, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = send(self, kv_data, transfer_req_id, *args, **kwargs)
        _record(place, SENT, transfer_req_id, start, getattr(kv_data, "layer_blocks", None), whole(self))
        return result

    @functools.wraps(receive)
    def observed_receive(self: Any, request_id: str, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = receive(self, request_id, *args, **kwargs)
        if self.config.need_recv_cache and request_id != DUMMY:
            data = result[0] or {}
            _record(place, RECEIVED, request_id, start, data.get("layer_blocks"), whole(self))
        return result

    observed_send.observed_by_sweep = True  # type: ignore[attr-defined]
    cls._transfer_kv_cache, cls.receive_kv_cache_for_request = observed_send, observed_receive
    return names


DUMMY = "dummy_req_id"
"""vLLM-Omni's name of its own warm-up request."""


def whole(manager: Any) -> bool:
    """Whether both stages hold whole caches: with tensor parallelism, each rank has different heads from the sender."""
    topology = manager.tp_topology
    return bool(topology.source_tp_size == topology.target_tp_size == 1)


def _record(
    place: Place, way: str, request: str, start: float, blocks: Mapping[str, Sequence[Any]] | None, comparable: bool
) -> None:
    """Queue the line to be written once the device has computed the checksums. Only rank 0 reports."""
    try:
        host_ms = (time.perf_counter() - start) * 1000.0
        if pipeline_facts.rank() != 0:
            return
        line: dict[str, Any] = {"request": request, "start_s": start, "host_ms": round(host_ms, 4)}
        path = place.folder / f"{way}-{os.getpid()}.jsonl"
        if blocks is None:
            append_line(path, {**line, "layers": 0, "tokens": 0, "bytes": 0, "fingerprint": NOTHING})
            return
        sizes = measured(blocks)
        tensors = [one for name in sorted(blocks) for one in blocks[name] if one is not None]
        device = tensors[0].device.type if tensors else "cpu"
        sums, ready = checksums(tensors), _over(device)

        def write() -> None:
            text = fingerprint(sizes["tokens"], sums) if comparable else ""
            append_line(path, {**line, **sizes, "fingerprint": text})

        writer(device).add(ready, write, place.report)
    except Exception:
        place.report()


def measured(blocks: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    """Layers, tokens and bytes of a cache: lists of one tensor per layer, each (tokens, heads, head width)."""
    tensors = [one for name in sorted(blocks) for one in blocks[name] if one is not None]
    return {
        "layers": max((len(layers) for layers in blocks.values()), default=0),
        "tokens": max((int(one.shape[0]) for one in tensors), default=0),
        "bytes": sum(int(one.numel()) * int(one.element_size()) for one in tensors),
    }


def checksums(tensors: Sequence[Any]) -> list[Any]:
    """A scalar tensor for each one: its bits as integers, weighted by place, summed. Does not wait for the device."""
    torch = sys.modules["torch"]
    weights: dict[tuple[int, Any], Any] = {}
    found = []
    for tensor in tensors:
        kind = getattr(torch, _AS_INTEGERS[tensor.element_size()])
        values = tensor.detach().contiguous().view(kind).flatten().to(torch.int64)
        key = (values.numel(), values.device)
        if key not in weights:
            weights[key] = torch.arange(values.numel(), device=values.device) % PERIOD + 1
        found.append(((values + 1) * weights[key]).sum())
    return found


def fingerprint(tokens: int, sums: Sequence[Any]) -> str:
    """`tokens:hash` of a cache; waits for its checksums."""
    text = json.dumps([int(one) for one in sums])
    return f"{tokens}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _over(device: str) -> Callable[[], bool]:
    """Whether the device has finished all work given to it so far."""
    if device != "cuda":
        return lambda: True
    event = sys.modules["torch"].cuda.Event()
    event.record()
    found: Callable[[], bool] = event.query
    return found
