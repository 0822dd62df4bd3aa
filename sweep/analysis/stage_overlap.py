"""Whether two stages work at once: the AR stage of one request while the DiT draws another. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from profiling.phases import PhaseRecord
from profiling.telemetry.samples import joined

AR = ("ar_prefill", "ar_decode")
DIT = ("text_encode", "image_encode", "denoise_step", "vae_decode")

Spans = list[tuple[float, float]]
"""Beginning and end in seconds; in order, without overlap."""


@dataclass(frozen=True)
class Busy:
    """Seconds in which each stage computed, and both did."""

    ar_s: float
    dit_s: float
    both_s: float


def busy(phases: Iterable[PhaseRecord]) -> Busy | None:
    """From rank 0's phases on one clock; None unless there are two stages. A phase lasts as long as
    on the host or the GPU, whichever is longer, because the host may continue while the GPU computes."""
    ar: Spans = []
    dit: Spans = []
    for phase in phases:
        if phase.rank == 0 and phase.phase in AR + DIT:
            end_s = phase.start_s + max(phase.host_ms, phase.gpu_ms or 0.0) / 1e3
            (ar if phase.phase in AR else dit).append((phase.start_s, end_s))
    if not ar or not dit:
        return None
    first, second = joined(ar), joined(dit)
    return Busy(_seconds(first), _seconds(second), _seconds(common(first, second)))


def common(first: Spans, second: Spans) -> Spans:
    """What lies in both."""
    found: Spans = []
    here = there = 0
    while here < len(first) and there < len(second):
        begin, end = max(first[here][0], second[there][0]), min(first[here][1], second[there][1])
        if begin < end:
            found.append((begin, end))
        if first[here][1] < second[there][1]:
            here += 1
        else:
            there += 1
    return found


def _seconds(spans: Spans) -> float:
    return sum(end - begin for begin, end in spans)
