"""What recording phases costs a request: `python -m tests.bench.recording`, part of `make bench`.

One process, one embedded pipeline: the recorder is attached and taken off in turns (A B, B A, …), so that neither a
drifting machine nor the luck of a process, which alone differs by some 5 %, counts as its cost. A request is timed
until its phases are read. No tool is attached, as in every measurement. What counts is CPU time, which is all that
recording takes on a CPU and which neighbours on a shared machine disturb less; wall time is printed next to it. What
vLLM-Omni's plugin costs is measured on GPUs: `python -m tests.bench.plugin`.
"""

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from profiling import instrument, ranges
from profiling.phases import PhaseRecorder
from sweep.engines.diffusers.adapters import quiet_libraries
from tests.bench.engines import interval
from tests.profiling.tiny_pipelines import arguments, load

STEPS = 8
MODELS = ("tiny_glm_image_random", "tiny_qwen_image")


@dataclass(frozen=True)
class Took:
    """What one request took."""

    cpu_s: float
    wall_s: float
    phases: int  # recorded


@dataclass(frozen=True)
class Paired:
    """Ratio of pairs, with ÷ without, with its 95 % interval, and the medians in seconds."""

    ratio: float
    low: float
    high: float
    with_s: float
    without_s: float

    def __str__(self) -> str:
        spread = f"95 % interval {self.low:.4f} to {self.high:.4f}"
        return f"{self.ratio:.4f} ({spread}; {self.with_s:.4f} s and {self.without_s:.4f} s)"


def request(pipeline: Any, recorder: PhaseRecorder | None) -> Took:
    """Generate one image, with its phases recorded or not."""
    asked = arguments(pipeline, num_inference_steps=STEPS)
    detach = instrument.attach(pipeline, recorder) if recorder else lambda: None
    try:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        with recorder.phase("request") if recorder else contextlib.nullcontext():
            pipeline(**asked)
        phases = len(recorder.take()) if recorder else 0
        return Took(time.process_time() - cpu_s, time.perf_counter() - wall_s, phases)
    finally:
        detach()


def measure(model: str, rounds: int) -> list[tuple[Took, Took]]:
    """With and without the recorder, in pairs."""
    pipeline, recorder = load(model), PhaseRecorder(0, "cpu")
    pairs = []
    for number in range(-2, rounds):
        order = (recorder, None) if number % 2 == 0 else (None, recorder)
        took = {one is recorder: request(pipeline, one) for one in order}
        if number >= 0:  # the first two warm up
            pairs.append((took[True], took[False]))
    return pairs


def paired(pairs: Sequence[tuple[float, float]]) -> Paired:
    """The median ratio, and how sure it is."""
    ratios = [a / b for a, b in pairs]
    return Paired(statistics.median(ratios), *interval(ratios), *map(statistics.median, zip(*pairs, strict=True)))


def main() -> int:
    """Measure and print; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.recording", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="pairs a model (default 60)")
    parser.add_argument("--goal", type=float, default=1.02, metavar="R", help="most that with ÷ without may be")
    asked = parser.parse_args()
    if ranges.attached():
        parser.error("a profiling tool is attached")
    quiet_libraries()
    missed = False
    for model in MODELS:
        pairs = measure(model, asked.rounds)
        cpu = paired([(a.cpu_s, b.cpu_s) for a, b in pairs])
        wall = paired([(a.wall_s, b.wall_s) for a, b in pairs])
        missed |= cpu.ratio > asked.goal
        print(f"{model}: {pairs[0][0].phases} phases of a request recorded, no tool attached, {len(pairs)} pairs")
        met = "met" if cpu.ratio <= asked.goal else "MISSED"
        print(f"  CPU time, with ÷ without:  {cpu}, goal at most {asked.goal:g}: {met}")
        print(f"  wall time, with ÷ without: {wall}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
