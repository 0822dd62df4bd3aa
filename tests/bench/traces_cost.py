"""What analysing a large trace costs: `python -m tests.bench.traces_cost`, against `nsys stats` on the same file.

Exports are generated (`tests.bench.traces`). Whole commands are timed in alternating pairs: against an installed nsys
if its `stats` works, else against a merge in pandas that finds the projected times alone. Exit code 1 when a goal is
missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from profiling.nsys import nsys_cli
from tests.bench import traces

ROOT = Path(__file__).resolve().parents[2]
GOAL_FASTER, GOAL_GB = 5.0, 2.0
BY_PANDAS = """
import sqlite3, sys
import pandas as pd
with sqlite3.connect(sys.argv[1]) as database:
    read = lambda query: pd.read_sql(query, database)
    kinds = ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE")
    columns = "start, end, correlationId, globalPid"
    ops = pd.concat([read(f"SELECT {columns} FROM CUPTI_ACTIVITY_KIND_{kind}") for kind in kinds])
    calls = read("SELECT start AS call, globalTid, correlationId FROM CUPTI_ACTIVITY_KIND_RUNTIME")
    ranges = read("SELECT start AS begin, end AS stop, globalTid, coalesce(text, value) AS name FROM NVTX_EVENTS "
                  "LEFT JOIN StringIds ON textId = id WHERE eventType = 59")
calls["globalPid"] = calls["globalTid"] & ~0xFFFFFF
ops = ops.merge(calls, on=["globalPid", "correlationId"])
total = {}
for (thread, name), group in ranges.groupby(["globalTid", "name"]):
    group = group.sort_values("begin").reset_index(drop=True)
    mine = ops[ops.globalTid == thread].sort_values("call")
    inside = pd.merge_asof(mine, group.reset_index(), left_on="call", right_on="begin")
    inside = inside[inside.call <= inside.stop].groupby("index").agg(first=("start", "min"), last=("end", "max"))
    total[name] = total.get(name, 0) + int((inside["last"] - inside["first"]).sum())
print(total)
"""


@dataclass(frozen=True)
class Cost:
    """Of one command."""

    seconds: float
    peak_gb: float


def cost(command: list[str]) -> Cost:
    """Run it in a separate process, so that its children's memory is measured alone."""
    code = (
        "import resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(done.returncode)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *command], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    seconds, kilobytes = done.stdout.split()
    return Cost(float(seconds), float(kilobytes) * 1024 / 1e9)


def ours(path: Path) -> list[str]:
    """The analysis, all of it."""
    return [sys.executable, "-m", "profiling", "analyze", str(path), "--format", "json"]


def theirs(path: Path, folder: Path) -> tuple[str, list[str]]:
    """What it is compared with: its name, and the command."""
    try:
        nsys = nsys_cli.find()
        command = [str(nsys.path), "stats", "-r", "nvtx_gpu_proj_sum", "-f", "csv", str(path)]
        if "request" in subprocess.run(command, capture_output=True, text=True).stdout:
            return f"nsys stats {nsys}", command
    except nsys_cli.NsysError:
        pass
    script = folder / "by_pandas.py"
    script.write_text(BY_PANDAS)
    return "a merge in pandas", [sys.executable, str(script), str(path)]


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.traces_cost", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kernels", type=int, default=1_200_000, help="of the pairs' export (default 1200000)")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--sizes", default="100000,1200000,5000000", help="kernels of exports analysed once each")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweep-bench-") as name:
        folder = Path(name)
        path = folder / "pairs.sqlite"
        traces.write(path, asked.kernels)
        label, other = theirs(path, folder)
        first, second = [], []
        for number in range(asked.pairs):
            sides = [(ours(path), first), (other, second)]
            for command, costs in sides if number % 2 == 0 else sides[::-1]:
                costs.append(cost(command))
        path.unlink()
        faster = statistics.median(b.seconds / a.seconds for a, b in zip(first, second, strict=True))
        peak_gb = max(one.peak_gb for one in first)
        print(f"{asked.kernels:,} kernels, {asked.pairs} pairs: analyze {[round(one.seconds, 2) for one in first]} s")
        print(
            f"  {label} {[round(one.seconds, 2) for one in second]} s: {faster:.2f} times as long, goal {GOAL_FASTER:g}"
        )
        print(f"  peak memory {peak_gb:.2f} GB (theirs {max(one.peak_gb for one in second):.2f}), goal {GOAL_GB:g}")
        for kernels in [int(size) for size in asked.sizes.split(",") if size]:
            path = folder / f"{kernels}.sqlite"
            traces.write(path, kernels)
            one = cost(ours(path))
            each = f"{one.seconds / kernels * 1e6:5.2f} µs a kernel"
            print(f"  {kernels:>9,} kernels: {one.seconds:6.2f} s, {each}, {one.peak_gb:.2f} GB")
            path.unlink()
    return int(faster < GOAL_FASTER or peak_gb > GOAL_GB)


if __name__ == "__main__":
    raise SystemExit(main())
