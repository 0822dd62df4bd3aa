"""Entry point of the load generator: `python -m sweep.run.client.process` reads a Job and writes one line per answer.

Intended times never move: a request that is sent late is late against its own time, and later ones are sent at theirs.
Nothing is decoded here (`lookers`).
"""

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.synchronize import Lock
from pathlib import Path

import aiohttp
import msgspec

from sweep.engines.endpoint.bodies import form_of
from sweep.engines.process.orphans import end_when, process_exists
from sweep.run.client.lookers import Lookers, Parcel, tell
from sweep.run.client.memory import make_ready, wanted
from sweep.run.client.messages import AGAIN, CONNECTION, HTTP, REFUSED, TIMEOUT, Answer, Due, Ended, Job, Told
from sweep.run.client.several import Gate, dealt, together
from sweep.run.client.streams import Heard

TICK_S = 0.01  # between two looks at how late the loop is
SHOWN = 120  # characters of a server's error
OK, TOO_MANY = 200, 429


@dataclass(frozen=True)
class Came:
    """The reply to a request, before it is checked."""

    status: int
    first_s: float | None
    error: str = ""
    failure: str = ""
    reply: bytes = b""
    heard: Heard = field(default_factory=Heard)  # of a reply that streams


class Generator:
    """Sends the requests of a job."""

    def __init__(
        self, job: Job, lookers: Lookers | None, telling: Lock, gate: Gate | None = None, first: bool = True
    ) -> None:
        self._job, self._lookers, self._telling = job, lookers, telling
        self._gate = gate  # None: the load begins when it is warmed up
        self._first = first  # of several generators: reports when the load began
        self._room = asyncio.Semaphore(job.concurrency) if job.concurrency else contextlib.nullcontext()
        self._began_s = 0.0
        self._servers = [job.url, *job.replicas]
        self._in_flight: Counter[str] = Counter()  # by server
        self._uploads: dict[str, bytes] = {}
        self._loop_lags: list[float] = []
        self._send_lags: list[float] = []

    async def run(self) -> Ended:
        """Send all and write every answer as it comes; returns how the generator itself did."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600)
        timeout = aiohttp.ClientTimeout(total=self._job.timeout_s)
        if self._lookers is not None:
            await self._lookers.begin()
        if size := wanted(self._job):
            make_ready(size)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._job.headers) as session:
            for server in self._servers:
                for one in self._job.warm_up:
                    await self._asked(session, one, server)
            ticking = asyncio.create_task(self._tick())
            cpu_s = time.process_time()
            self._began_s = await self._gate() if self._gate else time.perf_counter()
            if self._first:
                tell(Told(began_s=self._began_s), self._telling)
            if any(one.intended_s is not None for one in self._job.requests):
                await self._open(session)
            else:
                await self._closed(session)
            wall_s, cpu_s = self._now(), time.process_time() - cpu_s
            ticking.cancel()
        if self._lookers is not None:
            await self._lookers.end()
        return Ended(wall_s, cpu_s, _p99(self._loop_lags), _p99(self._send_lags))

    async def _open(self, session: aiohttp.ClientSession) -> None:
        """Each when it is due, whether others are done or not."""
        async with asyncio.TaskGroup() as sending:
            for one in self._job.requests:
                while (wait_s := (one.intended_s or 0.0) - self._now()) > 0:  # timers of whole ms may be early
                    await asyncio.sleep(wait_s)
                sending.create_task(self._send(session, one))

    async def _closed(self, session: aiohttp.ClientSession) -> None:
        """As many at a time as may be in flight; the next when one is done."""
        left = self._again() if self._job.duration_s else iter(self._job.requests)
        async with asyncio.TaskGroup() as workers:
            count = self._job.concurrency or 1
            for number in range(count):
                workers.create_task(self._work(session, left, self._job.ramp_s * number / count))

    def _again(self) -> Iterator[Due]:
        """The requests, round after round under new ids, until the time is over. Pictures are kept once."""
        for number in itertools.count():
            for one in self._job.requests:
                if self._now() >= (self._job.duration_s or 0.0):
                    return
                again = msgspec.structs.replace(one, id=f"{one.id}{AGAIN}{number}", image="")
                yield again if number else one

    async def _work(self, session: aiohttp.ClientSession, left: Iterator[Due], after_s: float) -> None:
        if after_s:
            await asyncio.sleep(after_s)
        for one in left:
            await self._send(session, one)

    async def _send(self, session: aiohttp.ClientSession, one: Due) -> None:
        async with self._room:
            sent_s = self._now()
            intended_s = sent_s if one.intended_s is None else one.intended_s
            if one.intended_s is not None:
                self._send_lags.append(sent_s - intended_s)
            server = min(self._servers, key=self._in_flight.__getitem__)
            self._in_flight[server] += 1
            came = await self._asked(session, one, server)
            self._in_flight[server] -= 1
            done_s = self._now()
        answer = Answer(
            id=one.id,
            intended_s=intended_s,
            sent_s=sent_s,
            done_s=done_s,
            status=came.status,
            first_byte_s=came.first_s,
            error=came.error,
            failure=came.failure,
            metrics=came.heard.metrics,
            chunks_s=[round(at, 6) for at in came.heard.chunks_s],
            output_tokens=came.heard.output_tokens,
            prompt_tokens=came.heard.prompt_tokens,
            counted=came.heard.usage is not None or not came.heard.chunks_s,
            server=server if self._job.replicas else "",
        )
        if came.failure or self._job.streams or self._lookers is None:
            tell(Told(answer=answer), self._telling)
        else:
            await self._lookers.hand(Parcel(answer, one.size if self._job.pictures else None, one.image), came.reply)

    async def _asked(self, session: aiohttp.ClientSession, one: Due, server: str) -> "Came":
        """Send a request to a server and wait for the last byte of its reply."""
        status, first_s, heard, reply = 0, None, Heard(), b""
        own = {"X-Request-Id": one.id}
        if one.upload:
            sent, own["Content-Type"] = form_of(one.body, self._pictures(one))
        else:
            sent, own["Content-Type"] = msgspec.json.encode(one.body), "application/json"
        try:
            url = server + (one.path or self._job.path)
            async with session.post(url, headers=own, data=sent) as response:
                status, first_s = response.status, self._now()
                if self._job.streams and status == OK:
                    await self._listen(response, heard)
                else:
                    reply = await response.read()
        except TimeoutError:
            what = f"only {heard.said} of the reply" if heard.chunks_s else "no reply"
            return Came(status, first_s, f"{what} within {self._job.timeout_s:g} s", TIMEOUT, heard=heard)
        except (aiohttp.ClientError, OSError) as caught:
            after = f"after {heard.said}: " if heard.chunks_s else ""
            return Came(status, first_s, f"{after}{_one_line(caught)}", CONNECTION, heard=heard)
        if status != OK:
            code = REFUSED if status == TOO_MANY else HTTP
            return Came(status, first_s, f"HTTP {status}: {_message(reply)}", code)
        return Came(status, first_s, heard.error, heard.failure, reply, heard)

    async def _listen(self, response: aiohttp.ClientResponse, heard: Heard) -> None:
        """Read a stream to its end, or to its first error."""
        while data := await response.content.readany():
            if not heard.take(data, self._now()):
                return
        heard.end(self._now())

    def _pictures(self, one: Due) -> dict[str, bytes]:
        """What an edit uploads, by the name of its field."""
        files = {name: file for name, file in (("image", one.upload), ("mask", one.mask)) if file}
        for file in files.values():
            if file not in self._uploads:
                self._uploads[file] = Path(file).read_bytes()
        return {name: self._uploads[file] for name, file in files.items()}

    async def _tick(self) -> None:
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            self._loop_lags.append(max(0.0, time.perf_counter() - due))

    def _now(self) -> float:
        return time.perf_counter() - self._began_s


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))] if values else 0.0


def _message(reply: bytes) -> str:
    """A server's message about an error, in one line."""
    try:
        decoded = msgspec.json.decode(reply)
        text = decoded["error"]["message"] if isinstance(decoded["error"], dict) else decoded["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        text = reply.decode("utf-8", "replace")
    return " ".join(str(text).split())[:SHOWN] or "no message"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN]


def main() -> None:
    """Read a job from standard input and do it."""
    import uvloop

    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)  # the process that started us handles Ctrl-C
    started_by = os.getppid()
    end_when(lambda: os.getppid() != started_by or not process_exists(started_by))
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    telling = multiprocessing.get_context("fork").Lock()

    def work(part: Job, gate: Gate | None = None, first: bool = True) -> Ended:
        looked_at = part.decoders and not part.streams
        lookers = Lookers(part.decoders, telling, part.pictures) if looked_at else None
        return uvloop.run(Generator(part, lookers, telling, gate, first).run())

    jobs = dealt(job)
    tell(Told(ended=together(jobs, work) if len(jobs) > 1 else work(job)), telling)


if __name__ == "__main__":
    main()
