"""The driver of loads: the engine is served over HTTP, a load generator sends the requests, and both sides are joined.

The generator is a process of its own and knows when each request was due, was sent and was answered; the engine
reports each of its batches. A record is a batch with the answers of its requests.
"""

import contextlib
import functools
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import msgspec

from profiling.child_environment import child_environment
from sweep.config.load import Load
from sweep.engines.endpoint.bodies import body_for, path_of
from sweep.engines.endpoint.server import headers, model_of, servers
from sweep.engines.images import image_name
from sweep.engines.process.failures import EngineFailure, one_line
from sweep.engines.process.host import EngineHost
from sweep.engines.protocol import Output, Request
from sweep.engines.serving.settings import ServeSettings
from sweep.run.client.messages import AGAIN, Answer, Due, Ended, Job, Told
from sweep.run.drivers import Failed, Record
from sweep.run.schedule import Turn
from sweep.run.server_metrics import scraped

START_S = 60.0  # for the server to listen, and for it to stop once its last batch is done
SLACK_S = 30.0  # for the load generator to start and to end
LAST_S = 5.0  # for the load generator to report what was answered before the engine was gone
TELL_S = 0.25  # between two notes of progress
WARM_UP = "w"
"""Prefix of the ids of requests that come before the load."""


@dataclass(frozen=True)
class Lost:
    """A request that got no usable reply."""

    request: Request
    answer: Answer
    began_s: float  # of the load, on time.perf_counter


class LoadDriver:
    """Sends turns of one request each when they are due, or a fixed number at a time."""

    def __init__(
        self,
        host: EngineHost,
        load: Load,
        settings: ServeSettings,
        images: Path,
        timeout_s: float,
        progress: Callable[[int, int], None],
        pictures: bool = True,
    ) -> None:
        self._host, self._load, self._settings = host, load, settings
        self._images = images  # the folder that takes them
        self._timeout_s = timeout_s  # for one request
        self._progress, self._pictures = progress, pictures
        self.failed: Failed | None = None
        self.lost: list[Lost] = []
        self.ended: Ended | None = None
        self.began_s = 0.0
        self.server_metrics = ""  # Prometheus' text, from when the load ended
        self.uncounted = 0  # texts whose number of tokens the server does not report
        self._url = ""
        self._noted = 0.0  # when progress was last reported

    def drive(self, turns: Iterable[Turn]) -> Generator[Record]:
        """As Driver; `lost` and `ended` are complete when it is. Raises EngineFailure."""
        sent = {turn.requests[0].request_id: turn for turn in turns}
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        if self._host.spec.url:  # for a server that runs already, only what the load generator sees is known
            try:
                self._settings = replace(self._settings, model=model_of(self._host.spec))
            except RuntimeError as error:
                raise EngineFailure("exception", str(error), alive=True) from None
            with _client(self._job(servers(self._host.spec.url), list(sent.values())), events):
                yield from self._seen(sent, events)
            return
        url = self._host.serve(self._settings, START_S)
        if not self._host.spec.plugin:  # likewise of one that is not observed
            with contextlib.ExitStack() as ending:
                ending.enter_context(_client(self._job([url], list(sent.values())), events))
                ending.push(self._stop_unseen)
                yield from self._seen(sent, events)
            return
        silence_s = self._timeout_s + SLACK_S + _longest_gap([turn.intended_s for turn in sent.values()])
        watching = threading.Thread(target=_watch, args=(self._host, silence_s, events), daemon=True)
        watching.start()
        with contextlib.ExitStack() as ending:
            ending.enter_context(_client(self._job([url], list(sent.values())), events))
            ending.push(functools.partial(self._stop, watching))
            yield from self._joined(sent, events)

    def _job(self, urls: Sequence[str], turns: Sequence[Turn]) -> Job:
        self._url = urls[0]
        ordered = [self._due(turn) for turn in turns]
        texts = turns[0].requests[0].text is not None
        first = [replace(turns[0].requests[0], request_id=f"{WARM_UP}{n}") for n in range(self._load.warmup_requests)]
        return Job(
            url=urls[0],
            replicas=list(urls[1:]),
            path=path_of(turns[0].requests[0]),
            requests=ordered,
            warm_up=[self._due(Turn((one,), 0, "")) for one in first],
            timeout_s=self._timeout_s,
            concurrency=self._load.max_concurrency,
            clients=self._load.clients,
            ramp_s=self._load.ramp_s,
            duration_s=self._load.duration_s if turns[0].intended_s is None else None,
            headers=headers(self._host.spec),
            decoders=0 if texts else 1,
            pictures=self._pictures,
            streams=texts,
        )

    def _due(self, turn: Turn) -> Due:
        (request,) = turn.requests
        kept = str(self._images / image_name(request)) if turn.keep_images and self._pictures else ""
        body = body_for(self._host.spec, request, self._settings.model)
        upload = request.input_image or ""
        mask = (self._load.mix.mask or "") if upload else ""
        return Due(request.request_id, body, request.size, turn.intended_s, kept, upload, path_of(request), mask)

    def _seen(self, sent: Mapping[str, Turn], events: "queue.SimpleQueue[Any]") -> Iterator[Record]:
        """Records of one request each, as the load generator sees them."""
        answers: dict[str, Answer] = {}
        while self.ended is None:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            answer = self._taken(event, answers, len(sent))
            if answer is None:
                continue
            if answer.failure:
                self.lost.append(Lost(sent[first_id(answer.id)].requests[0], answer, self.began_s))
            else:
                yield self._record(_output(answer, self.began_s), sent, answers)

    def _taken(self, event: Told, answers: dict[str, Answer], count: int) -> Answer | None:
        """Take in one event of the load generator; returns the answer if it is one."""
        if event.began_s is not None:
            self.began_s = event.began_s
        if event.ended is not None:
            self.ended = event.ended
            self.server_metrics = scraped(self._url, headers(self._host.spec))
        if event.answer is not None:
            answers[event.answer.id] = event.answer
            self.uncounted += not event.answer.counted
            if time.monotonic() > self._noted + TELL_S or len(answers) == count:
                self._noted = time.monotonic()
                if (whole_s := self._load.duration_s) is None:
                    self._progress(len(answers), count)
                else:
                    self._progress(int(min(time.perf_counter() - self.began_s, whole_s)), int(whole_s) or 1)
        return event.answer

    def _joined(self, sent: Mapping[str, Turn], events: "queue.SimpleQueue[Any]") -> Iterator[Record]:
        """Records, as batches are done and their requests answered."""
        answers: dict[str, Answer] = {}
        open_batches: list[Output] = []
        joined: set[str] = set()
        gone: EngineFailure | None = None
        until = 0.0
        while True:
            try:
                event = events.get(timeout=max(0.0, until - time.monotonic()) if gone else None)
            except queue.Empty:
                break
            if isinstance(event, EngineFailure) and gone is None and not event.alive:
                gone, until = event, time.monotonic() + LAST_S  # what was answered before may still be looked at
                continue
            if isinstance(event, BaseException):
                raise gone or event
            if event is None:  # the server has stopped, so everything was reported
                break
            if isinstance(event, Output):
                if not event.request_ids[0].startswith(WARM_UP):
                    open_batches.append(event)
            elif self._taken(event, answers, len(sent)) is None and event.ended is not None and not gone:
                with contextlib.suppress(EngineFailure):  # `_watch` says what became of the engine
                    self._host.stop_serving(START_S + self._timeout_s)
            for output in [one for one in open_batches if answers.keys() >= set(one.request_ids)]:
                open_batches.remove(output)
                joined |= set(output.request_ids)
                yield self._record(output, sent, answers)
            if gone and self.ended:
                break
        if gone:
            raise gone
        for key, answer in answers.items():
            if answer.failure or key not in joined:
                self.lost.append(Lost(sent[first_id(key)].requests[0], answer, self.began_s))

    def _record(self, output: Output, sent: Mapping[str, Turn], answers: Mapping[str, Answer]) -> Record:
        own = tuple(answers[key] for key in output.request_ids)
        turns = [sent[first_id(key)] for key in output.request_ids]
        together = Turn(
            requests=tuple(turn.requests[0] for turn in turns),
            repeat=0,
            doing=turns[0].doing,
        )
        images = tuple(
            image_name(turn.requests[0]) if turn.keep_images and self._pictures and not repeat_of(key) else ""
            for turn, key in zip(turns, output.request_ids, strict=True)
        )
        output = replace(output, image_paths=images)
        return Record(
            together, output, self.began_s + min(one.sent_s for one in own), answers=own, began_s=self.began_s
        )

    def _stop_unseen(self, kind: type[BaseException] | None, *_: object) -> None:
        """As `_stop`, where nothing reads what the engine hands over."""
        if kind is not KeyboardInterrupt:
            self._host.stop_serving(START_S)
            for _output in self._host.served(START_S):
                pass

    def _stop(self, watching: threading.Thread, kind: type[BaseException] | None, *_: object) -> None:
        """Make the engine stop serving, whatever happened; if it is gone, this has no effect.

        After Ctrl-C it is killed, and not waited for.
        """
        if kind is KeyboardInterrupt:
            return
        if self.ended is None:
            with contextlib.suppress(EngineFailure, OSError, ValueError):
                self._host.stop_serving(START_S)
        watching.join(START_S + self._timeout_s)


def first_id(key: str) -> str:
    """Id of the request that was sent again under this one."""
    return key.partition(AGAIN)[0]


def repeat_of(key: str) -> int:
    """How often the same request was sent before the one with this id."""
    return int(key.partition(AGAIN)[2] or 0)


def _output(answer: Answer, began_s: float) -> Output:
    """A request of which only the server's answer is known, as if it had been a batch of its own."""
    return Output(
        request_ids=(answer.id,),
        start_s=began_s + answer.sent_s,
        latency_s=answer.done_s - answer.sent_s,
        image_paths=("",),
        image_hashes=(answer.image_hash,),
        output_tokens=answer.output_tokens,
        prompt_tokens=(answer.prompt_tokens,),
        phases=(),
        evidence=(),
        epoch_s=0.0,
    )


def _watch(host: EngineHost, timeout_s: float, events: "queue.SimpleQueue[Any]") -> None:
    """Pass on what the engine hands over; None when it has stopped serving."""
    try:
        for output in host.served(timeout_s):
            events.put(output)
        events.put(None)
    except BaseException as error:  # raised where it is waited for
        events.put(error)


@contextlib.contextmanager
def _client(job: Job, events: "queue.SimpleQueue[Any]") -> "Iterator[subprocess.Popen[bytes]]":
    """The load generator at work; its messages go into `events`."""
    for folder in {Path(one.image).parent for one in job.requests if one.image}:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(prefix="sweep-client-") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep.run.client.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=child_environment(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        reading = threading.Thread(target=_read, args=(process, log, events), daemon=True)
        reading.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # `_read` says why it ended
                process.stdin.write(msgspec.json.encode(job))
                process.stdin.close()
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reading.join()
            process.stdout.close()


def _read(process: "subprocess.Popen[bytes]", log: IO[bytes], events: "queue.SimpleQueue[Any]") -> None:
    """Pass on the load generator's messages; a failure when it ends without having ended the load."""
    ended = False
    decode = msgspec.json.Decoder(Told).decode
    assert process.stdout is not None
    for line in process.stdout:
        one = decode(line)
        ended = ended or one.ended is not None
        events.put(one)
    if not ended:
        code = process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace").strip().splitlines()
        why = one_line(said[-1]) if said else f"exit code {code}"
        events.put(EngineFailure("client", f"the load generator ended early ({why})", alive=True))


def _longest_gap(times: Sequence[float | None]) -> float:
    known = [0.0, *(one for one in times if one is not None)]
    return max((after - before for before, after in pairwise(known)), default=0.0)
