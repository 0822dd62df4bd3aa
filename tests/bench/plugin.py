"""What the plugin of vLLM-Omni costs a request: `python -m tests.bench.plugin SETTING…`, on a GPU host.

One engine generates the same requests observed and unobserved in turns (A B, B A, …), so that neither a drifting GPU
nor the luck of a start, which alone differs by some 0.3 %, counts as its cost. A request is unobserved if a file says
so when it begins (`PAUSED` in profiling/vllm_plugin/record_files.py): no ranges, no events, nothing is read or written;
what is left is a plain call where the plugin intercepts one. Prints the median ratio with its 95 % interval (bootstrap
over the pairs). Ctrl-C ends it with what it has.

    python -m tests.bench.plugin engine=vllm_omni model=qwen_image model.path=DIR workload=image_1024 --rounds 48
"""

import argparse
import json
import os
import signal
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from profiling.vllm_plugin.record_files import PAUSED
from sweep.config.run import RunConfig
from sweep.engines.process.host import EngineHost
from sweep.workload.requests import batches, build_requests
from tests.bench.engines import configured, interval, started

Pair = tuple[float, float]
"""Time of the same work, observed and unobserved."""


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plugin", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("settings", nargs="+", help="as `python -m sweep` takes them")
    parser.add_argument("--rounds", type=int, default=48, metavar="N", help="pairs (default 48)")
    parser.add_argument("--goal", type=float, default=1.005, metavar="R", help="most that with ÷ without may be")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all latencies too")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="sweep-bench-") as temporary:
        os.environ["TMPDIR"] = temporary  # the engine makes the plugin's folder in there
        run = configured(asked.settings)
        host, load_s = started(run)
        try:
            print(f"loaded in {load_s:.1f} s", flush=True)
            (folder,) = Path(temporary).glob("*/plugin")
            for pair in measure(host, run, folder / PAUSED, asked.rounds):
                pairs.append(pair)
        except KeyboardInterrupt:
            if not pairs:
                raise
        finally:
            host.close()
    ratios = [observed / plain for observed, plain in pairs]
    ratio, (low, high) = statistics.median(ratios), interval(ratios)
    observed_s, plain_s = map(statistics.median, zip(*pairs, strict=True))
    print(f"observed {observed_s:.4f} s, unobserved {plain_s:.4f} s a batch (medians of {len(pairs)})")
    met = "met" if ratio <= asked.goal else "MISSED"
    print(f"with ÷ without {ratio:.4f} (95 % interval {low:.4f} to {high:.4f}), goal at most {asked.goal:g}: {met}")
    if asked.json:
        data = {"settings": asked.settings, "ratio": ratio, "low": low, "high": high, "observed_s_unobserved_s": pairs}
        asked.json.write_text(json.dumps(data, indent=1))
    return int(ratio > asked.goal)


def measure(host: EngineHost, run: RunConfig, paused: Path, rounds: int) -> Iterator[Pair]:
    """One pair per round, after two that warm up. Raises RuntimeError when pausing the plugin has no effect."""
    requests = batches(build_requests(run.workload, run.batch, run.seed), run.batch)

    def generate(number: int, observed: bool) -> float:
        batch = requests[number % len(requests)]
        output = host.generate(batch, None, run.engine.request_timeout_s, "measuring")
        if bool(output.evidence) != observed:
            raise RuntimeError("the plugin does not heed the file that pauses it")
        return output.latency_s

    return in_turns(paused, generate, rounds, warm_up=2)


def in_turns(paused: Path, timed: Callable[[int, bool], float], rounds: int, warm_up: int) -> Iterator[Pair]:
    """What `timed(round, observed)` took, observed and unobserved, one pair per round; rounds below 0 warm up."""
    for number in range(-warm_up, rounds):
        took = {}
        for observed in (True, False) if number % 2 == 0 else (False, True):
            paused.unlink(missing_ok=True) if observed else paused.touch()
            took[observed] = timed(number, observed)
        if number >= 0:
            yield took[True], took[False]


if __name__ == "__main__":
    raise SystemExit(main())
