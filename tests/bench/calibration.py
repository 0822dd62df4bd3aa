"""How often the statistics are right: `python -m tests.bench.calibration [REPORT.json]`.

Takes the A/A cells of a real sweep, all of them the same baseline in engine starts of their own, so that every
comparison among them has a known answer: 1, or what one side's latencies are multiplied by. Each round draws other
starts for the cell and for the A/A, and draws prompts with replacement. Without an argument the recorded sweep of
tests/data is used. `--made-up` asks the same of noise of known kinds (`made_up_noise`), and how often `repeat=auto`
and the headline of a sweep of 20 features that do nothing are wrong. Prints tables; exit code 1 when a goal is missed.
"""

import argparse
import gzip
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sweep.analysis import family, paired
from sweep.analysis.adaptive_repeats import LEAST_NOISE_DF
from sweep.analysis.paired import Ratio, Start
from sweep.findings import PASS
from sweep.plan.cells import FEATURE
from tests.bench import made_up_noise

RECORDED = Path(__file__).resolve().parents[1] / "data" / "aa_report.json.gz"
SLOWDOWN = 1.1
Pair = tuple[Start, Start]
"""The interleaved baseline, and the baseline again; one engine start."""


@dataclass(frozen=True)
class Score:
    """Parts of the rounds, in [0, 1]."""

    covered: float  # the interval holds the true ratio
    called: float  # A/A got the verdict faster or slower
    found: float  # the slowdown got the verdict slower
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
    """The same starts as if these prompts had been requested; a prompt drawn twice counts as two."""
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


@dataclass(frozen=True)
class Wrong:
    """Parts of the rounds, in [0, 1], and what they cost."""

    covered: float  # the interval holds 1
    called: float  # a cell like its baseline got the verdict faster or slower
    width: float  # median half-width of the interval
    starts: float = 1.0  # of the cell, on average


def score_made_up(kind: str, prompts: int, aa: int, rounds: int, seed: int = 1, uneven: float = 0.0) -> Wrong:
    """Rounds of comparing a cell like its baseline with it, the noise known from `aa` A/A starts.

    `uneven`: standard deviation of what single prompts gain or lose in the cell, in logs; 0 on average.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        noise = paired.interleaved_noise([made_up_noise.pair(kind, rng, prompts) for _ in range(aa)])
        found.append(paired.compare_interleaved([made_up_noise.pair(kind, rng, prompts, uneven)], noise))
    return _wrong(found)


def score_auto(kind: str, prompts: int, precision: float, rounds: int, least: int, seed: int = 1) -> Wrong:
    """The same with repeat=auto: up to 4 starts of the cell and as many A/A, until `precision` is reached.

    `least` A/A starts are needed for that (LEAST_NOISE_DF in a sweep).
    """
    rng = np.random.default_rng(seed)
    found, starts = [], 0
    for _ in range(rounds):
        cell: list[Pair] = []
        again: list[Pair] = []
        while True:
            cell.append(made_up_noise.pair(kind, rng, prompts))
            again.append(made_up_noise.pair(kind, rng, prompts))
            ratio = paired.compare_interleaved(cell, paired.interleaved_noise(again))
            if len(cell) == 4 or (len(again) >= least and (ratio.half_width or 1.0) <= precision):
                break
        found.append(ratio)
        starts += len(cell)
    return _wrong(found, starts / rounds)


def _wrong(found: Sequence[Ratio], starts: float = 1.0) -> Wrong:
    count = len(found)
    return Wrong(
        covered=sum((one.low or 0.0) <= 1 <= (one.high or np.inf) for one in found) / count,
        called=sum(one.called in (paired.FASTER, paired.SLOWER) for one in found) / count,
        width=sorted(one.half_width or 0.0 for one in found)[count // 2],
        starts=starts,
    )


def useless_features(kind: str, features: int, aa: int, rounds: int, seed: int = 1) -> Iterator[list[dict[str, Any]]]:
    """Rows of sweeps in which no feature does anything, judged together as a sweep judges them."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        noise = paired.interleaved_noise([made_up_noise.pair(kind, rng, 8) for _ in range(aa)])
        found = [paired.compare_interleaved([made_up_noise.pair(kind, rng, 8)], noise) for _ in range(features)]
        rows: list[dict[str, Any]] = [
            {"role": FEATURE, "status": PASS, "doubts": [], "speedup": one.ratio, "called": one.called}
            | {"p_value": one.p_value}
            for one in found
        ]
        family.adjust(rows)
        yield rows


def main() -> int:
    """Print the tables; 0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.calibration", description=__doc__)
    parser.add_argument("report", type=Path, nargs="?", default=RECORDED, help="of a sweep with many A/A cells (aa=24)")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--made-up", action="store_true", help="noise of known kinds instead of a report")
    arguments = parser.parse_args()
    return _made_up(arguments.rounds) if arguments.made_up else _recorded(arguments.report, arguments.rounds)


def _made_up(rounds: int) -> int:
    print(f"{rounds} rounds each\n")
    print("| noise | prompts | A/A starts | interval covers 1 | A/A called | half-width |")
    print("|---|---|---|---|---|---|")
    worst = 0.0
    for kind in made_up_noise.KINDS:
        for prompts in (2, 4, 8, 20):
            for aa in (1, 2, 3):
                one = score_made_up(kind, prompts, aa, rounds)
                worst = max(worst, one.called)
                numbers = f"{one.covered:.1%} | {one.called:.1%} | ±{one.width:.1%}"
                print(f"| {kind} | {prompts} | {aa} | {numbers} |", flush=True)
    print("\nGains of single prompts differ by 10 %, in no A/A run:\n")
    print("| noise | prompts | A/A starts | interval covers 1 | half-width |\n|---|---|---|---|---|")
    for kind in ("quiet batches", "even", "batches only", "heavy tails"):
        for prompts in (2, 4, 8, 20):
            for aa in (1, 2, 3):
                one = score_made_up(kind, prompts, aa, rounds, uneven=0.1)
                print(f"| {kind} | {prompts} | {aa} | {one.covered:.1%} | ±{one.width:.1%} |", flush=True)
    print("\n| noise | precision | A/A starts needed | A/A called | starts |\n|---|---|---|---|---|")
    for kind in ("quiet batches", "autocorrelated"):
        for precision in (0.02, 0.05):
            for least in (1, LEAST_NOISE_DF):
                one = score_auto(kind, 20, precision, rounds, least)
                print(f"| {kind} | ±{precision:.0%} | {least} | {one.called:.1%} | {one.starts:.1f} |", flush=True)
    print("\n| features that do nothing | A/A starts | one is called faster | in the headline |\n|---|---|---|---|")
    for features in (5, 20):
        for aa in (1, 3):
            sweeps = list(useless_features("quiet batches", features, aa, rounds))
            alone = sum(any(row["called"] == paired.FASTER for row in rows) for rows in sweeps)
            crowned = sum(family.fastest(rows) is not None for rows in sweeps)
            print(f"| {features} | {aa} | {alone / rounds:.1%} | {crowned / rounds:.1%} |", flush=True)
    allowed = 0.05 + 2.6 * (0.05 * 0.95 / rounds) ** 0.5  # what 1 in 100 rows exceeds by chance at 5 %
    print(f"\nA/A called at most {worst:.1%}, {'within' if worst <= allowed else 'MORE THAN'} chance of 5 %")
    return int(worst > allowed)


def _recorded(report: Path, rounds: int) -> int:
    starts = recorded_starts(report)
    print(f"{len(starts)} engine starts, {rounds} rounds each\n")
    print("| baseline | prompts | A/A starts | interval covers 1 | A/A called | 10 % slower found | half-width |")
    print("|---|---|---|---|---|---|---|")
    for beside in (True, False):
        for prompts in (4, 20):
            for aa in (1, 2, 3, 5, 8):
                one = score(starts, beside, aa, prompts, rounds)
                where = "interleaved" if beside else "before and after"
                numbers = f"{one.covered:.1%} | {one.called:.1%} | {one.found:.1%} | ±{one.width:.1%}"
                print(f"| {where} | {prompts} | {aa} | {numbers} |", flush=True)
    goal = score(starts, True, 5, 20, rounds)
    goals = {
        "A/A called faster or slower in at most 5 %": goal.called <= 0.05,
        "10 % slowdown found in at least 90 %": goal.found >= 0.9,
        "95 % interval covers the true ratio in at least 93 %": goal.covered >= 0.93,
    }
    print("\ninterleaved, 20 prompts, 5 A/A starts:")
    for name, met in goals.items():
        print(f"  {name}: {'met' if met else 'MISSED'}")
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
