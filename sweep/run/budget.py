"""`budget=20min`: which groups come first, and which are started in the time that is left.

The most informative comes first: baselines, without which nothing can be judged; A/A runs, which measure noise;
single features; pairs; and so on; further engine starts last. Of features of one size, those come first that may gain
most: predicted speed-up × (1 + how far off it may be). One that cannot be predicted may gain anything.

A group is started if what it will take fits into what is left. What it will take was measured before, or is predicted,
corrected by how long this run's cells took against what was expected of them; else it is what its baseline took.
Decisions are pure; `Budget` has the clock, and what is known so far.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sweep.plan.cells import AA, BASELINE, Cell
from sweep.plan.plans import Group, Plan, build_plan
from sweep.predict.times import Times, makespan
from sweep.report.words import cells_words, duration_words, listed
from sweep.results.records import DONE, RunResult

NAMED = 4
"""The most cells that the last sentence names."""

Read = Callable[[Sequence[Cell]], Mapping[str, RunResult | None]]


def ordered(plan: Plan, worth: Callable[[Cell], float]) -> Plan:
    """The same groups, the most informative first, with numbers in that order."""
    groups = sorted(plan.groups, key=lambda group: _order([plan.cell(key) for key in group.cells], worth))
    return Plan(plan.cells, tuple(dataclasses.replace(group, number=place) for place, group in enumerate(groups)))


def _order(cells: Sequence[Cell], worth: Callable[[Cell], float]) -> tuple[int, int, float]:
    """Sort key of a group; those that share it stay as planned."""
    kind = min(0 if cell.role == BASELINE else 1 if cell.role == AA else 1 + len(cell.features) for cell in cells)
    start = min(0 if cell.role == AA else cell.repeat for cell in cells)
    return start, kind, -max(map(worth, cells)) if kind > 1 else 0.0


@dataclass(frozen=True)
class Took:
    """What a cell of this run took, in seconds."""

    cell_s: float  # warm-up and measurement, the interleaved baseline's included
    load_s: float | None  # of its engine

    @staticmethod
    def of(result: RunResult) -> "Took | None":
        """None for a cell that failed: it says nothing about others."""
        if result.state != DONE or not result.stage_s:
            return None
        return Took(sum(result.stage_s.values()), result.load_s)


@dataclass(frozen=True)
class Known:
    """Known times of a plan at some moment of the run."""

    plan: Plan
    times: Times
    took: Mapping[str, Took]  # by key, of cells of this run
    done: frozenset[str]  # keys of cells that need not run
    started: bool = False  # an engine of this run has started, so that what all import is there

    @property
    def factor(self) -> float:
        """How long cells of this run took, per expected second."""
        both = [(one.cell_s, expected) for key, one in self.took.items() if (expected := self.times.cell_s(key))]
        return sum(took for took, _ in both) / sum(expected for _, expected in both) if both else 1.0

    def group_s(self, group: Group) -> float:
        """How long a group will take; an unknown time counts as none, so that the group is tried."""
        missing = [self.plan.cell(key) for key in group.cells if key not in self.done]
        return (self._start_s(missing[0]) + sum(map(self._cell_s, missing))) if missing else 0.0

    def _start_s(self, cell: Cell) -> float:
        keys = [cell.engine_key]
        if cell.origin in self.plan.by_key:
            keys.append(self.plan.cell(cell.origin).engine_key)
        for key in keys:
            if (seconds := self.times.start_s(key, first=not self.started)) is not None:
                return seconds
        measured = [one.load_s for one in self.took.values() if one.load_s is not None]
        return statistics.mean(measured) if measured else 0.0

    def _cell_s(self, cell: Cell) -> float:
        expected = self.times.cell_s(cell.key)
        if expected is not None:
            return expected * self.factor
        for key in (cell.origin, cell.baseline_key):
            if (alone := self._alone_s(key)) is not None:
                return alone * _turns(cell)
        others = [alone for key in self.took if (alone := self._alone_s(key)) is not None]
        return statistics.mean(others) * _turns(cell) if others else 0.0

    def _alone_s(self, key: str) -> float | None:
        """How long a cell takes without its interleaved baseline."""
        cell, expected = self.plan.by_key.get(key), self.times.cell_s(key)
        if cell is None:
            return None
        if key in self.took:
            return self.took[key].cell_s / _turns(cell)
        return None if expected is None else expected * self.factor / _turns(cell)


def _turns(cell: Cell) -> int:
    """An interleaved baseline generates every batch as well."""
    return 2 if cell.interleaved else 1


def fitting(known: Known, waiting: Sequence[int], left_s: float, jobs: int, devices: int) -> list[int]:
    """The first of the groups that wait, at most `jobs`, that end together within `left_s`; [] when none does."""
    chosen: list[int] = []
    takes: list[tuple[float, int]] = []
    for number in waiting[:jobs]:
        group = known.plan.groups[number]
        takes.append((known.group_s(group), group.gpus))
        if left_s <= 0 or makespan(takes, jobs, devices) > left_s:
            break
        chosen.append(number)
    return chosen


@dataclass
class Budget:
    """The time that a run of a sweep may take, and what it left out for lack of it."""

    text: str  # as it was typed
    seconds: float
    times: Times
    jobs: int = 1  # groups that the launcher runs at once
    devices: int = 1
    began_s: float = field(default_factory=time.perf_counter)
    started: bool = False
    took: dict[str, Took] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # key → why
    starts_left_out: int = 0  # cells that a proposer would have measured again, or added
    missing_s: float = 0.0  # what all that would have taken, as far as known

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.perf_counter() - self.began_s)

    @property
    def used_up(self) -> bool:
        """Whether something was left out."""
        return bool(self.left_out or self.starts_left_out)

    def ordered(self, plan: Plan) -> Plan:
        """The plan in the order of this budget."""
        return ordered(plan, self.times.worth)

    def waves(
        self, plan: Plan, todo: Sequence[int], alone: Sequence[int], kept: frozenset[str], read: Read
    ) -> Iterator[list[int]]:
        """Groups to launch, again and again while the next ones fit. Groups in `alone` are launched on their own.

        Cells in `kept` need not run. `read` gives the results of cells that were launched.
        """
        waiting = list(todo)
        while waiting:
            known = Known(plan, self.times, self.took, kept, self.started)
            together = 1 if waiting[0] in alone else _until(waiting, alone)
            left_s = self.left_s
            wave = fitting(known, waiting[:together], left_s, self.jobs, self.devices)
            if not wave:
                self._end(known, waiting, left_s)
                return
            self.started = True
            yield wave
            waiting = waiting[len(wave) :]
            ran = [key for number in wave for key in plan.groups[number].cells if key not in kept]
            results = read([plan.cell(key) for key in ran])
            self.took |= {key: one for key, result in results.items() if result and (one := Took.of(result))}

    def _end(self, known: Known, waiting: Sequence[int], left_s: float) -> None:
        groups = [known.plan.groups[number] for number in waiting]
        next_s = known.group_s(groups[0])
        needs = f"the next engine needs about {duration_words(next_s)}" if next_s else "another engine was to start"
        left = f"{duration_words(left_s)} were left" if left_s > 0 else "nothing was left"
        why = f"{needs}, and {left} of budget={self.text}"
        self.left_out |= {key: why for group in groups for key in group.cells if key not in known.done}
        self.missing_s += sum(map(known.group_s, groups))

    def further(self, plan: Plan, added: Sequence[Cell]) -> list[Cell]:
        """Of cells that proposers add to the plan, those whose groups fit one after another into what is left."""
        if self.starts_left_out:  # the same are proposed again
            return []
        grown = self.ordered(build_plan([*plan.cells, *added]))
        known = Known(grown, self.times, self.took, frozenset(plan.by_key), self.started)
        new, spent_s, chosen = {cell.key for cell in added}, 0.0, set[str]()
        for group in grown.groups:
            mine = new.intersection(group.cells)
            seconds = known.group_s(group) / self.jobs
            if not mine:
                continue
            if self.used_up or spent_s + seconds > self.left_s:
                self.starts_left_out += len(mine)
                self.missing_s += seconds
                continue
            spent_s += seconds
            chosen |= mine
        return [cell for cell in added if cell.key in chosen]

    def sentence(self, plan: Plan, command: str) -> str:
        """What was left out, and how to measure it; `command` does."""
        parts = []
        if self.left_out:
            labels = [plan.cell(key).label for key in self.left_out if key in plan.by_key]
            of = cells_words(sum(cell.skip is None for cell in plan.cells))
            was = "was" if len(labels) == 1 else "were"
            parts.append(f"{len(labels):,} of {of} {was} not run ({listed(labels, NAMED)})")
        if self.starts_left_out:
            parts.append(
                f"{cells_words(self.starts_left_out)} {'was' if self.starts_left_out == 1 else 'were'} not added"
            )
        takes = f", which would take about {duration_words(self.missing_s)}" if self.missing_s else ""
        return f"budget={self.text}: {' and '.join(parts)}{takes}; to run the rest: {command}"


def expected_to_fit(known: Known, seconds: float, jobs: int, devices: int) -> frozenset[str]:
    """Keys of the cells that a budget has time for, as far as that is known before anything runs."""
    waiting = [group.number for group in known.plan.groups if not known.done.issuperset(group.cells)]
    chosen: set[str] = set()
    left_s = seconds
    while waiting and (wave := fitting(known, waiting, left_s, jobs, devices)):
        groups = [known.plan.groups[number] for number in wave]
        left_s -= makespan([(known.group_s(group), group.gpus) for group in groups], jobs, devices)
        chosen.update(*(group.cells for group in groups))
        waiting = waiting[len(wave) :]
        known = dataclasses.replace(known, started=True)
    return frozenset(chosen)


def _until(waiting: Sequence[int], alone: Sequence[int]) -> int:
    """How many groups come before the next that is launched on its own."""
    return next((place for place, number in enumerate(waiting) if number in alone), len(waiting))
