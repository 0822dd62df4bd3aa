"""How often the statistics are right: `python -m tests.bench.calibration [REPORT.json]`.

Takes the A/A cells of a real sweep, all of them the same baseline in engine starts of their own, so that every
comparison among them has a known answer: 1, or what one side's latencies are multiplied by. Each round draws other
starts for the cell and for the A/A, and draws prompts with replacement. Without an argument the recorded sweep of
tests/data is used. Prints a table; exit code 1 when a goal is missed.
"""

import argparse
import gzip
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.analysis import paired
from sweep.analysis.paired import Ratio, Start

RECORDED = Path(__file__).resolve().parents[1] / "data" / "aa_report.json.gz"
SLOWDOWN = 1.1
Pair = tuple[Start, Start]
"""The baseline beside, and the baseline again; one engine start."""


@dataclass(frozen=True)
class Score:
    """Parts of the rounds, in [0, 1]."""

    covered: float  # the interval holds the true ratio
    called: float  # A/A was called faster or slower
    found: float  # the slowdown was called slower
    width: float  # median half-width of the interval


def recorded_starts(path: Path = RECORDED) -> list[Pair]:
    """The A/A starts of a report.json (or .json.gz)."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    cells = [cell for cell in json.loads(text)["cells"] if cell["role"] == "aa"]
    return [(_start(one["reference"]), _start(one["samples"])) for cell in cells for one in cell["starts"]]


def _start(samples: Sequence[Sequence[float]]) -> Start:
    return {(int(prompt), int(seed), int(repeat)): seconds for prompt, seed, repeat, seconds in samples}


def score(starts: Sequence[Pair], interleaved: bool, aa: int, prompts: int, rounds: int = 1000, seed: int = 1) -> Score:
    """Rounds of comparing one start with the baseline, the noise known from `aa` others."""
    rng = random.Random(seed)
    known = sorted({key[0] for key in starts[0][1]})
    covered = called = found = 0
    widths = []
    for _ in range(rounds):
        drawn = [rng.choice(known) for _ in range(prompts)]
        chosen = [_resampled(starts[i], drawn) for i in rng.sample(range(len(starts)), aa + 1 + (not interleaved))]
        same, slower = (_compare(chosen, interleaved, factor) for factor in (1.0, SLOWDOWN))
        assert same.low is not None
        assert same.high is not None
        covered += same.low <= 1 <= same.high
        called += same.called in ("faster", "slower")
        found += slower.called == "slower"
        widths.append(same.half_width or 0.0)
    return Score(covered / rounds, called / rounds, found / rounds, sorted(widths)[rounds // 2])


def _resampled(pair: Pair, drawn: Sequence[int]) -> Pair:
    """The same starts as if these prompts had been asked for; a prompt drawn twice stands for two."""
    one, other = (
        {(place, place, key[2]): side[key] for place, prompt in enumerate(drawn) for key in side if key[0] == prompt}
        for side in pair
    )
    return one, other


def _compare(chosen: Sequence[Pair], interleaved: bool, factor: float) -> Ratio:
    """First of `chosen` is the cell, `factor` times slower than it was; the others are what is known of noise."""
    cell = {key: seconds * factor for key, seconds in chosen[0][1].items()}
    if interleaved:
        return paired.compare_interleaved([(chosen[0][0], cell)], paired.interleaved_noise(chosen[1:]))
    baselines = [again for _, again in chosen[1:]]
    return paired.compare(baselines, [cell], paired.noise_between_starts([baselines]))


def main() -> int:
    """Print the table; 0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.calibration", description=__doc__)
    parser.add_argument("report", type=Path, nargs="?", default=RECORDED, help="of a sweep with many A/A cells (aa=24)")
    parser.add_argument("--rounds", type=int, default=1000)
    arguments = parser.parse_args()
    starts = recorded_starts(arguments.report)
    print(f"{len(starts)} engine starts, {arguments.rounds} rounds each\n")
    print("| baseline | prompts | A/A starts | interval covers 1 | A/A called | 10 % slower found | half-width |")
    print("|---|---|---|---|---|---|---|")
    for beside in (True, False):
        for prompts in (4, 20):
            for aa in (1, 2, 3, 5, 8):
                one = score(starts, beside, aa, prompts, arguments.rounds)
                where = "beside" if beside else "before and after"
                numbers = f"{one.covered:.1%} | {one.called:.1%} | {one.found:.1%} | ±{one.width:.1%}"
                print(f"| {where} | {prompts} | {aa} | {numbers} |", flush=True)
    goal = score(starts, True, 5, 20, arguments.rounds)
    goals = {
        "A/A called faster or slower in at most 5 %": goal.called <= 0.05,
        "10 % slowdown found in at least 90 %": goal.found >= 0.9,
        "95 % interval covers the true ratio in 93-97 %": 0.93 <= goal.covered <= 0.97,
    }
    print("\nbeside, 20 prompts, 5 A/A starts:")
    for name, met in goals.items():
        print(f"  {name}: {'met' if met else 'MISSED'}")
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
