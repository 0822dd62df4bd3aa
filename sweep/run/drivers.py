"""Drivers send the turns of a schedule to an engine and hand back what came of each as soon as it is there.

The offline driver is the first: one turn after the other, the next when the one before is done. A driver knows neither
cells nor files; what is kept of its records is `measurement`'s business.
"""

import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sweep.engines.process.failures import EngineFailure
from sweep.engines.process.host import EngineHost
from sweep.engines.protocol import Output, Request
from sweep.run.baseline_engine import BaselineEngine, failure_of_baseline
from sweep.run.client.messages import Answer
from sweep.run.schedule import Turn


@dataclass(frozen=True)
class Record:
    """What came of one turn. `sent_s` on time.perf_counter; `baseline` is the interleaved baseline's output, if any.

    Under load it is a batch of the server: `answers` are what the load generator knows of its requests, in their order,
    and `began_s` is when the load began.
    """

    turn: Turn
    output: Output
    sent_s: float
    baseline: Output | None = None
    answers: tuple[Answer, ...] = ()
    began_s: float = 0.0

    @property
    def span(self) -> tuple[float, float]:
        """From sending the turn until its images were there, on time.perf_counter; writing them is not part of it."""
        if self.answers:
            return self.sent_s, self.began_s + max(answer.done_s for answer in self.answers)
        began_s = self.sent_s if self.output.epoch_s is None else self.output.epoch_s + self.output.start_s
        return self.sent_s, began_s + self.output.latency_s


@dataclass(frozen=True)
class Failed:
    """The turn that an engine failed in: sent when (time.perf_counter), and seconds until it failed."""

    turn: Turn
    sent_s: float
    took_s: float


class Driver(Protocol):
    """Sends turns. `failed` is the turn that ended it, once `drive` has raised."""

    failed: Failed | None

    def drive(self, turns: Iterable[Turn]) -> Generator[Record]:
        """Yield a record a turn, in the order in which they are done. Raises EngineFailure."""


class OfflineDriver:
    """One turn after the other, in the cell's engine and, where there is one, in the interleaved baseline's.

    With a baseline, `moment` is called before every turn of either engine, so that telemetry which it samples tells
    their turns apart however short they are. It returns the time (time.perf_counter).
    """

    def __init__(
        self,
        host: EngineHost,
        baseline: BaselineEngine | None,
        images: Path | None,
        timeout_s: float,
        moment: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.host = host
        self.baseline = baseline
        self.images = images  # the folder that takes them
        self.timeout_s = timeout_s  # for one turn
        self.moment = time.perf_counter if baseline is None else moment
        self.failed: Failed | None = None

    def drive(self, turns: Iterable[Turn]) -> Generator[Record]:
        """As Driver."""
        for turn in turns:
            before = self._by_baseline(turn) if turn.baseline_first else None
            sent_s = self.moment()
            try:
                folder = self.images if turn.keep_images else None
                output = self.host.generate(turn.requests, folder, self.timeout_s, turn.doing)
            except BaseException:
                self.failed = Failed(turn, sent_s, time.perf_counter() - sent_s)
                raise
            if turn.baseline_first:
                yield Record(turn, output, sent_s, before)
                continue
            try:
                after = self._by_baseline(turn)
            except BaseException:
                yield Record(turn, output, sent_s)  # the cell's own part is done
                raise
            yield Record(turn, output, sent_s, after)

    def _by_baseline(self, turn: Turn) -> Output | None:
        self.moment()
        return baseline_output(self.baseline, turn.requests, self.timeout_s, turn.doing)


def baseline_output(
    baseline: BaselineEngine | None, requests: tuple[Request, ...], timeout_s: float, doing: str
) -> Output | None:
    """What the interleaved baseline makes of the same requests; None without one. Raises EngineFailure."""
    if baseline is None:
        return None
    try:
        return baseline.host.generate(requests, None, timeout_s, doing)
    except EngineFailure as error:
        raise failure_of_baseline(error) from error
