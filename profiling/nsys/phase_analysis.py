"""What the GPU did in each phase of each process: the numbers behind a verdict.

A phase is all NVTX ranges of one name in one domain of one process. Times are integer nanoseconds, summed over its
ranges. Knows nothing of files (`export`) or of how ranges map to operations (`projection`).
"""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from profiling.nsys.export import Export
from profiling.nsys.plausible import NOTHING, LeftOut
from profiling.nsys.projection import COMMUNICATES, COPIES, Projected, Thread, members_of, project, threads
from profiling.ranges import DOMAIN

OWN_DOMAINS = ("", DOMAIN)
"""NVTX domains that engines use: ours and the default one. Libraries (NCCL, CCCL) have their own domains."""

KINDS = {COMMUNICATES: "communication", COPIES: "copy"}


@dataclass(frozen=True)
class Kernel:
    """Operations of one name within a phase."""

    name: str
    kind: str  # "kernel", "communication" or "copy"
    count: int
    total_ns: int  # sum of durations


@dataclass(frozen=True)
class Phase:
    """All ranges of one name in one domain of one process. Values are sums over the ranges unless stated otherwise."""

    name: str
    process: int  # process id
    domain: str  # of NVTX; "" for the default one
    ranges: int
    instances: int  # ranges with GPU operations, as `nsys stats` counts them
    host_ns: int  # time of all ranges on the host
    projected_ns: int  # from the start of each range's first operation to the end of its last
    compute_ns: int  # union of kernels; projected = compute + exposed communication + exposed copies + both idle times
    communication_exposed_ns: int  # communication while no kernel runs
    copy_exposed_ns: int  # copies and fills while neither kernels nor communication run
    idle_for_host_ns: int  # nothing ran, and the next operation was not launched yet
    idle_otherwise_ns: int  # nothing ran although the next operation was launched: it waited for something else
    communication_ns: int  # sum of durations, hidden or not
    copy_ns: int  # sum of durations, hidden or not
    copied_bytes: int
    operations: int
    launches: int  # API calls; a CUDA graph is one
    late_launches: int  # launches that came after all earlier launched work was done
    queue_ns: int  # from the end of the launching call to the operation's start
    graph_launches: int
    kernels: tuple[Kernel, ...]  # by total time, longest first

    @property
    def busy_ns(self) -> int:
        """Union of the intervals of each range's operations."""
        return self.compute_ns + self.communication_exposed_ns + self.copy_exposed_ns

    @property
    def gap_ns(self) -> int:
        """Idle time between first and last operation."""
        return self.projected_ns - self.busy_ns

    @property
    def busy_share(self) -> float | None:
        """Share of the projected time."""
        return self.busy_ns / self.projected_ns if self.projected_ns else None

    @property
    def late_share(self) -> float | None:
        """Share of the launches."""
        return self.late_launches / self.launches if self.launches else None

    @property
    def mean_queue_ns(self) -> float | None:
        """Mean per launch."""
        return self.queue_ns / self.launches if self.launches else None

    @property
    def communication_hidden_share(self) -> float | None:
        """Share of the communication's time during which a kernel ran."""
        if not self.communication_ns:
            return None
        return max(0.0, 1 - self.communication_exposed_ns / self.communication_ns)


@dataclass(frozen=True)
class Analysis:
    """One recording."""

    trace: str
    schema: str
    gpus: tuple[str, ...]
    operations: int
    outside: int  # operations that lie in no range
    unknown: int  # operations whose launch was not recorded
    still_open: int  # ranges left out because recording ended before they did
    phases: tuple[Phase, ...]  # longest projected time first
    left_out: LeftOut = NOTHING

    def main(self) -> tuple[Phase, ...]:
        """Phases that used a GPU, without those of libraries; all phases if there is none."""
        return tuple(one for one in self.phases if one.domain in OWN_DOMAINS and one.projected_ns) or self.phases


@dataclass
class _Sums:
    """Sums of one phase while they are being collected."""

    ranges: int = 0
    instances: int = 0
    host_ns: int = 0
    columns: np.ndarray = field(default_factory=lambda: np.zeros(5, np.int64))
    counts: dict[str, int] = field(default_factory=dict)
    kernel_counts: np.ndarray | None = None
    kernel_ns: np.ndarray | None = None


COUNTED = ("communication", "copy", "size", "launches", "late_launches", "queue", "graph_launches")


def analyse(export: Export, trace: str) -> Analysis:
    """Every phase of the recording named `trace`. Without CUDA there are host times only."""
    found: dict[tuple[int, str, str], _Sums] = {}
    ranges = export.ranges
    names, numbers = _numbered(list(zip(ranges.domain, ranges.name, strict=True)))
    launching = {thread.thread: thread for thread in threads(export)} if export.has_cuda else {}
    inside = 0
    for number in np.unique(ranges.thread).tolist():
        mine = np.flatnonzero(ranges.thread == number)
        mine = mine[np.argsort(ranges.start[mine], kind="stable")]
        thread = launching.get(number)
        projected = project(thread, ranges.start[mine], ranges.end[mine]) if thread else None
        if projected is not None:
            first, last = _disjoint(projected.first, projected.last)
            inside += int((last - first).sum())
        process = number >> 24 & 0xFFFFFF
        for name in np.unique(numbers[mine]).tolist():
            chosen = np.flatnonzero(numbers[mine] == name)
            sums = found.setdefault((process, *names[name]), _Sums())
            sums.ranges += len(chosen)
            sums.host_ns += int((ranges.end[mine[chosen]] - ranges.start[mine[chosen]]).sum())
            if thread is not None and projected is not None:
                _add(sums, thread, projected, chosen, len(export.names))
    sorts = _sorts(launching.values(), len(export.names))
    phases = [_phase(*key, sums, export.names, sorts) for key, sums in found.items()]
    phases.sort(key=lambda phase: (-phase.projected_ns, -phase.host_ns, phase.name, phase.process))
    total = len(export.operations.start)
    return Analysis(
        trace=trace,
        schema=export.schema,
        gpus=export.gpus,
        operations=total,
        outside=total - inside,
        unknown=int((export.operations.call < 0).sum()),
        still_open=ranges.still_open,
        phases=tuple(phases),
        left_out=export.left_out,
    )


def _numbered(labels: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Distinct labels, and for each of `labels` its place among them."""
    places: dict[tuple[str, str], int] = {}
    numbers = np.fromiter((places.setdefault(label, len(places)) for label in labels), np.int64, len(labels))
    return list(places), numbers


def _disjoint(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slices in order of their ranges' start, trimmed so that no operation is in more than one."""
    taken = np.zeros_like(last)
    if len(last):
        np.maximum.accumulate(last[:-1], out=taken[1:])
    first = np.maximum(first, taken)
    return first, np.maximum(first, last)


def _add(sums: _Sums, thread: Thread, projected: Projected, chosen: np.ndarray, names: int) -> None:
    first, last = projected.first[chosen], projected.last[chosen]
    sums.instances += int((last > first).sum())
    sums.columns += projected.parts[chosen].sum(axis=0)
    for column in COUNTED:
        sums.counts[column] = sums.counts.get(column, 0) + int(getattr(projected, column)[chosen].sum())
    sums.counts["operations"] = sums.counts.get("operations", 0) + int((last - first).sum())
    members, _ = members_of(*_disjoint(first, last))
    if sums.kernel_counts is None or sums.kernel_ns is None:
        sums.kernel_counts, sums.kernel_ns = np.zeros(names, np.int64), np.zeros(names, np.int64)
    which = thread.name[members]
    sums.kernel_counts += np.bincount(which, minlength=names)
    # Weights are float64: exact up to 2^53 ns, 104 days of one kernel.
    lasting = (thread.end - thread.start)[members]
    sums.kernel_ns += np.bincount(which, weights=lasting, minlength=names).astype(np.int64)


def _sorts(all_threads: Iterable[Thread], names: int) -> np.ndarray:
    """Kind of the operations of each name: COMPUTES, COMMUNICATES or COPIES."""
    sorts = np.zeros(names, np.int64)
    for thread in all_threads:
        sorts[thread.name] = thread.sort
    return sorts


def _phase(process: int, domain: str, name: str, sums: _Sums, names: Sequence[str], sorts: np.ndarray) -> Phase:
    kernels: dict[tuple[str, str], tuple[int, int]] = {}
    if sums.kernel_counts is not None and sums.kernel_ns is not None:
        for which in np.flatnonzero(sums.kernel_counts).tolist():
            key = names[which], KINDS.get(int(sorts[which]), "kernel")
            count, total_ns = kernels.get(key, (0, 0))
            kernels[key] = count + int(sums.kernel_counts[which]), total_ns + int(sums.kernel_ns[which])
    listed = [Kernel(text, kind, count, total_ns) for (text, kind), (count, total_ns) in kernels.items()]
    columns = [int(value) for value in sums.columns]
    return Phase(
        name=name,
        process=process,
        domain=domain,
        ranges=sums.ranges,
        instances=sums.instances,
        host_ns=sums.host_ns,
        projected_ns=sum(columns),
        compute_ns=columns[0],
        communication_exposed_ns=columns[1],
        copy_exposed_ns=columns[2],
        idle_for_host_ns=columns[3],
        idle_otherwise_ns=columns[4],
        communication_ns=sums.counts.get("communication", 0),
        copy_ns=sums.counts.get("copy", 0),
        copied_bytes=sums.counts.get("size", 0),
        operations=sums.counts.get("operations", 0),
        launches=sums.counts.get("launches", 0),
        late_launches=sums.counts.get("late_launches", 0),
        queue_ns=sums.counts.get("queue", 0),
        graph_launches=sums.counts.get("graph_launches", 0),
        kernels=tuple(sorted(listed, key=operator.attrgetter("total_ns"), reverse=True)),
    )
