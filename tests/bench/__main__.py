"""`make bench`: what the framework itself costs, as ratios paired in one run.

Every comparison alternates A and B, because the speed of a shared machine drifts; the median of the pairs'
ratios counts. Exit code 1 when a goal is missed. `--quick` leaves out the slow comparisons and the mutated inputs.
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import bad_input

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ("[]", "teacache", "cache_dit")
BATCHES = (1, 2, 4)


def run(*arguments: str, ok: tuple[int, ...] = (0,)) -> float:
    """Seconds that a command took."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode not in ok:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return seconds


def paired(
    one: Callable[[Path], float], other: Callable[[Path], float], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of both, alternating, each round in fresh folders."""
    first, second = [], []
    for number in range(rounds):
        for measure, seconds in ((one, first), (other, second)) if number % 2 == 0 else ((other, second), (one, first)):
            folder = Path(tempfile.mkdtemp(prefix="sweep-bench-"))
            try:
                seconds.append(measure(folder))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    return first, second


def report(name: str, first: list[float], second: list[float], ratio: float, goal: str, met: bool) -> bool:
    """Print one result line; returns whether the goal is met."""
    print(
        f"{name}\n  {statistics.median(first):.2f} s against {statistics.median(second):.2f} s"
        f" (medians of {len(first)})"
    )
    print(f"  ratio {ratio:.2f}, goal {goal}: {'met' if met else 'MISSED'}", flush=True)
    return met


def help_time(rounds: int = 5) -> bool:
    """`python -m sweep --help` under 0.6 s."""
    seconds = [run("-m", "sweep", "--help") for _ in range(rounds)]
    met = statistics.median(seconds) < 0.6
    median = statistics.median(seconds)
    print(
        f"python -m sweep --help\n  median {median:.2f} s of {rounds}, goal under 0.6 s: {'met' if met else 'MISSED'}"
    )
    return met


def overhead(rounds: int = 5, cells: int = 12) -> bool:
    """Overhead a cell with an engine that does nothing, against Hydra's basic launcher with an empty task."""
    half = cells // 2
    axes = ["feature=[],teacache", f"batch={','.join(str(n + 1) for n in range(half))}"]
    same = ["engine=noop", "workload.num_prompts=1", "workload.repeats=1"]

    def ours(folder: Path) -> float:
        extra = ["aa=0", "plots=false", f"hydra.sweep.dir={folder}/s"]
        return run("-m", "sweep", "-m", *axes, *same, *extra, ok=(0, 1))  # 1: a noop feature shows no evidence

    def hydra(folder: Path) -> float:
        extra = ["hydra/sweeper=basic", f"hydra.sweep.dir={folder}/s", "hydra.sweep.subdir=${hydra.job.num}"]
        return run("-m", "tests.bench.empty_task", "-m", *axes, *same, *extra)

    first, second = paired(ours, hydra, rounds)
    ratio = statistics.median(a / b for a, b in zip(first, second, strict=True))
    name = f"{cells} cells, engine that does nothing, against Hydra's basic launcher with an empty task"
    return report(name, first, second, ratio, "at most 1.25", ratio <= 1.25)


def sweep_against_runs(short: bool, rounds: int = 1) -> bool:
    """A 3×3 sweep against the same nine cells as separate runs, all with report and plots.

    A sweep saves engine starts, so its gain is larger the shorter a cell measures: `short` is one batch
    measured once; otherwise the default workload, four prompts measured three times, which has no goal.
    """
    workload = ["workload.num_prompts=1", "workload.repeats=1"] if short else []

    def one_sweep(folder: Path) -> float:
        axes = [f"feature={','.join(FEATURES)}", f"batch={','.join(map(str, BATCHES))}"]
        same = ["aa=0", "interleave=false"]  # nine runs have no interleaved baseline either
        return run("-m", "sweep", "-m", *axes, *workload, *same, f"hydra.sweep.dir={folder}/s")

    def nine_runs(folder: Path) -> float:
        cells = itertools.product(enumerate(FEATURES), BATCHES)
        return sum(
            run("-m", "sweep", f"feature={feature}", f"batch={batch}", *workload, f"hydra.run.dir={folder}/{n}-{batch}")
            for (n, feature), batch in cells
        )

    first, second = paired(one_sweep, nine_runs, rounds)
    ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
    name = f"a 3×3 sweep against nine separate runs, {'one batch measured a cell' if short else 'default workload'}"
    goal = "at least 2.5" if short else "none (measuring dominates)"
    return report(name, first, second, ratio, goal, ratio >= 2.5 or not short)


def stored(cells: int = 10_000) -> bool:
    """Summary, report.json and compare of a very large sweep, each under 5 s, wall time."""
    from sweep.analysis import summary
    from sweep.analysis.table import table
    from sweep.report.build import collector_paused
    from sweep.report.report_json import document
    from tests.stored import many_cells, store

    with tempfile.TemporaryDirectory(prefix="sweep-bench-") as name:
        made = many_cells(cells)
        folder = store(Path(name) / "a", made, tables=False)
        store(Path(name) / "b", made, seed=1, tables=False)
        seconds = {}
        with collector_paused():
            start = time.perf_counter()
            plan = folder.load_plan()
            loaded = folder.load_results(plan)
            found = summary.summarise(folder, plan, loaded)
            folder.save_summary(*table(found.rows))
            seconds["summary"] = time.perf_counter() - start
            start = time.perf_counter()
            results = {key: result for key, (result, _) in loaded.items()}
            folder.save_report(document(plan, found, results, {}, ""))
            seconds["report.json"] = time.perf_counter() - start
        run("-m", "sweep.report", f"{name}/b", "--no-plots", ok=(0, 1))
        seconds["compare"] = run("-m", "sweep.compare", f"{name}/a", f"{name}/b", "--output", f"{name}/out", ok=(0, 1))
    met = all(taken < 5 for taken in seconds.values())
    text = ", ".join(f"{what} {taken:.2f} s" for what, taken in seconds.items())
    print(f"{len(made.cells):,} stored cells\n  {text}; goal under 5 s each: {'met' if met else 'MISSED'}", flush=True)
    return met


def page(cells: int = 10_000) -> bool:
    """The page of a very large sweep under 5 s, and with as many timelines as it draws under 6 s, processor time."""
    from sweep.plan.plans import Plan
    from sweep.report.page import contents
    from sweep.results.folder import SweepFolder
    from tests import processor_time
    from tests.report import made_up, shapes
    from tests.report.test_timeline_view import many

    with tempfile.TemporaryDirectory(prefix="sweep-bench-") as name:
        plan = Plan(tuple(made_up.cell((f"f{i}",), 1 + i % 7, extra=f" n={i}") for i in range(cells)), ())
        rows = [shapes.row("teacache", cell=one.label) for one in plan.cells]
        large = SweepFolder(Path(name))
        large_s = processor_time.of(lambda: contents.write(large, plan, rows, {}, []))
        drawn = many(Path(name) / "drawn", contents.TIMELINES + 5)
        drawn_s = processor_time.of(lambda: contents.write(*drawn, {}, []))
    met = large_s < 5 and drawn_s < 6
    print(
        f"report.html\n  {cells:,} cells {large_s:.2f} s, goal under 5 s;"
        f" {contents.TIMELINES} timelines {drawn_s:.2f} s, goal under 6 s: {'met' if met else 'MISSED'}",
        flush=True,
    )
    return met


def recording() -> bool:
    """What recording phases costs a request; in a process of its own, as it loads torch."""
    code = subprocess.run([sys.executable, "-m", "tests.bench.recording"], env={**os.environ, "PYTHONPATH": str(ROOT)})
    return code.returncode == 0


def main() -> int:
    """Run all comparisons; 0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the 3×3 sweeps (minutes)")
    arguments = parser.parse_args()
    results = [help_time(), overhead(), stored(), page(), bad_input.overrides()]
    if not arguments.quick:
        results += [
            bad_input.traces_and_cells(),
            bad_input.stored_sweeps(),
            recording(),
            sweep_against_runs(True),
            sweep_against_runs(False),
        ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
