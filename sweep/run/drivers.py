"""Drivers send the turns of a schedule to an engine and hand back the outcome of each as soon as it is ready.

The offline driver is the first: one turn after the other, the next when the one before is done. A driver knows neither
cells nor files; `measurement` decides what to keep of its records.
"""

import dataclasses
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
    """The outcome of one turn. `sent_s` on time.perf_counter; `baseline` is the interleaved baseline's output, if any.

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
        """From sending the turn until its images were ready, on time.perf_counter; writing them is not part of it."""
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


@dataclass(frozen=True)
class Broken:
    """A turn that failed in an engine that takes further ones: the outcome of each of its requests on its own.

    A turn whose images are kept is sent again, request by request, so that one bad request does not cost the others.
    Their times belong to another batch than the requested one.
    """

    turn: Turn
    sent_s: float  # on time.perf_counter
    took_s: float  # until the last of them was there
    reason: str  # of the batch
    alone: tuple[Record, ...] = ()  # requests that were generated
    failed: tuple[tuple[Failed, str], ...] = ()  # requests that were not, with their reasons


MOST_IN_VAIN = 8
"""Requests that fail one after the other before the first one succeeds, after which no more are sent."""


def survived(error: EngineFailure) -> bool:
    """Whether the engine that failed, the cell's or the interleaved baseline's, takes further requests."""
    own = error.__cause__ if isinstance(error.__cause__, EngineFailure) else error
    return own.alive and own.cause == "exception"


class Driver(Protocol):
    """Sends turns. `failed` is the turn that ended it, once `drive` has raised."""

    failed: Failed | None

    def drive(self, turns: Iterable[Turn]) -> Generator[Record]:
        """Yield a record a turn, in the order in which they are done. Raises EngineFailure."""


class OfflineDriver:
    """One turn after the other, in the cell's engine and, where there is one, in the interleaved baseline's.

    With a baseline, `moment` is called before every turn of either engine, so that its telemetry samples separate
    their turns, however short they are. It returns the time (time.perf_counter). `broke` is called for each turn
    that failed in an engine that keeps running; a turn with a request that is known to fail is not sent again. `ready`
    makes what is sent of a turn; where it raises EngineFailure, the turn failed.
    """

    def __init__(
        self,
        host: EngineHost,
        baseline: BaselineEngine | None,
        images: Path | None,
        timeout_s: float,
        moment: Callable[[], float] = time.perf_counter,
        broke: Callable[[Broken], None] = lambda broken: None,
        ready: Callable[[Turn], Turn] = lambda turn: turn,
    ) -> None:
        self.host = host
        self.baseline = baseline
        self.images = images  # the folder that takes them
        self.timeout_s = timeout_s  # for one turn
        self.moment = time.perf_counter if baseline is None else moment
        self.failed: Failed | None = None
        self._broke, self._ready = broke, ready
        self._bad: set[tuple[int, int]] = set()  # prompt and seed of requests that fail on their own
        self._made = 0  # requests that were generated
        self._in_vain = 0

    def drive(self, turns: Iterable[Turn]) -> Generator[Record]:
        """As in Driver."""
        for turn in turns:
            if self._bad & set(map(_named, turn.requests)):
                continue
            began_s = time.perf_counter()
            try:
                asked = self._ready(turn)
                before = self._by_baseline(asked) if turn.baseline_first else None
                sent_s, output = self._own(asked)
            except EngineFailure as error:
                if not survived(error):
                    raise
                self._one_by_one(turn, began_s, error)
                continue
            if turn.baseline_first:
                yield Record(asked, output, sent_s, before)
                continue
            try:
                after = self._by_baseline(asked)
            except BaseException:
                yield Record(asked, output, sent_s)  # the cell's own part is done
                raise
            yield Record(asked, output, sent_s, after)

    def _own(self, turn: Turn) -> tuple[float, Output]:
        """What the cell's engine makes of a turn, and when it was sent."""
        sent_s = self.moment()
        try:
            folder = self.images if turn.keep_images else None
            output = self.host.generate(turn.requests, folder, self.timeout_s, turn.doing)
        except BaseException:
            self.failed = Failed(turn, sent_s, time.perf_counter() - sent_s)
            raise
        self._made += len(turn.requests)
        return sent_s, output

    def _one_by_one(self, turn: Turn, sent_s: float, error: EngineFailure) -> None:
        """Send each request of a failed turn on its own. Raises EngineFailure where none ever succeeds."""
        whole, self.failed = self.failed or Failed(turn, sent_s, time.perf_counter() - sent_s), None
        alone: list[Record] = []
        failed: list[tuple[Failed, str]] = []
        try:
            if len(turn.requests) == 1 or not turn.keep_images:  # a repeat, whose images are there already
                failed = [(whole, error.reason)]
            else:
                for request in turn.requests:
                    self._alone(dataclasses.replace(turn, requests=(request,)), alone, failed)
        finally:
            took_s = time.perf_counter() - sent_s
            self._broke(Broken(turn, sent_s, took_s, error.reason, tuple(alone), tuple(failed)))
        if turn.keep_images:
            self._bad |= {_named(request) for one, _ in failed for request in one.turn.requests}
        self._in_vain += len(failed)
        if not self._made and self._in_vain >= MOST_IN_VAIN:
            raise error

    def _alone(self, turn: Turn, alone: list[Record], failed: list[tuple[Failed, str]]) -> None:
        turn = dataclasses.replace(turn, doing=f"{turn.doing} (request {turn.requests[0].request_id} by itself)")
        began_s = time.perf_counter()
        try:
            turn = self._ready(turn)
            sent_s, output = self._own(turn)
        except EngineFailure as error:
            if not survived(error):
                raise
            failed.append((self.failed or Failed(turn, began_s, 0.0), error.reason))
            self.failed = None
        else:
            alone.append(Record(turn, output, sent_s))

    def _by_baseline(self, turn: Turn) -> Output | None:
        self.moment()
        return baseline_output(self.baseline, turn.requests, self.timeout_s, turn.doing)


def _named(request: Request) -> tuple[int, int]:
    """A request's identity, the same in every repeat."""
    return request.prompt_index, request.seed


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
