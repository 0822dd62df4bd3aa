"""Processes that look at replies and tell their answers, so that the generator only hands bytes over.

A picture of 4 MB takes longer to decode than a send may be late, so nothing waits for it: neither the next send nor the
event loop. What is not looked at yet waits in memory that both share, up to HELD; a socket carries only where it is.
"""

import asyncio
import contextlib
import mmap
import multiprocessing
import os
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Lock

import msgspec

from sweep.run.client.messages import REPLY, Answer, Told
from sweep.run.client.replies import look

HELD = 1_000_000_000
"""Bytes of replies that may wait; beyond, requests are sent as fast as replies are looked at."""

NICE = 19
"""Lookers take what the generator and the server leave of the processor."""

_HEAD = struct.Struct("<IQQ")
"""Bytes of the parcel that follows; where its reply begins in the shared memory, and its bytes."""

_DONE = b"."
"""What a looker answers for each reply, whose place is free then."""


class Parcel(msgspec.Struct, frozen=True):
    """What a looker needs to know of a reply."""

    answer: Answer  # without what is in the reply
    size: tuple[int, int] | None  # width and height that its pictures must have; None: it holds none
    image: str  # file for its picture; "" keeps none


class LookerDied(RuntimeError):
    """A looker ended before it was told to: answers are lost."""


class Ring:
    """Places for replies in memory of `size` bytes: each in one piece, freed in the order in which they were taken."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken: deque[tuple[int, int]] = deque()  # where each begins and ends

    def take(self, length: int) -> int | None:
        """Where a reply of this length may begin; None while there is no room. Raises ValueError if there never is."""
        if length > self._size:
            raise ValueError(f"a reply of {length:,} bytes; {self._size:,} can be held")
        if not self._taken:
            begin = 0
        else:
            first, end = self._taken[0][0], self._taken[-1][1]
            wrapped = self._taken[-1][0] < first
            if end + length <= (first - 1 if wrapped else self._size):
                begin = end
            elif not wrapped and length < first:
                begin = 0
            else:
                return None
        self._taken.append((begin, begin + length))
        return begin

    def free(self) -> None:
        """The one that was taken first is looked at."""
        self._taken.popleft()


@dataclass
class _Looker:
    """One looker as the generator sees it."""

    process: BaseProcess
    ours: socket.socket
    memory: mmap.mmap
    ring: Ring
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.StreamWriter | None = None
    listening: "asyncio.Task[None] | None" = None

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Free places as replies are looked at."""
        while done := await reader.read(4096):
            for _ in done:
                self.ring.free()
            self.freed.set()
        self.freed.set()


class Lookers:
    """Lookers as the generator sees them. Make them before the event loop runs, because they are forked."""

    def __init__(self, count: int, telling: Lock) -> None:
        self._lookers: list[_Looker] = []
        self._next = 0
        context = multiprocessing.get_context("fork")
        for _ in range(count):
            ours, theirs = socket.socketpair()
            memory = mmap.mmap(-1, HELD // count)
            process = context.Process(target=_look_at, args=(theirs, ours, memory, telling), daemon=True)
            process.start()
            theirs.close()
            self._lookers.append(_Looker(process, ours, memory, Ring(HELD // count)))

    async def begin(self) -> None:
        """Connect to them, in the event loop."""
        for one in self._lookers:
            reader, one.writer = await asyncio.open_connection(sock=one.ours)
            one.listening = asyncio.create_task(one.listen(reader))

    async def hand(self, parcel: Parcel, reply: bytes) -> None:
        """Hand a reply over. Waits only while too many bytes wait already. Raises LookerDied; ValueError as Ring."""
        one = self._lookers[self._next % len(self._lookers)]
        self._next += 1
        while (begin := one.ring.take(len(reply))) is None:
            one.freed.clear()
            await one.freed.wait()
            if one.listening is None or one.listening.done():
                raise LookerDied
        one.memory[begin : begin + len(reply)] = reply
        told = msgspec.msgpack.encode(parcel)
        assert one.writer is not None
        one.writer.write(_HEAD.pack(len(told), begin, len(reply)) + told)
        try:
            await one.writer.drain()
        except OSError as error:
            raise LookerDied from error

    async def end(self) -> None:
        """Wait until everything is looked at and told. Raises LookerDied."""
        for one in self._lookers:
            assert one.writer is not None
            one.writer.write_eof()
        for one in self._lookers:
            while one.process.is_alive():
                await asyncio.sleep(0.005)
            if one.process.exitcode:
                raise LookerDied


def tell(told: Told, telling: Lock) -> None:
    """Write one line, whole: several processes write."""
    line = memoryview(msgspec.json.encode(told) + b"\n")
    with telling:
        while line:
            line = line[os.write(1, line) :]


def _look_at(theirs: socket.socket, ours: socket.socket, memory: mmap.mmap, telling: Lock) -> None:
    """Entry point of a looker: until the generator has handed over everything, or is gone."""
    ours.close()
    os.nice(NICE)
    import numpy  # noqa: F401  # what the first picture would wait for
    import PIL.Image  # noqa: F401

    with theirs.makefile("rb") as source:
        while head := source.read(_HEAD.size):
            parcel_size, begin, reply_size = _HEAD.unpack(head)
            parcel = msgspec.msgpack.decode(source.read(parcel_size), type=Parcel)
            with memoryview(memory)[begin : begin + reply_size] as reply:
                answer = _answered(parcel, reply)
            tell(Told(answer=answer), telling)
            with contextlib.suppress(OSError):  # the generator may have ended and wait for nothing but us
                theirs.sendall(_DONE)


def _answered(parcel: Parcel, reply: memoryview) -> Answer:
    looked = look(reply, parcel.size, parcel.image)
    return msgspec.structs.replace(
        parcel.answer,
        error=looked.error,
        failure=REPLY if looked.error else "",
        fault=looked.fault,
        image_hash=looked.image_hash,
        metrics=looked.metrics,
    )
