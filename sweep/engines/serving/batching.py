"""The queue between the HTTP side, which submits requests, and the engine's thread, which takes them as batches."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from sweep.engines.protocol import Output, Request


class Full(Exception):
    """The queue is full."""


class Stopped(Exception):
    """The server is being stopped and takes no more requests."""


@dataclass(frozen=True)
class Served:
    """What became of one request."""

    png: bytes  # b"" from an engine that makes no images
    output: Output  # of its whole batch
    position: int  # in it
    queued_s: float


@dataclass(frozen=True)
class Waiting:
    """A request that waits: since when (time.perf_counter), and who waits for it.

    `tell` receives each token of a text, in the engine's thread; it returns whether a client still waits for more.
    """

    request: Request
    since_s: float
    answer: "Future[Served]" = field(compare=False)
    tell: Callable[[str], bool] = field(default=lambda token: True, compare=False)


class BatchQueue:
    """First come, first served. A batch holds requests that one call of the pipeline can generate together."""

    def __init__(self, batch: int, wait_s: float, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._batch, self._wait_s, self._most, self._clock = batch, wait_s, most, clock
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._stopped = False

    def submit(self, request: Request, tell: Callable[[str], bool] | None = None) -> "Future[Served]":
        """Join the queue. `tell` as in Waiting. Raises Full, Stopped."""
        with self._changed:
            if self._stopped:
                raise Stopped
            if len(self._waiting) >= self._most:
                raise Full
            one = Waiting(request, self._clock(), Future(), *([tell] if tell else []))
            self._waiting.append(one)
            self._changed.notify()
        return one.answer

    def take(self, timeout_s: float) -> list[Waiting]:
        """The next batch, without those whose client is gone; [] if none comes within `timeout_s`.

        The first request waits for company until the batch is full or `wait_s` after it came.
        """
        with self._changed:
            self._drop_cancelled()
            if not self._waiting:
                self._changed.wait(timeout_s)
                self._drop_cancelled()
                if not self._waiting:
                    return []
            until = self._waiting[0].since_s + self._wait_s
            while len(self._company()) < self._batch and (left := until - self._clock()) > 0 and not self._stopped:
                self._changed.wait(left)
                self._drop_cancelled()
                if not self._waiting:
                    return []
            taken = self._company()
            kept = set(map(id, taken))
            self._waiting = deque(one for one in self._waiting if id(one) not in kept)
            return [one for one in taken if one.answer.set_running_or_notify_cancel()]

    def stop(self) -> None:
        """Refuse new requests and cancel waiting ones."""
        with self._changed:
            self._stopped = True
            for one in self._waiting:
                one.answer.cancel()
            self._waiting.clear()
            self._changed.notify()

    def __len__(self) -> int:
        return len(self._waiting)

    def _company(self) -> list[Waiting]:
        """The first request and the next ones that can be generated with it, as many as a batch holds."""
        first = self._waiting[0].request
        return [one for one in self._waiting if together(one.request, first)][: self._batch]

    def _drop_cancelled(self) -> None:
        if any(one.answer.cancelled() for one in self._waiting):
            self._waiting = deque(one for one in self._waiting if not one.answer.cancelled())


def together(one: Request, other: Request) -> bool:
    """Whether one call of the pipeline can generate both. A text is written alone."""
    if one.text is not None or other.text is not None:
        return one is other
    same = ("height", "width", "steps", "guidance_scale", "negative_prompt", "prompt_tokens")
    both_edit = (one.input_image is None) == (other.input_image is None)
    return both_edit and all(getattr(one, name) == getattr(other, name) for name in same)
