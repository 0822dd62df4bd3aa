"""A load that several processes send, where one cannot keep up: requests are dealt out, and all begin at one moment."""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from typing import Any

import msgspec

from sweep.engines.process.orphans import end_when, process_exists
from sweep.run.client.messages import Ended, Job

SOON_S = 0.1  # from when all are ready until they begin
READY_S = 60.0  # for the others to be ready once the first one has warmed up

Gate = Callable[[], Awaitable[float]]
"""Waits until all are ready; returns when the load begins, on time.perf_counter."""

Work = Callable[[Job, Gate, bool], Ended]
"""Does a job once its gate opens; only the first one (True) reports when that was."""


def dealt(job: Job) -> list[Job]:
    """A job for each process, with requests dealt out in turn; only the first one warms up."""
    count = max(1, min(job.clients, len(job.requests), job.concurrency or len(job.requests)))
    shares = [
        None if job.concurrency is None else len(range(number, job.concurrency, count)) for number in range(count)
    ]
    return [
        msgspec.structs.replace(
            job,
            clients=1,
            requests=job.requests[number::count],
            warm_up=[] if number else job.warm_up,
            concurrency=shares[number],
        )
        for number in range(count)
    ]


def together(jobs: list[Job], work: Work) -> Ended:
    """Do all jobs, the first one in this process, and report how the generators did: the slowest one counts.

    Raises RuntimeError when one of the others ended early.
    """
    context = multiprocessing.get_context("fork")
    begin, ready = context.Value("d", 0.0), context.Barrier(len(jobs))
    others = []
    for job in jobs[1:]:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_other, args=(job, work, begin, ready, theirs))
        process.start()
        theirs.close()
        others.append((process, ours))

    async def first() -> float:
        await _met(ready, READY_S)
        begin.value = time.perf_counter() + SOON_S
        return await _opened(begin, ready)

    ended = [work(jobs[0], first, True)]
    for process, ours in others:
        try:
            ended.append(msgspec.msgpack.decode(ours.recv_bytes(), type=Ended))
        except EOFError as error:
            process.join()
            raise RuntimeError(f"a process of the load generator ended early (exit code {process.exitcode})") from error
    return Ended(*(max(getattr(one, name) for one in ended) for name in Ended.__struct_fields__))


async def _met(ready: Barrier, timeout_s: float | None = None) -> None:
    """Wait until all are ready. Raises threading.BrokenBarrierError when one does not come."""
    await asyncio.get_running_loop().run_in_executor(None, ready.wait, timeout_s)


async def _opened(begin: "Synchronized[float]", ready: Barrier) -> float:
    await _met(ready)
    began_s = float(begin.value)
    await asyncio.sleep(max(0.0, began_s - time.perf_counter()))
    return began_s


def _other(job: Job, work: Work, begin: "Synchronized[float]", ready: Barrier, theirs: Connection) -> None:
    """Entry point of another process."""
    started_by = os.getppid()
    end_when(lambda: os.getppid() != started_by or not process_exists(started_by))

    async def gate() -> float:
        await _met(ready)
        return await _opened(begin, ready)

    ended: Any = work(job, gate, False)
    theirs.send_bytes(msgspec.msgpack.encode(ended))
    theirs.close()
