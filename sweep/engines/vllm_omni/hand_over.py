"""Whether what the AR stage sent is what the DiT stage received, from the lines that both wrote. Pure.

GLM-Image sends the ids of its image tokens; BAGEL sends the KV cache of each request and of its guidance branches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from profiling.vllm_plugin import record_files
from profiling.vllm_plugin.record_files import DitRecord, KvCache, Transfer

TOKENS, KV = "tokens", "kv"
"""What is handed over, and what names of settings begin with."""

ABSENT = "none"
"""Fingerprint of what did not arrive."""


@dataclass(frozen=True)
class HandOver:
    """Fingerprints on both sides, as `count:hash` by request, and what else is known about the transfer."""

    what: str
    sent: Mapping[str, str]
    received: Mapping[str, str]
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        """Both sides, in the order of the batch's requests."""
        ordered = sorted({*self.sent, *self.received}, key=_place)
        if not ordered:
            return {}
        return {
            f"{self.what}_sent": ";".join(self.sent.get(request, ABSENT) for request in ordered),
            f"{self.what}_received": ";".join(self.received.get(request, ABSENT) for request in ordered),
        }

    @property
    def counts(self) -> dict[str, int]:
        """Number of hand-overs, and of those that arrived different from what was sent; {} without any."""
        there = {*self.sent, *self.received}
        if not there:
            return {}
        wrong = sum(self.sent.get(request, ABSENT) != self.received.get(request, ABSENT) for request in there)
        return {"hand_overs": len(there), "hand_overs_broken": wrong, **self.sizes}


def of(records: Sequence[record_files.Record]) -> HandOver:
    """What was handed over in a batch: KV caches where there are any, else image tokens."""
    caches = [record for record in records if isinstance(record, KvCache)]
    return _of_caches(caches) if caches else _of_tokens(records)


def _of_caches(caches: Sequence[KvCache]) -> HandOver:
    sent, received = ([one for one in caches if one.sent is way] for way in (True, False))
    return HandOver(
        KV,
        {one.request: one.fingerprint for one in sent},
        {one.request: one.fingerprint for one in received},
        {
            "kv_tokens": sum(one.tokens for one in received),
            "kv_layers": max((one.layers for one in received), default=0),
            "kv_bytes": sum(one.bytes for one in received),
            "kv_bytes_sent": sum(one.bytes for one in sent),
            "kv_send_us": round(1000.0 * sum(one.host_ms for one in sent)),
            "kv_receive_us": round(1000.0 * sum(one.host_ms for one in received)),
        },
    )


def _of_tokens(records: Sequence[record_files.Record]) -> HandOver:
    sent = {one.request: one.tokens_sent for one in records if isinstance(one, Transfer) and one.tokens_sent}
    received: dict[str, str] = {}
    for record in records:
        if isinstance(record, DitRecord) and record.evidence.rank == 0:
            tokens = record.evidence.settings.get("tokens_received", "").split(";")
            received |= dict(zip(record.requests, tokens, strict=False))
    return HandOver(TOKENS, sent, {request: received.get(request, ABSENT) for request in sent})


def _place(request: str) -> tuple[int, str]:
    """Sorts requests as their batch has them: vLLM-Omni calls them `0_…`, `1_…` and so on."""
    number = request.partition("_")[0]
    return (int(number) if number.isdigit() else 0, request)
