"""Phase times of the plugin against Nsight Systems': `python -m tests.bench.nsight EXPORT.sqlite CELL`.

CELL is the folder of a cell that was measured under `nsys profile -t cuda,nvtx`, EXPORT.sqlite the SQLite export of
that recording. A range's time is projected onto the GPU as `nsys stats -r nvtx_gpu_proj_sum` does: from the first start
to the last end of all operations whose API call lies inside the range, on the same thread. What was recorded before the
measured requests (warm-up) is left out by counting from the end. Exit code 1 when a phase is off by more than --goal.
"""

import argparse
import csv
import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

OPERATIONS = ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE")
PHASES = ("text_encode", "image_encode", "ar_prefill", "ar_decode", "denoise_step", "dit_forward", "vae_decode")
PUSH_POP = 59
PROCESS = ~0xFFFFFF  # of a thread's global id


@dataclass(frozen=True)
class Compared:
    """One phase: totals in milliseconds over `count` ranges."""

    phase: str
    count: int
    plugin_ms: float
    nsight_ms: float

    @property
    def off(self) -> float:
        """Relative difference."""
        return self.plugin_ms / self.nsight_ms - 1


def projected(path: Path) -> dict[str, list[float]]:
    """GPU milliseconds of every range of a phase, in order of start."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
        calls = {
            (thread & PROCESS, correlation): (thread, start)
            for thread, correlation, start in database.execute(
                "select globalTid, correlationId, start from CUPTI_ACTIVITY_KIND_RUNTIME"
            )
        }
        launched: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # thread -> call, start, end
        for kind in OPERATIONS:
            if (table := f"CUPTI_ACTIVITY_KIND_{kind}") not in tables:
                continue
            query = f"select globalPid, correlationId, start, end from {table}"
            for process, correlation, start, end in database.execute(query):
                if (call := calls.get((process, correlation))) is not None:
                    launched[call[0]].append((call[1], start, end))
        ranges = database.execute(
            "select coalesce(text, value), globalTid, start, end from NVTX_EVENTS left join StringIds on textId = id "
            f"where eventType = {PUSH_POP} and end is not null order by start"
        ).fetchall()
    by_thread = {thread: np.array(sorted(rows), dtype=np.int64) for thread, rows in launched.items()}
    found: dict[str, list[float]] = defaultdict(list)
    for name, thread, start, end in ranges:
        if name not in PHASES or thread not in by_thread:
            continue
        rows = by_thread[thread]
        first, last = np.searchsorted(rows[:, 0], (start, end))
        if last > first:
            found[name].append(float(rows[first:last, 2].max() - rows[first:last, 1].min()) / 1e6)
    return found


def recorded(cell: Path) -> dict[str, list[float]]:
    """GPU milliseconds of every phase in phases.csv, in order of start."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (cell / "phases.csv").open() as handle:
        for row in csv.DictReader(handle):
            if row["gpu_ms"]:
                found[row["phase"]].append((float(row["start_s"]), float(row["gpu_ms"])))
    return {phase: [gpu_ms for _, gpu_ms in sorted(times)] for phase, times in found.items()}


def compare(export: Path, cell: Path) -> list[Compared]:
    """Every phase that both know. Raises ValueError when Nsight saw fewer ranges of it than the plugin recorded."""
    theirs, ours = projected(export), recorded(cell)
    compared = []
    for phase in PHASES:
        if phase not in ours:
            continue
        count = len(ours[phase])
        if len(theirs.get(phase, ())) < count:
            raise ValueError(f"{phase}: {count} recorded, Nsight Systems has {len(theirs.get(phase, ()))}")
        compared.append(Compared(phase, count, sum(ours[phase]), sum(theirs[phase][-count:])))
    return compared


def main() -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nsight", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("export", type=Path, metavar="EXPORT.sqlite")
    parser.add_argument("cell", type=Path, metavar="CELL")
    parser.add_argument("--goal", type=float, default=0.01, help="largest difference of a phase (default 0.01)")
    asked = parser.parse_args()
    compared = compare(asked.export, asked.cell)
    print(f"{'phase':<14}{'ranges':>8}{'plugin ms':>14}{'Nsight ms':>14}{'difference':>12}")
    for one in compared:
        print(f"{one.phase:<14}{one.count:>8}{one.plugin_ms:>14.3f}{one.nsight_ms:>14.3f}{one.off:>12.2%}")
    return int(not compared or any(abs(one.off) > asked.goal for one in compared))


if __name__ == "__main__":
    raise SystemExit(main())
