"""Do published clients measure what ours does? `python -m tests.bench.agreement --aiperf PATH --guidellm PATH`.

All send the same work to one server of `sweep.serve`, in turns whose order changes: texts of 64 tokens in and 32 out.
The server writes one text after another, so with two in flight each waits for the one before. For two loads its engine
writes tokens at known times; for one it is the embedded model, which shares the processor with its clients. A client
agrees where the median of its figure over ours is within 5 %, or within the spread of either's rounds. Prints the means
of each.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.engines.noop.engine import NoopEngine
from sweep.engines.protocol import Request, Writing
from tests.bench.peer_commands import AIPerf, Found, GuideLLM, Load, PeerFailed, ran

FIRST_S, TOKEN_S = 0.02, 0.005
"""When the first token of a text is due, and the gap to each next one."""

INPUT_LEN, OUTPUT_LEN = 64, 32
WITHIN = 0.05
MODEL = "tiny_glm_image"
SERVED = " is served at "
FIGURES = {"TTFT": "ttft_ms", "ITL": "itl_ms", "requests/s": "rate"}


class Paced(NoopEngine):
    """Writes each token when it is due."""

    def __init__(self) -> None:
        pass

    def write(self, request: Request) -> Writing:
        """Known times."""
        assert request.text is not None
        return Writing(super().write(request).prompt_tokens, _paced(request.text.max_tokens))


def _paced(tokens: int) -> Iterator[str]:
    due_s = time.perf_counter() + FIRST_S
    for _ in range(tokens):
        time.sleep(max(0.0, due_s - time.perf_counter()))
        yield " a"
        due_s += TOKEN_S


def _serve_paced(told: Any) -> None:
    from sweep.engines.serving.server import Server
    from sweep.engines.serving.settings import ServeSettings

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server(Paced(), ServeSettings(MODEL))
    told.send(server.url)
    server.run(lambda: False, lambda _: None)


@contextmanager
def paced() -> Iterator[str]:
    """URL of a server whose tokens come at known times."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve_paced, args=(theirs,), daemon=True)
    process.start()
    try:
        yield str(ours.recv())
    finally:
        process.kill()
        process.join()


@contextmanager
def embedded() -> Iterator[str]:
    """URL of the embedded model's server."""
    command = [sys.executable, "-m", "sweep.serve", "--port", "0", f"model={MODEL}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    try:
        for line in server.stdout:
            if SERVED in line:
                yield line.split(SERVED)[1].split()[0]
                break
            print(f"  {line.rstrip()}", flush=True)  # for example that it waits for devices
        else:
            raise SystemExit("the embedded server did not start")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def ours(load: Load) -> Found:
    """What a sweep says about a load."""
    folder = Path(tempfile.mkdtemp(prefix="sweep-agreement-"))
    given = {
        **{"engine": "endpoint", "engine.url": load.url, "workload": "text", "workload.prompt_ids": "true"},
        **{"workload.input_len": load.input_len, "workload.output_len": load.output_len, "load": "closed"},
        **{"load.max_concurrency": load.flight, "load.num_requests": load.count, "load.warmup_requests": 0},
        **{"aa": 0, "plots": "false", "hydra.sweep.dir": folder},
    }
    try:
        cpu_s = ran([sys.executable, "-m", "sweep", "-m", *(f"{name}={value}" for name, value in given.items())])
        (file,) = folder.glob("*/bench.json")
        record = json.loads(file.read_bytes())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if record["completed"] != load.count:
        raise PeerFailed(f"{record['completed']} of {load.count} requests succeeded")
    return Found(record["request_throughput"], cpu_s, record["mean_ttft_ms"], record["mean_tpot_ms"])


def compared(clients: Mapping[str, Callable[[Load], Found]], load: Load, rounds: int) -> bool:
    """Print what each client finds; whether all agree with ours."""
    found: dict[str, list[Found]] = {name: [] for name in clients}
    for number in range(rounds):
        names = list(clients)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(clients[name](load))
    agreed = True
    for figure, field in FIGURES.items():
        mine, *others = ([float(getattr(one, field)) for one in found[name]] for name in clients)
        print(f"  {figure}: ours {_span(mine)}", end="")
        for name, theirs in zip(list(clients)[1:], others, strict=True):
            ratio = statistics.median(other / one for one, other in zip(mine, theirs, strict=True))
            most = max(WITHIN, *((max(some) - min(some)) / statistics.median(some) for some in (mine, theirs)))
            same = abs(ratio - 1) <= most
            agreed &= same
            said = f"within {100 * most:.0f} %" if same else f"DIFFERS by more than {100 * most:.0f} %"
            print(f"; {name} {_span(theirs)}, {ratio:.3f} ×, {said}", end="")
        print(flush=True)
    return agreed


def _span(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> int:
    """Measure and print; 1 where a client disagrees."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.agreement", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--aiperf", type=Path, metavar="PATH", help="its program; without, it is left out")
    parser.add_argument("--guidellm", type=Path, metavar="PATH", help="the same")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=60)
    asked = parser.parse_args()
    peers: list[AIPerf | GuideLLM] = [AIPerf(asked.aiperf)] if asked.aiperf else []
    peers += [GuideLLM(asked.guidellm)] if asked.guidellm else []
    clients = {"ours": ours, **{peer.name: peer.run for peer in peers}}
    named = "".join(f", {peer.name}{peer.version()}" for peer in peers)
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, {asked.rounds} × {asked.requests} requests{named}")
    whole_s = FIRST_S + (OUTPUT_LEN - 1) * TOKEN_S
    agreed = True
    for server, flight, name in ((paced, 1, "known times"), (paced, 2, "known times"), (embedded, 2, MODEL)):
        truth = f": TTFT {1e3 * (FIRST_S + (flight - 1) * whole_s):.0f}, ITL {1e3 * TOKEN_S:.0f}, {1 / whole_s:.2f}/s"
        print(f"{name}, {flight} in flight{truth if server is paced else ''}", flush=True)
        with server() as url:
            load = Load(url, MODEL, asked.requests, flight, input_len=INPUT_LEN, output_len=OUTPUT_LEN)
            agreed &= compared(clients, load, asked.rounds)
    return int(not agreed)


if __name__ == "__main__":
    sys.exit(main())
