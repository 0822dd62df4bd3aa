"""Processes that look at replies and tell their answers, so that the generator only hands bytes over.

A picture of 4 MB takes longer to decode than a send may be late, so nothing waits for it: neither the next send nor the
event loop. What is not looked at yet waits in memory, up to HELD.
"""

import asyncio
import multiprocessing
import os
import socket
import struct
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Lock

import msgspec

from sweep.run.client.messages import REPLY, Answer, Told
from sweep.run.client.replies import look

HELD = 1_000_000_000
"""Bytes of replies that may wait; beyond, requests are sent as fast as replies are looked at."""

GATHER_S = 0.02
"""Replies of so long are handed over at once: to wake a looker for each small one costs the generator more than to send
the next request."""

NICE = 19
"""Lookers take what the generator and the server leave of the processor."""

READ = 1 << 18
"""Bytes that a looker reads at once."""

_SIZES = struct.Struct("<IQ")
"""Of a parcel and of the reply that follows it, in bytes."""


class Parcel(msgspec.Struct, frozen=True):
    """What a looker needs to know of a reply."""

    answer: Answer  # without what is in the reply
    size: tuple[int, int] | None  # width and height that its pictures must have; None: it holds none
    image: str  # file for its picture; "" keeps none


class LookerDied(RuntimeError):
    """A looker ended before it was told to: answers are lost."""


class Lookers:
    """Lookers as the generator sees them. Make them before the event loop runs, because they are forked."""

    def __init__(self, count: int, telling: Lock, pictures: bool = True) -> None:
        self._ends: list[tuple[socket.socket, BaseProcess]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._gathered: list[list[bytes]] = [[] for _ in range(count)]
        self._next = 0
        context = multiprocessing.get_context("fork")
        for _ in range(count):
            ours, theirs = socket.socketpair()
            process = context.Process(target=_look_at, args=(theirs, ours, telling, pictures), daemon=True)
            process.start()
            theirs.close()
            self._ends.append((ours, process))

    async def begin(self) -> None:
        """Connect to them, in the event loop."""
        for ours, _ in self._ends:
            _, writer = await asyncio.open_connection(sock=ours)
            writer.transport.set_write_buffer_limits(high=HELD // len(self._ends))
            self._writers.append(writer)

    async def hand(self, parcel: Parcel, reply: bytes) -> None:
        """Hand a reply over. Waits only while too many bytes wait already. Raises LookerDied."""
        place = self._next % len(self._writers)
        self._next += 1
        told = msgspec.msgpack.encode(parcel)
        if not self._gathered[place]:
            asyncio.get_running_loop().call_later(GATHER_S, self._pass_on, place)
        self._gathered[place] += (_SIZES.pack(len(told), len(reply)) + told, reply)
        try:
            await self._writers[place].drain()
        except OSError as error:
            raise LookerDied from error

    def _pass_on(self, place: int) -> None:
        if gathered := self._gathered[place]:
            self._gathered[place] = []
            self._writers[place].writelines(gathered)

    async def end(self) -> None:
        """Wait until everything is looked at and told. Raises LookerDied."""
        for place, writer in enumerate(self._writers):
            self._pass_on(place)
            writer.write_eof()
        for _, process in self._ends:
            while process.is_alive():
                await asyncio.sleep(0.005)
            if process.exitcode:
                raise LookerDied


def tell(told: Told, telling: Lock) -> None:
    """Write one line, whole: several processes write."""
    line = memoryview(msgspec.json.encode(told) + b"\n")
    with telling:
        while line:
            line = line[os.write(1, line) :]


def _look_at(theirs: socket.socket, ours: socket.socket, telling: Lock, pictures: bool) -> None:
    """Entry point of a looker: until the generator has handed over everything, or is gone."""
    ours.close()
    os.nice(NICE)
    if pictures:
        import numpy  # noqa: F401  # what the first picture would wait for
        import PIL.Image  # noqa: F401

    with theirs.makefile("rb", buffering=READ) as source:
        while head := source.read(_SIZES.size):
            parcel_size, reply_size = _SIZES.unpack(head)
            parcel = msgspec.msgpack.decode(source.read(parcel_size), type=Parcel)
            tell(Told(answer=_answered(parcel, source.read(reply_size))), telling)


def _answered(parcel: Parcel, reply: bytes) -> Answer:
    looked = look(reply, parcel.size, parcel.image)
    return msgspec.structs.replace(
        parcel.answer,
        error=looked.error,
        failure=REPLY if looked.error else "",
        fault=looked.fault,
        image_hash=looked.image_hash,
        metrics=looked.metrics,
    )
