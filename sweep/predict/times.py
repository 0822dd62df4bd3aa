"""Seconds that a plan will take: as its cells took before, else as predicted, group by group and as a whole. Pure.

A group is an engine start and the cells that it measures. Earlier results win, and predictions are scaled to
them; what neither covers is not counted.
"""

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.cached import cached_property
from sweep.plan.cells import Cell
from sweep.plan.plans import Group, Plan
from sweep.results.earlier import Expected

if TYPE_CHECKING:
    from sweep.predict.planned import Forecast


@dataclass(frozen=True)
class GroupTime:
    """One group, as far as its time is known."""

    seconds: float
    predicted_s: float  # of these
    known: int  # cells to run whose time is known
    cells: int  # cells to run


@dataclass(frozen=True)
class Total:
    """A whole sweep, as far as its time is known."""

    seconds: float  # with groups that run side by side
    predicted_s: float  # of these
    known: int
    cells: int
    gpus: int  # devices in use at once, at most

    def cost(self, price_per_hour: float) -> float:
        """Cost of these devices for the whole time, as a machine is billed."""
        return self.gpus * price_per_hour * self.seconds / 3600


@dataclass(frozen=True)
class Times:
    """What is known before anything runs."""

    earlier: Expected
    forecast: "Forecast | None" = None

    @cached_property
    def factor(self) -> float:
        """Measured ÷ predicted seconds of the cells that were measured here; 1 without such cells."""
        predicted = self.forecast.cells_s if self.forecast else {}
        both = [(took, predicted[key]) for key, took in self.earlier.cells_s.items() if key in predicted]
        return sum(took for took, _ in both) / sum(expected for _, expected in both) if both else 1.0

    def cell_s(self, key: str) -> float | None:
        """Warm-up and measurement of a cell; None when unknown."""
        if key in self.earlier.cells_s:
            return self.earlier.cells_s[key]
        predicted = self.forecast.cells_s.get(key) if self.forecast else None
        return None if predicted is None else predicted * self.factor

    def start_s(self, engine_key: str, first: bool = False) -> float | None:
        """Starting an engine; `first`: with the imports that all engines share."""
        if engine_key in self.earlier.loads_s:
            return self.earlier.loads_s[engine_key]
        start = self.forecast.starts.get(engine_key) if self.forecast else None
        return None if start is None else start.first_s if first else start.later_s

    def is_predicted(self, key: str) -> bool:
        """Whether a cell's time is a prediction."""
        return key not in self.earlier.cells_s and self.cell_s(key) is not None

    def worth(self, cell: Cell) -> float:
        """The largest speed-up that is plausible; infinite where nothing is predicted."""
        return self.forecast.worth(cell) if self.forecast else math.inf

    def group(self, group: Group, first: bool = False) -> GroupTime:
        """A group without the cells that are kept."""
        mine = [key for key in group.cells if key not in self.earlier.kept]
        took = {key: seconds for key in mine if (seconds := self.cell_s(key)) is not None}
        start_s = (self.start_s(group.engine_key, first) or 0.0) if mine else 0.0
        predicted_s = sum(seconds for key, seconds in took.items() if self.is_predicted(key))
        predicted_s += 0.0 if group.engine_key in self.earlier.loads_s else start_s
        return GroupTime(sum(took.values()) + start_s, predicted_s, len(took), len(mine))

    def groups(self, plan: Plan) -> list[GroupTime]:
        """All groups in running order; the first that runs waits for the imports."""
        found: list[GroupTime] = []
        for group in plan.groups:
            found.append(self.group(group, first=not any(one.cells for one in found)))
        return found

    def total(self, plan: Plan, jobs: int, devices: int) -> Total:
        """The sweep, with `jobs` groups at once on as many `devices` as there are."""
        times = self.groups(plan)
        run = [(one, group.gpus) for one, group in zip(times, plan.groups, strict=True) if one.cells]
        alone_s = sum(one.seconds for one, _ in run)
        seconds = makespan([(one.seconds, gpus) for one, gpus in run], jobs, devices)
        predicted_s = sum(one.predicted_s for one, _ in run)
        return Total(
            seconds=seconds,
            predicted_s=predicted_s * seconds / alone_s if alone_s else 0.0,
            known=sum(one.known for one, _ in run),
            cells=sum(one.cells for one, _ in run),
            gpus=_at_once([gpus for _, gpus in run], jobs, devices),
        )


def makespan(groups: Iterable[tuple[float, int]], jobs: int, devices: int) -> float:
    """Seconds until all groups are done, started in order: (seconds, devices) each, at most `jobs` at once."""
    running: list[tuple[float, int]] = []
    now, free, end = 0.0, devices, 0.0
    for seconds, gpus in groups:
        while running and (len(running) >= jobs or gpus > free):
            now, given_back = heapq.heappop(running)
            free += given_back
        heapq.heappush(running, (now + seconds, gpus))
        free -= gpus
        end = max(end, now + seconds)
    return end


def _at_once(gpus: Sequence[int], jobs: int, devices: int) -> int:
    largest = sorted(gpus, reverse=True)
    return max(largest[0], min(devices, sum(largest[:jobs]))) if largest else 0
