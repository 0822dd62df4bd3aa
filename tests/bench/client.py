"""The load generator against bare aiohttp and uvloop: `python -m tests.bench.client`, in alternating pairs.

One server answers every request with the same bytes. Bare means: the same requests, as many in flight, replies read and
thrown away. Ours also parses, decodes and checks every picture, in a process of its own, which may go on when all are
sent: there are no more requests than half of the memory for that takes. Prints requests a second of both while they
send, their ratio (median of the pairs), and processor time a request.
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
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from sweep.run.client.lookers import HELD
from sweep.run.client.messages import Due, Job, Told

GOAL = 0.7
SIZES = {"4 kB": 36, "2 MB": 724}
"""Replies, and the side of the noise picture whose PNG in base64 is that large."""


def reply_of(side: int) -> bytes:
    """Body of an image endpoint's reply."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return json.dumps({"data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}]}).encode()


class Same(asyncio.Protocol):
    """Answers every request on a connection with the same bytes; reads no more of it than its length."""

    def __init__(self, answer: bytes) -> None:
        self._answer, self._read = answer, b""

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
            self._transport.write(self._answer)


def _serve(body: bytes, told: Any) -> None:
    import uvloop

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Same(answer), "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """URL of such a server."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(body, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


def ours(url: str, count: int, side: int, flight: int) -> tuple[float, float]:
    """Requests a second, and seconds of processor time of the generator a request, decoders not counted."""
    due = [Due(f"r{number}", {"prompt": "a", "seed": number}, (side, side)) for number in range(count)]
    job = Job(url, "/v1/images/generations", due, 60.0, concurrency=flight)
    command = [sys.executable, "-m", "sweep.run.client.process"]
    done = subprocess.run(command, input=msgspec.json.encode(job), capture_output=True, check=True)
    told = [msgspec.json.decode(line, type=Told) for line in done.stdout.splitlines()]
    answers = [one.answer for one in told if one.answer]
    assert len(answers) == count
    assert not any(one.error or one.fault for one in answers), answers[0]
    (ended,) = [one.ended for one in told if one.ended]
    return count / max(one.done_s for one in answers), ended.cpu_s / count


BARE = """
import asyncio, json, sys, time
import aiohttp, uvloop
url, count, flight = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
async def run():
    left = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async def work():
            for number in left:
                async with session.post(url, json={"prompt": "a", "seed": number}) as response:
                    await response.read()
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work() for _ in range(flight)))
        print(json.dumps([count / (time.perf_counter() - began), (time.process_time() - cpu) / count]))
uvloop.run(run())
"""


def bare(url: str, count: int, flight: int) -> tuple[float, float]:
    """The same of aiohttp and uvloop alone."""
    command = [sys.executable, "-c", BARE, f"{url}/v1/images/generations", str(count), str(flight)]
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
    for name, side in SIZES.items():
        body = reply_of(side)
        with serving(body) as url:
            for flight in (16, 64):
                count = min(max(200, int(asked.seconds * bare(url, 200, flight)[0])), HELD // len(body) // 2)
                pairs = []
                for number in range(asked.pairs):
                    both = [ours(url, count, side, flight), bare(url, count, flight)][:: 1 if number % 2 else -1]
                    pairs.append(both if number % 2 else both[::-1])
                ratio = statistics.median(mine[0] / theirs[0] for mine, theirs in pairs)
                mine, theirs = ([statistics.median(one[side][k] for one in pairs) for k in (0, 1)] for side in (0, 1))
                both = " against ".join(f"{one[0]:.0f}/s at {1e3 * one[1]:.2f} ms of a core" for one in (mine, theirs))
                print(f"{name}, {flight} in flight, {count} requests: {both}; ratio {ratio:.2f}", flush=True)
                wrong += ratio < GOAL
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
