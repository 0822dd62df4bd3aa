"""Projects NVTX ranges onto the GPU: which operations belong to a range, and what the GPU did from first to last.

An operation belongs to every range that is open on the launching thread at the time of the launch, in any NVTX
domain (as in `nsys stats -r nvtx_gpu_proj_sum`). From the start of a range's first operation to the end of its last,
the GPU computes, communicates, copies or is idle. These four add up to the projected time, because communication counts
only while nothing computes, and copies only while neither runs. The GPU is idle for the host if the next operation was
not launched yet; otherwise it waits for something else (an event, another stream).

Pure functions over sorted arrays. Each thread is swept once for all its ranges. Ranges whose operations overlap earlier
ones, or start in an order other than that of their launches, are sorted again, all at once.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from profiling.nsys.export import COPY, FILL, GRAPH, Export, distinct

COMMUNICATION = (
    *("nccl", "cross_device_reduce", "all_reduce", "allreduce", "all_gather", "allgather", "reduce_scatter"),
    *("nvshmem", "multimem"),
)
"""Parts of the names of kernels that talk to other GPUs: NCCL, vLLM's own all-reduce, symmetric memory."""

COMPUTES, COMMUNICATES, COPIES = range(3)

COLUMNS = ("compute", "communication", "copy", "idle_for_host", "idle_otherwise")
"""The parts of a range's projected time, in this order."""


@dataclass(frozen=True)
class Thread:
    """Operations that one thread launched, in order of launch. Arrays have one entry per operation."""

    thread: int
    start: np.ndarray  # ns
    end: np.ndarray  # ns
    sort: np.ndarray  # COMPUTES, COMMUNICATES, COPIES
    name: np.ndarray
    size: np.ndarray  # bytes
    call_start: np.ndarray  # ns
    call_end: np.ndarray  # ns
    first_of_call: np.ndarray  # whether no earlier operation has the same call; a CUDA graph has many
    graph: np.ndarray  # whether a CUDA graph's launch


@dataclass(frozen=True)
class Projected:
    """Ranges of one thread on the GPU. Arrays have one entry per range; ranges without operations have zeros."""

    first: np.ndarray  # operations first:last of the thread belong to it
    last: np.ndarray
    projected: np.ndarray  # ns
    parts: np.ndarray  # ranges × COLUMNS, ns
    launches: np.ndarray
    late_launches: np.ndarray  # launches that came after all earlier launched work was done
    queue: np.ndarray  # ns between the end of a launch's call and its first operation, summed
    graph_launches: np.ndarray
    communication: np.ndarray  # ns of communicating operations, hidden or not
    copy: np.ndarray  # ns of copies, hidden or not
    size: np.ndarray  # bytes copied or filled

    @property
    def busy(self) -> np.ndarray:
        """Union of the operations' intervals, ns."""
        return self.parts[:, :3].sum(axis=1)


def threads(export: Export) -> list[Thread]:
    """Every thread that launched operations."""
    operations, calls = export.operations, export.calls
    communicates = np.array([any(sign in name.lower() for sign in COMMUNICATION) for name in export.names] or [False])
    known = operations.call >= 0
    owner = np.where(known, calls.thread[operations.call] if len(calls.thread) else 0, -1)
    found = []
    for one in distinct(calls.thread).tolist():
        mine = np.flatnonzero(owner == one)
        if not len(mine):
            continue
        call = operations.call[mine]
        # By launch; what one launch started, by start.
        order = in_order(calls.start[call], operations.start[mine])
        mine, call = mine[order], call[order]
        kind, name = operations.kind[mine], operations.name[mine]
        sort = np.where((kind == COPY) | (kind == FILL), COPIES, np.where(communicates[name], COMMUNICATES, COMPUTES))
        found.append(
            Thread(
                thread=one,
                start=operations.start[mine],
                end=operations.end[mine],
                sort=sort,
                name=name,
                size=operations.size[mine],
                call_start=calls.start[call],
                call_end=calls.end[call],
                first_of_call=np.diff(call, prepend=-1) != 0,
                graph=calls.graph[call] | (kind == GRAPH),
            )
        )
    return found


def in_order(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Indices that sort by `first`, then by `then`; quick when they are sorted already."""
    if (np.diff(first) >= 0).all() and ((np.diff(first) > 0) | (np.diff(then) >= 0)).all():
        return np.arange(len(first))
    return np.lexsort((then, first))


def project(thread: Thread, start: np.ndarray, end: np.ndarray) -> Projected:
    """Ranges of this thread, given by their host times, on the GPU."""
    first = np.searchsorted(thread.call_start, start, "left")
    last = np.maximum(first, np.searchsorted(thread.call_start, end, "right"))
    before = _done_before(thread.end, thread.start[0])
    late = thread.call_end >= before
    swept = _sweep(thread.start, thread.end, thread.sort, thread.call_end, before)
    parts = np.stack([sums(column, first, last) for column in swept], axis=1)
    del swept
    there = np.flatnonzero(last > first)
    # The idle time before its first operation is not the range's.
    head = first[there]
    leading = np.maximum(0, thread.start[head] - before[head])
    parts[there, 3] -= leading * late[head]
    parts[there, 4] -= leading * ~late[head]
    # So far this holds only for ranges whose operations start in order of launch, after all earlier ones are done.
    backwards = np.zeros(len(thread.start), np.int64)
    backwards[1:] = thread.start[1:] < thread.start[:-1]
    overlaps = before[head] > thread.start[head]
    again = there[overlaps | (sums(backwards, np.minimum(first + 1, last), last)[there] > 0)]
    if len(again):
        parts[again] = _alone(thread, first[again], last[again])
    launched, lasting = thread.first_of_call, thread.end - thread.start
    return Projected(
        first,
        last,
        projected=parts.sum(axis=1),
        parts=parts,
        launches=sums(launched, first, last),
        late_launches=sums(launched & late, first, last),
        queue=sums(launched * np.maximum(0, thread.start - thread.call_end), first, last),
        graph_launches=sums(launched & thread.graph, first, last),
        communication=sums((thread.sort == COMMUNICATES) * lasting, first, last),
        copy=sums((thread.sort == COPIES) * lasting, first, last),
        size=sums(thread.size, first, last),
    )


def _done_before(end: np.ndarray, earliest: int) -> np.ndarray:
    """For each operation, when all earlier ones are done; `earliest` for the first."""
    done = np.empty_like(end)
    if len(end):
        done[0] = earliest
        np.maximum.accumulate(end[:-1], out=done[1:])
        np.maximum(done, earliest, out=done)
    return done


def _sweep(
    start: np.ndarray, end: np.ndarray, sort: np.ndarray, call_end: np.ndarray, before: np.ndarray
) -> list[np.ndarray]:
    """What each operation adds to every one of COLUMNS, in order of start. `before`: when all earlier ones are done."""
    total = np.maximum(0, end - np.maximum(start, before))
    idle = np.maximum(0, start - before)
    late = call_end >= before
    computed, communicated = total, np.zeros_like(total)
    if (sort != COMPUTES).any():
        computed = _union(start, end, sort == COMPUTES)
        communicated = _union(start, end, sort <= COMMUNICATES) - computed
    return [computed, communicated, total - computed - communicated, idle * late, idle * ~late]


def _union(start: np.ndarray, end: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """What each operation adds to the union of the chosen ones."""
    earliest = start[0]
    before = _done_before(np.where(chosen, end, earliest), earliest)
    return np.where(chosen, np.maximum(0, end - np.maximum(start, before)), 0)


def _alone(thread: Thread, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """COLUMNS of ranges that are each swept alone, with their operations sorted by start."""
    found = np.zeros((len(first), len(COLUMNS)), np.int64)
    for chunk in chunks(last - first):
        members, owner = members_of(first[chunk], last[chunk])
        members = members[np.lexsort((thread.start[members], owner))]
        start, end, call_end = thread.start[members], thread.end[members], thread.call_end[members]
        heads = np.flatnonzero(np.diff(owner, prepend=-1))
        # One after another in time, so that a single sweep serves all and no operation reaches into the next range.
        spans = np.maximum.reduceat(end, heads) - start[heads] + 1
        shift = (np.cumsum(spans) - spans - start[heads])[owner]
        start, end, call_end = start + shift, end + shift, call_end + shift
        columns = _sweep(start, end, thread.sort[members], call_end, _done_before(end, start[0]))
        for idle in columns[3:]:
            idle[heads] = 0
        found[chunk] = np.stack([np.add.reduceat(column, heads) for column in columns], axis=1)
    return found


def chunks(lengths: np.ndarray, size: int = 2_000_000) -> list[slice]:
    """Slices of the ranges that hold about `size` operations each, so that memory stays bounded."""
    edges = [0]
    total = np.cumsum(lengths)
    while edges[-1] < len(lengths):
        done = int(total[edges[-1] - 1]) if edges[-1] else 0
        edges.append(max(edges[-1] + 1, int(np.searchsorted(total, done + size, "right"))))
    return [slice(low, high) for low, high in pairwise(edges)]


def members_of(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices first:last of every range in a row, and the number of the range that each belongs to."""
    lengths = last - first
    owner = np.repeat(np.arange(len(first)), lengths)
    begins = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + (first - begins)[owner], owner


def sums(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sum of values first:last for every range; integers, exact."""
    totals = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=totals[1:])
    return totals[last] - totals[first]
