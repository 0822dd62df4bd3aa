"""Processes that check replies and report their answers, so that the generator only hands bytes over.

A picture of 4 MB takes longer to decode than a send may be late, so nothing waits for it: neither the next send nor the
event loop. Replies that are not checked yet wait in memory, up to HELD.

While requests are sent, lookers run only when the processor is otherwise idle, because the server may be on the same
machine. Once all are sent, or half of HELD waits, as many helpers at normal priority join, or a busy machine would
never finish: a process at the lowest priority may not raise it again.
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
"""Bytes of replies that may wait; beyond that, requests are sent only as fast as replies are checked."""

GATHER_S = 0.02
"""Replies are gathered for this long and handed over together: waking a looker for each small one costs the generator
more than sending the next request."""

NICE = 19
"""Niceness of lookers while requests are sent, if the system lacks or refuses SCHED_IDLE."""

_SIZES = struct.Struct("<IQ")
"""Sizes of a parcel and of the reply that follows it, in bytes."""


class Parcel(msgspec.Struct, frozen=True):
    """What a looker needs to know of a reply."""

    answer: Answer  # without what is in the reply
    size: tuple[int, int] | None  # width and height that its pictures must have; None: it holds none
    image: str  # file for its picture; "" keeps none


class LookerDied(RuntimeError):
    """A looker ended too early: answers are lost."""


class Lookers:
    """Lookers as the generator sees them. Make them before the event loop runs, because they are forked."""

    def __init__(self, count: int, telling: Lock, pictures: bool = True) -> None:
        self._ends: list[socket.socket] = []
        self._processes: list[BaseProcess] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._gathered: list[list[bytes]] = [[] for _ in range(count)]
        self._next = 0
        if pictures:  # imported once, for all of them
            import numpy  # noqa: F401
            import PIL.Image

            PIL.Image.preinit()
        context = multiprocessing.get_context("fork")
        self._sent, sending = socket.socketpair()
        for _ in range(count):
            ours, theirs = socket.socketpair()
            common = theirs, (ours, self._sent), context.Lock(), telling
            for target, args in ((_look_at_leisure, common), (_help, (*common, sending))):
                process = context.Process(target=target, args=args, daemon=True)
                process.start()
                self._processes.append(process)
            theirs.close()
            self._ends.append(ours)
        sending.close()

    async def begin(self) -> None:
        """Connect to them, in the event loop."""
        for ours in self._ends:
            _, writer = await asyncio.open_connection(sock=ours)
            writer.transport.set_write_buffer_limits(high=HELD // len(self._ends))
            self._writers.append(writer)
        for process in self._processes:  # last: one that has ended already aborts every writer
            asyncio.get_running_loop().add_reader(process.sentinel, self._ended, process)

    async def hand(self, parcel: Parcel, reply: bytes) -> None:
        """Hand a reply over. Waits only while too many bytes wait already. Raises LookerDied."""
        place = self._next % len(self._writers)
        self._next += 1
        encoded = msgspec.msgpack.encode(parcel)
        if not self._gathered[place]:
            asyncio.get_running_loop().call_later(GATHER_S, self._pass_on, place)
        self._gathered[place] += (_SIZES.pack(len(encoded), len(reply)) + encoded, reply)
        writer = self._writers[place]
        if writer.transport.get_write_buffer_size() > HELD // 2 // len(self._writers):
            self._sent.close()
        try:
            await writer.drain()
        except OSError as error:
            raise LookerDied from error

    def _ended(self, process: BaseProcess) -> None:
        """A process ended. If too early, no reply can be handed over: its lock may never be free again."""
        asyncio.get_running_loop().remove_reader(process.sentinel)
        process.join()
        if process.exitcode:
            for writer in self._writers:
                writer.transport.abort()

    def _pass_on(self, place: int) -> None:
        if gathered := self._gathered[place]:
            self._gathered[place] = []
            self._writers[place].writelines(gathered)

    async def end(self) -> None:
        """Wait until everything is checked and reported. Raises LookerDied."""
        for place, writer in enumerate(self._writers):
            self._pass_on(place)
            if not writer.is_closing():
                writer.write_eof()
        self._sent.close()
        for process in self._processes:
            while process.is_alive():
                await asyncio.sleep(0.005)
            if process.exitcode:
                raise LookerDied
        for writer in self._writers:
            writer.close()


def tell(told: Told, telling: Lock) -> None:
    """Write one line, whole: several processes write."""
    line = memoryview(msgspec.json.encode(told) + b"\n")
    with telling:
        while line:
            line = line[os.write(1, line) :]


Ends = tuple[socket.socket, ...]
"""The generator's ends. A forked process closes its copies, or it would wait for itself."""


def _look_at_leisure(theirs: socket.socket, ours: Ends, reading: Lock, telling: Lock) -> None:
    """Entry point of a looker: until the generator has handed over everything, or is gone."""
    for end in ours:
        end.close()
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        os.nice(NICE)
    _look_at_all(theirs, reading, telling)


def _help(theirs: socket.socket, ours: Ends, reading: Lock, telling: Lock, sending: socket.socket) -> None:
    """Entry point of a helper, which begins when all is sent, too much waits, or the generator is gone."""
    for end in ours:
        end.close()
    sending.recv(1)
    _look_at_all(theirs, reading, telling)


def _look_at_all(source: socket.socket, reading: Lock, telling: Lock) -> None:
    while True:
        with reading:
            if not (head := _exactly(source, _SIZES.size)):
                return
            sizes = _SIZES.unpack(head)
            encoded, reply = (_exactly(source, size) for size in sizes)
        if len(encoded) + len(reply) < sum(sizes):
            return  # the generator was killed while it handed one over
        tell(Told(answer=_answered(msgspec.msgpack.decode(encoded, type=Parcel), reply)), telling)


def _exactly(source: socket.socket, size: int) -> bytes:
    """The next `size` bytes; fewer where the other end is closed."""
    parts = []
    while size and (data := source.recv(size, socket.MSG_WAITALL)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


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
