"""The load generator against bare aiohttp and uvloop: `python -m tests.bench.client`, in alternating pairs.

One server answers every request with the same bytes. Bare means: the same requests, as many in flight, replies read and
thrown away. Ours also parses, decodes and checks every picture, in a separate process, which may continue after all are
sent: the requests fill at most half of the memory for that. For a text, sent in 100 events, it notes when each arrived.
Prints requests a second of both while they send, their ratio (median of the pairs), and processor time a request.
"""

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from sweep.run.client.lookers import HELD
from sweep.run.client.messages import Due, Job, Told

GOAL = 0.7
EVENTS = 100  # of a text
MODEL = "same"


@dataclass(frozen=True)
class Work:
    """What is requested again and again."""

    name: str
    side: int = 0  # of its picture; 0 for a text

    @property
    def path(self) -> str:
        """Of the endpoint."""
        return "/v1/images/generations" if self.side else "/v1/completions"

    def body(self, number: int) -> dict[str, Any]:
        """Of one request."""
        options = {} if self.side else {"stream": True, "max_tokens": EVENTS, "stream_options": {"include_usage": True}}
        return {"prompt": "a", "seed": number, **options}

    def reply(self) -> list[bytes]:
        """What the server answers, in the parts in which it is sent."""
        if not self.side:
            return _events()
        return [_json(_picture(self.side))]


SMALL, LARGE, STREAM = Work("4 kB", 36), Work("2 MB", 724), Work(f"text in {EVENTS} events")
"""Pictures are noise of the side whose PNG in base64 is that large."""


def _json(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def _picture(side: int) -> bytes:
    """Body of an image endpoint's reply."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return json.dumps({"data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}]}).encode()


def _events() -> list[bytes]:
    """A stream as completions have it, with usage."""
    head = {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": MODEL}
    said: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "text": " a", "finish_reason": None if left else "length"}]}
        for left in reversed(range(EVENTS))
    ]
    used = {"prompt_tokens": 1, "completion_tokens": EVENTS, "total_tokens": 1 + EVENTS}
    events = [f"data: {json.dumps(one)}\n\n".encode() for one in [*said, {**head, "choices": [], "usage": used}]]
    parts = [b"%x\r\n%b\r\n" % (len(event), event) for event in [*events, b"data: [DONE]\n\n"]]
    begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [begun + parts[0], *parts[1:-1], parts[-1] + b"0\r\n\r\n"]


MODELS = [_json(json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())]


class Same(asyncio.Protocol):
    """Answers every request on a connection with the same bytes, GET with its model's name; reads only its length."""

    def __init__(self, answer: list[bytes]) -> None:
        self._answer, self._read = answer, b""
        self._soon = asyncio.get_running_loop().call_soon

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._read) < end + 4 + length:
                return
            self._read = self._read[end + 4 + length :]
            self._send(MODELS if head.startswith(b"get ") else self._answer)

    def _send(self, parts: list[bytes]) -> None:
        """One part per turn of the loop, otherwise they would be sent as one."""
        self._transport.write(parts[0])
        if len(parts) > 1:
            self._soon(self._send, parts[1:])


def _serve(answer: list[bytes], told: Any) -> None:
    import uvloop

    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Same(answer), "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


@contextmanager
def serving(work: Work) -> Iterator[str]:
    """URL of such a server."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(work.reply(), theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


def most(work: Work) -> int:
    """Requests whose pictures fill no more than half of the memory for those that wait to be decoded."""
    return HELD // sum(map(len, work.reply())) // 2 if work.side else 1_000_000


def ours(url: str, work: Work, count: int, flight: int) -> tuple[float, float]:
    """Requests per second, and the generator's processor seconds per request, without decoders."""
    due = [Due(f"r{number}", work.body(number), (work.side, work.side)) for number in range(count)]
    job = Job(url, work.path, due, 60.0, concurrency=flight, pictures=bool(work.side), streams=not work.side)
    command = [sys.executable, "-m", "sweep.run.client.process"]
    done = subprocess.run(command, input=msgspec.json.encode(job), capture_output=True, check=True)
    records = [msgspec.json.decode(line, type=Told) for line in done.stdout.splitlines()]
    answers = [one.answer for one in records if one.answer]
    assert len(answers) == count
    assert not any(one.error or one.fault for one in answers), answers[0]
    assert work.side or all(one.output_tokens == len(one.chunks_s) == EVENTS for one in answers)
    (ended,) = [one.ended for one in records if one.ended]
    return count / max(one.done_s for one in answers), ended.cpu_s / count


BARE = """
import asyncio, json, sys, time
import aiohttp, uvloop
url, body, count, flight = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
async def run():
    left = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async def work():
            for number in left:
                async with session.post(url, json={**body, "seed": number}) as response:
                    await response.read()
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work() for _ in range(flight)))
        print(json.dumps([count / (time.perf_counter() - began), (time.process_time() - cpu) / count]))
uvloop.run(run())
"""


def bare(url: str, work: Work, count: int, flight: int) -> tuple[float, float]:
    """The same of aiohttp and uvloop alone."""
    command = [sys.executable, "-c", BARE, url + work.path, json.dumps(work.body(0)), str(count), str(flight)]
    rate, cpu_s = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return rate, cpu_s


def main() -> int:
    """Measure and print; 1 where a ratio is below the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.client", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long one side of a pair sends")
    asked = parser.parse_args()
    wrong = 0
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, {asked.pairs} pairs each")
    for work in (SMALL, LARGE, STREAM):
        with serving(work) as url:
            for flight in (16, 64):
                count = min(max(200, int(asked.seconds * bare(url, work, 200, flight)[0])), most(work))
                pairs = []
                for number in range(asked.pairs):
                    both = [side(url, work, count, flight) for side in (ours, bare)[:: -1 if number % 2 else 1]]
                    pairs.append(both[:: -1 if number % 2 else 1])
                ratio = statistics.median(mine[0] / theirs[0] for mine, theirs in pairs)
                mine, theirs = ([statistics.median(one[side][k] for one in pairs) for k in (0, 1)] for side in (0, 1))
                said = " against ".join(f"{one[0]:.0f}/s at {1e3 * one[1]:.2f} ms of a core" for one in (mine, theirs))
                print(f"{work.name}, {flight} in flight, {count} requests: {said}; ratio {ratio:.2f}", flush=True)
                wrong += ratio < GOAL
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
