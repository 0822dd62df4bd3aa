"""Entry point of the load generator: `python -m sweep.run.client.process` reads a Job and writes a line an answer.

Intended times are kept whatever happens: a request that is sent late is late against its own time, and later ones are
sent at theirs. Nothing is decoded in the event loop.
"""

import asyncio
import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import aiohttp
import msgspec

from sweep.run.client.messages import Answer, Due, Ended, Job, Told
from sweep.run.client.replies import Looked, look

TICK_S = 0.01  # between two looks at how late the loop is
SHOWN = 120  # characters of a server's error


class Generator:
    """Sends the requests of a job."""

    def __init__(self, job: Job, pool: ProcessPoolExecutor | None) -> None:
        self._job, self._pool = job, pool
        self._room = asyncio.Semaphore(job.concurrency) if job.concurrency else contextlib.nullcontext()
        self._began_s = 0.0
        self._loop_lags: list[float] = []
        self._send_lags: list[float] = []

    async def run(self) -> None:
        """Send all, write every answer as it comes, then how the generator itself did."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600)
        timeout = aiohttp.ClientTimeout(total=self._job.timeout_s)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._job.headers) as session:
            ticking = asyncio.create_task(self._tick())
            cpu_s = time.process_time()
            self._began_s = time.perf_counter()
            if any(one.intended_s is not None for one in self._job.requests):
                await self._open(session)
            else:
                await self._closed(session)
            wall_s, cpu_s = self._now(), time.process_time() - cpu_s
            ticking.cancel()
        lags = Ended(self._began_s, wall_s, cpu_s, _p99(self._loop_lags), _p99(self._send_lags))
        _tell(Told(ended=lags))

    async def _open(self, session: aiohttp.ClientSession) -> None:
        """Each when it is due, whether others are done or not."""
        async with asyncio.TaskGroup() as sending:
            for one in self._job.requests:
                while (wait_s := (one.intended_s or 0.0) - self._now()) > 0:  # timers of whole ms may be early
                    await asyncio.sleep(wait_s)
                sending.create_task(self._send(session, one))

    async def _closed(self, session: aiohttp.ClientSession) -> None:
        """As many at a time as may be in flight; the next when one is done."""
        left = iter(self._job.requests)
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._job.concurrency or 1):
                workers.create_task(self._work(session, left))

    async def _work(self, session: aiohttp.ClientSession, left: Iterator[Due]) -> None:
        for one in left:
            await self._send(session, one)

    async def _send(self, session: aiohttp.ClientSession, one: Due) -> None:
        async with self._room:
            sent_s = self._now()
            intended_s = sent_s if one.intended_s is None else one.intended_s
            if one.intended_s is not None:
                self._send_lags.append(sent_s - intended_s)
            status, first_s, error, reply = 0, None, "", b""
            try:
                async with session.post(self._job.url + self._job.path, json=one.body) as response:
                    status, first_s = response.status, self._now()
                    reply = await response.read()
            except TimeoutError:
                error = f"no reply within {self._job.timeout_s:g} s"
            except (aiohttp.ClientError, OSError) as caught:
                error = _one_line(caught)
            done_s = self._now()
        looked = await self._looked(one, reply) if status == 200 and not error else Looked(error)
        if status not in (0, 200):
            looked = Looked(f"HTTP {status}: {_message(reply)}")
        answer = Answer(
            id=one.id,
            intended_s=intended_s,
            sent_s=sent_s,
            done_s=done_s,
            status=status,
            first_byte_s=first_s,
            error=looked.error,
            fault=looked.fault,
            image_hash=looked.image_hash,
            metrics=looked.metrics,
        )
        _tell(Told(answer))

    async def _looked(self, one: Due, reply: bytes) -> Looked:
        if self._pool is None:
            return Looked()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, look, reply, one.size, one.image)
        except BrokenProcessPool:
            return Looked("the process that looks at pictures died")

    async def _tick(self) -> None:
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            self._loop_lags.append(max(0.0, time.perf_counter() - due))

    def _now(self) -> float:
        return time.perf_counter() - self._began_s


def _tell(told: Told) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))] if values else 0.0


def _message(reply: bytes) -> str:
    """What a server says of an error, in one line."""
    try:
        told = msgspec.json.decode(reply)
        text = told["error"]["message"] if isinstance(told["error"], dict) else told["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        text = reply.decode("utf-8", "replace")
    return " ".join(str(text).split())[:SHOWN] or "no message"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN]


def main() -> None:
    """Read a job from standard input and do it."""
    import uvloop

    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    context = multiprocessing.get_context("fork")
    with contextlib.ExitStack() as stack:
        pool = None
        if job.decoders:
            pool = stack.enter_context(ProcessPoolExecutor(job.decoders, context))
            pool.submit(os.getpid).result()  # forks them now, before the loop has threads
        uvloop.run(Generator(job, pool).run())


if __name__ == "__main__":
    main()
