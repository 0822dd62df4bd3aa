"""What the plugin of vLLM-Omni costs a step of an AR stage: `python -m tests.bench.steps`, on a GPU host or a CPU.

Requests of an AR stage differ by 8 % on a GPU, as their 1,280 decode steps wait for the host, and the plugin's cost
cannot be seen in that (tests.bench.plugin). So here the plugin's own hooks wrap a runner that does a given number of
kernel launches per step, or little, and requests are observed and unobserved in turns: the difference is the extra host
time of a step. Compare it with the `ar_decode` of a measured cell, which is its upper bound.
"""

import argparse
import json
import statistics
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from profiling.vllm_plugin.autoregressive import hook_runner
from profiling.vllm_plugin.record_files import PAUSED
from tests.bench.engines import interval
from tests.bench.plugin import in_turns

STEPS = 256
"""Decode steps of a request."""

SETTLED_S = 0.1
"""After a request, in which the plugin writes down its steps, as it does while the DiT runs."""


@dataclass
class Here:
    """Where the plugin writes."""

    folder: Path

    def report(self) -> None:
        """Print what goes wrong."""
        traceback.print_exc()


@dataclass
class Scheduled:
    """As much of vLLM's SchedulerOutput as the plugin reads."""

    scheduled_new_reqs: list[Any]
    num_scheduled_tokens: dict[str, int] = field(default_factory=lambda: {"a": 1})
    scheduled_cached_reqs: Any = field(
        default_factory=lambda: SimpleNamespace(num_output_tokens=[1], resumed_req_ids=())
    )
    total_num_scheduled_tokens: int = 1


class Runner:
    """Launches kernels, as a decode step does."""

    def __init__(self, launches: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.launches = launches
        self.state = torch.zeros(64, device=self.device)

    def execute_model(self, scheduler_output: Scheduled) -> None:
        """The forward; sampling comes later."""
        for _ in range(self.launches):
            self.state.add_(1.0)

    def sample_tokens(self, grammar_output: Any) -> None:
        """Sampling waits for nothing, as with async scheduling."""


def request(runner: Runner) -> float:
    """Milliseconds of a request's decode steps; the GPU has done all before and afterwards."""
    begin, later = Scheduled([SimpleNamespace(req_id="a")]), Scheduled([])
    runner.execute_model(begin)
    runner.sample_tokens(None)
    if runner.device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(STEPS):
        runner.execute_model(later)
        runner.sample_tokens(None)
    if runner.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1000.0


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.steps", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--launches", type=int, default=100, metavar="N", help="kernel launches a step (default 100)")
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="pairs of requests (default 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all times too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweep-bench-") as temporary:
        hook_runner(Runner, Here(Path(temporary)))
        runner, paused = Runner(asked.launches), Path(temporary) / PAUSED

        def settled(*_: object) -> float:
            took_ms = request(runner)
            time.sleep(SETTLED_S)
            return took_ms

        pairs = list(in_turns(paused, settled, asked.rounds, warm_up=3))
    more_us = [(observed - plain) / STEPS * 1000.0 for observed, plain in pairs]
    low, high = interval(more_us)
    plain_us = statistics.median(plain for _, plain in pairs) / STEPS * 1000.0
    cost_us = statistics.median(more_us)
    print(f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}, {asked.launches} launches a step:")
    print(f"a step takes {plain_us:.1f} us unobserved, {cost_us:.2f} us more observed (95 % {low:.2f} to {high:.2f})")
    if asked.json:
        data = {"launches": asked.launches, "steps": STEPS, "cost_us": cost_us, "low": low, "high": high}
        asked.json.write_text(json.dumps({**data, "observed_ms_unobserved_ms": pairs}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
