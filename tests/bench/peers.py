"""The load generator against others: `python -m tests.bench.peers --aiperf PATH --guidellm PATH`, one after another.

The server of tests.bench.client answers every request with the same bytes: pictures of 4 kB and of 2 MB, and a text in
100 events. Each client sends the same work with as many requests in flight, in turns whose order changes; bare aiohttp
with uvloop reads replies and throws them away, ours decodes and checks every picture, and the others run with their
defaults. Rates come from a client's own report. Processor time covers all its processes, for many requests minus that
for few, so that its start does not count. A text costs the server, which sends it in 100 parts, about as much as it
costs bare aiohttp, a core each.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import client
from tests.bench.client import LARGE, MODEL, SMALL, STREAM, Work, most, serving
from tests.bench.peer_commands import AIPerf, Found, GuideLLM, Load, PeerFailed, children_cpu_s

FEW = 100  # requests of a run that shows what a start costs
STARTS = 3  # such runs, of which the median counts
OURS = "ours"


@dataclass(frozen=True)
class Client:
    """One that sends requests: (url, work, requests, in flight) → what came of it. Raises PeerFailed."""

    name: str
    send: Callable[[str, Work, int, int], Found]
    limited: bool = False  # sends no more than `most`


@dataclass(frozen=True)
class Turn:
    """What a client did in one round."""

    rate: float
    cpu_ms: float  # a request
    sender_ms: float  # of it in the process that sends, where that is known


def here(send: Callable[[str, Work, int, int], tuple[float, float]]) -> Callable[[str, Work, int, int], Found]:
    """Of a client of `tests.bench.client`."""

    def sent(url: str, work: Work, count: int, flight: int) -> Found:
        before_s = children_cpu_s()
        rate, cpu_s = send(url, work, count, flight)
        return Found(rate, children_cpu_s() - before_s, sender_cpu_s=cpu_s * count)

    return sent


def there(peer: AIPerf | GuideLLM) -> Client:
    """Of a program of its own."""

    def sent(url: str, work: Work, count: int, flight: int) -> Found:
        load = Load(url, MODEL, count, flight, picture=bool(work.side), output_len=client.EVENTS)
        if why := peer.refusal(load):
            raise PeerFailed(why)
        return peer.run(load)

    return Client(peer.name, sent)


def raced(clients: Sequence[Client], url: str, work: Work, flight: int, pairs: int, seconds: float) -> None:
    """Print what each client does with one work."""
    few: dict[Client, list[Found]] = {}
    for one in clients:
        try:
            few[one] = [one.send(url, work, FEW, flight) for _ in range(min(pairs, STARTS))]
        except PeerFailed as why:
            print(f"  {one.name:<9} cannot: {why}", flush=True)
    start_s = {one: statistics.median(found.cpu_s for found in some) for one, some in few.items()}
    counts = {
        one: min(max(3 * FEW, int(seconds * some[-1].rate)), most(work) if one.limited else sys.maxsize)
        for one, some in few.items()
    }
    turns: dict[Client, list[Turn]] = {one: [] for one in few}
    for number in range(pairs):
        order = list(turns)
        for one in order[number % len(order) :] + order[: number % len(order)]:
            try:
                found = one.send(url, work, counts[one], flight)
            except PeerFailed as why:
                raise SystemExit(f"{one.name}, {counts[one]} requests: {why}") from None
            cpu_ms = 1e3 * (found.cpu_s - start_s[one]) / (counts[one] - FEW)
            turns[one].append(Turn(found.rate, cpu_ms, 1e3 * found.sender_cpu_s / counts[one]))
    (mine,) = (some for one, some in turns.items() if one.name == OURS)
    for one, theirs in turns.items():
        print(f"  {one.name:<9} {_said(theirs, mine)}, {counts[one]} requests", flush=True)


def _said(theirs: list[Turn], mine: list[Turn]) -> str:
    rates = [turn.rate for turn in theirs]
    ratios = [ours.rate / other.rate for ours, other in zip(mine, theirs, strict=True)]
    cpu_ms, sender_ms = (statistics.median(getattr(turn, name) for turn in theirs) for name in ("cpu_ms", "sender_ms"))
    said = f"{statistics.median(rates):7.0f}/s ({min(rates):.0f} to {max(rates):.0f})"
    said += f", {cpu_ms:6.2f} ms of a core a request"
    said += f", {sender_ms:.2f} in the process that sends" if sender_ms else ""
    return said + ("" if theirs is mine else f"; ours {statistics.median(ratios):.2f} × as many")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--aiperf", type=Path, metavar="PATH", help="its program; without, it is left out")
    parser.add_argument("--guidellm", type=Path, metavar="PATH", help="the same")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="about how long each client sends")
    parser.add_argument("--quick", action="store_true", help="one short round with 16 in flight")
    asked = parser.parse_args()
    clients = [Client(OURS, here(client.ours), limited=True), Client("bare", here(client.bare))]
    peers: list[AIPerf | GuideLLM] = [AIPerf(asked.aiperf)] if asked.aiperf else []
    peers += [GuideLLM(asked.guidellm)] if asked.guidellm else []
    pairs, seconds = (1, 2.0) if asked.quick else (asked.pairs, asked.seconds)
    named = "".join(f", {peer.name}{peer.version()}" for peer in peers)
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, rounds: {pairs}{named}")
    for work in (SMALL, LARGE, STREAM):
        with serving(work) as url:
            for flight in (16,) if asked.quick else (16, 64):
                print(f"{work.name}, {flight} in flight", flush=True)
                raced([*clients, *map(there, peers)], url, work, flight, pairs, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
