"""What each phase launched, in order: every operation belongs to the innermost phase that was open at its launch.

So the operations of all phases add up to what was recorded inside phases, each counted once.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from profiling.nsys.export import Export
from profiling.nsys.projection import Thread, project, threads

Sequence = tuple[str, ...]  # names of operations, in order of launch


@dataclass
class Launched:
    """One phase over all processes. `sequences`: how many ranges launched each sequence, without inner phases."""

    ranges: int = 0
    processes: set[int] = field(default_factory=set)
    host_ns: int = 0
    projected_ns: int = 0
    parts_ns: np.ndarray = field(default_factory=lambda: np.zeros(5, np.int64))  # see projection.COLUMNS
    counts: Counter[str] = field(default_factory=Counter)  # operations by name
    total_ns: Counter[str] = field(default_factory=Counter)  # durations by name
    sequences: Counter[Sequence] = field(default_factory=Counter)


def launched(export: Export, phases: Collection[str]) -> dict[str, Launched]:
    """Every one of `phases` that the recording has."""
    found: dict[str, Launched] = {}
    ranges = export.ranges
    chosen = np.array([name in phases for name in ranges.name], bool)
    launching = {thread.thread: thread for thread in threads(export)}
    for number in np.unique(ranges.thread[chosen]).tolist():
        # Outer ranges first, so that inner ranges then claim their own operations.
        mine = np.flatnonzero(chosen & (ranges.thread == number))
        mine = mine[np.lexsort((-ranges.end[mine], ranges.start[mine]))]
        for which in mine.tolist():
            phase = found.setdefault(ranges.name[which], Launched())
            phase.ranges += 1
            phase.processes.add(number >> 24 & 0xFFFFFF)
            phase.host_ns += int(ranges.end[which] - ranges.start[which])
        if number in launching:
            _add(found, launching[number], export, mine)
    return found


def _add(found: dict[str, Launched], thread: Thread, export: Export, mine: np.ndarray) -> None:
    projected = project(thread, export.ranges.start[mine], export.ranges.end[mine])
    owner = np.full(len(thread.start), -1, np.int64)
    for place, (first, last) in enumerate(zip(projected.first.tolist(), projected.last.tolist(), strict=True)):
        owner[first:last] = place
    order = np.argsort(owner, kind="stable")  # by range, then by launch
    bounds = np.searchsorted(owner[order], np.arange(len(mine) + 1))
    lasting = thread.end - thread.start
    for place, which in enumerate(mine.tolist()):
        phase = found[export.ranges.name[which]]
        phase.projected_ns += int(projected.projected[place])
        phase.parts_ns += projected.parts[place]
        own = order[bounds[place] : bounds[place + 1]]
        names = [export.names[number] for number in thread.name[own].tolist()]
        phase.sequences[tuple(names)] += 1
        phase.counts.update(names)
        for name, ns in zip(names, lasting[own].tolist(), strict=True):
            phase.total_ns[name] += ns


@dataclass(frozen=True)
class Repeat:
    """A run of launches that repeats one group."""

    group: int  # launches
    times: int


def repeat_of(sequence: Sequence, alike: float = 0.95) -> Repeat | None:
    """The shortest group that the run repeats, or None. At least a share `alike` must recur one group later."""
    numbers = np.unique(np.array(sequence, dtype=object).astype(str), return_inverse=True)[1]
    for group in range(2, len(numbers) // 2 + 1):
        if (numbers[group:] == numbers[:-group]).mean() >= alike:
            return Repeat(group, round(len(numbers) / group))
    return None
