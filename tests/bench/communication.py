"""`python -m tests.bench.communication CELL…`: what torch.profiler's traces of a cell say of communication, as JSON.

Of each rank: GPU time inside the ranges of denoising, and how much of it is covered by communication kernels, by other
kernels, and by both. A communication kernel also runs while it waits for other ranks. So `least_ms` takes of every
kernel, in order, the rank in which it was shortest, the one that came last: what communication takes at most without
waiting.
"""

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

COMMUNICATION = re.compile(r"nccl|cross_device_reduce|all_reduce|multimem|symm_mem", re.IGNORECASE)
"""Kernels of NCCL, and those of vLLM and of torch that reduce over peers' memory themselves."""

PHASES = ("denoise_step", "dit_forward")
"""torch draws a kernel's range on the GPU for the innermost phase alone, so a step is the ranges of both."""

Span = tuple[float, float]


def union(spans: Iterable[Span]) -> list[Span]:
    """Spans without overlaps, in order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged


def length(spans: Iterable[Span]) -> float:
    """Their total."""
    return sum(end - start for start, end in spans)


def common(one: Sequence[Span], other: Sequence[Span]) -> list[Span]:
    """Their intersection; each is without overlaps."""
    found, position = [], 0
    for start, end in one:
        while position < len(other) and other[position][1] <= start:
            position += 1
        at = position
        while at < len(other) and other[at][0] < end:
            found.append((max(start, other[at][0]), min(end, other[at][1])))
            at += 1
    return found


def shares(events: Iterable[dict[str, Any]], phases: Sequence[str] = PHASES) -> dict[str, Any]:
    """Milliseconds of one rank's trace, inside the GPU's ranges of these phases. Raises ValueError without any."""
    ranges: list[Span] = []
    talking: list[Span] = []
    working: list[Span] = []
    names: dict[str, float] = {}
    for event in events:
        if event.get("ph") != "X":
            continue
        span = (float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        if event.get("cat") == "gpu_user_annotation" and event.get("name") in phases:
            ranges.append(span)
        elif event.get("cat") == "kernel":
            if COMMUNICATION.search(event["name"]):
                talking.append(span)
                names[event["name"]] = names.get(event["name"], 0.0) + (span[1] - span[0]) / 1e3
            else:
                working.append(span)
    whole = union(ranges)
    if not whole:
        raise ValueError(f"the trace has no GPU range called {' or '.join(phases)}")
    talk, work = common(union(talking), whole), common(union(working), whole)
    both = common(talk, work)
    return {
        "ranges": len(ranges),
        "phase_ms": length(whole) / 1e3,
        "communication_ms": length(talk) / 1e3,
        "communication_exposed_ms": (length(talk) - length(both)) / 1e3,
        "other_kernels_ms": length(work) / 1e3,
        "idle_ms": (length(whole) - length(talk) - length(work) + length(both)) / 1e3,
        "communication_kernels": {name[:80]: round(ms, 3) for name, ms in sorted(names.items(), key=lambda x: -x[1])},
    }


def communicating(events: Iterable[dict[str, Any]]) -> list[float]:
    """Milliseconds of each communication kernel of a rank, in order."""
    kernels = (event for event in events if event.get("ph") == "X" and event.get("cat") == "kernel")
    found = [(event["ts"], event["dur"] / 1e3) for event in kernels if COMMUNICATION.search(event["name"])]
    return [took for _, took in sorted(found)]


def least(ranks: Sequence[Sequence[float]]) -> float | None:
    """Sum over all kernels of the shortest among ranks; None where ranks ran different numbers of them."""
    if len({len(rank) for rank in ranks}) != 1:
        return None
    return sum(min(together) for together in zip(*ranks, strict=True))


def read(path: Path) -> list[dict[str, Any]]:
    """Events of a Chrome trace, packed or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        found: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return found


def main() -> None:
    """Print the cells' shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="+", type=Path, help="folders of cells measured with profile=torch")
    arguments = parser.parse_args()
    told = {}
    for cell in arguments.cells:
        traces = {
            trace.name.removeprefix("trace-").removesuffix(".json.gz"): read(trace)
            for trace in sorted(cell.glob("trace-rank*.json.gz"))
        }
        told[cell.name] = {
            "least_ms": least([communicating(events) for events in traces.values()]),
            "ranks": {rank: shares(events) for rank, events in traces.items()},
        }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
