"""Phase times of the plugin against Nsight Systems': `python -m tests.bench.nsight EXPORT.sqlite CELL`.

CELL is the folder of a cell that was measured under `nsys profile -t cuda,nvtx`, EXPORT.sqlite the SQLite export of
that recording. Three times of a range, each from Nsight Systems' own clock:

    host       the NVTX range itself, against the plugin's host_ms
    GPU        what a pair of CUDA events sees, against gpu_ms: from when its first record call has returned, or work
               queued before has ended, to when its second record call begins, or the last operation has ended
    projected  as `nsys stats -r nvtx_gpu_proj_sum`: from the start of the first operation to that of the last, without
               the GPU's wait for the host at both ends, e.g. while a prompt is tokenised. Shown, not judged

An operation belongs to a range when its API call lies inside it, on the same thread. What was recorded before the
measured requests (warm-up) is left out by counting from the end. Exit code 1 when a phase is off by more than --goal.
"""

import argparse
import csv
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

OPERATIONS = ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE")
PHASES = ("text_encode", "image_encode", "ar_prefill", "ar_decode", "denoise_step", "dit_forward", "vae_decode")
PUSH_POP = 59
PROCESS = ~0xFFFFFF  # of a thread's global id


@dataclass(frozen=True)
class Times:
    """Milliseconds of one range."""

    host_ms: float
    gpu_ms: float
    projected_ms: float


@dataclass(frozen=True)
class Compared:
    """One phase: totals over `count` ranges."""

    phase: str
    count: int
    plugin: Times  # projected_ms is gpu_ms: the plugin knows no other
    nsight: Times

    @property
    def off(self) -> tuple[float, float, float]:
        """Relative differences: host, GPU, projected."""
        pairs = zip(vars(self.plugin).values(), vars(self.nsight).values(), strict=True)
        host, gpu, projected = (ours / theirs - 1 for ours, theirs in pairs)
        return host, gpu, projected


def seen(path: Path) -> dict[str, list[Times]]:
    """Times of every range of a phase, in order of start."""
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
            for process, correlation, start, end in database.execute(
                f"select globalPid, correlationId, start, end from {table}"
            ):
                if (call := calls.get((process, correlation))) is not None:
                    launched[call[0]].append((call[1], start, end))
        recording: dict[int, list[tuple[int, int]]] = defaultdict(list)  # thread -> record call, its end
        for thread, start, end in database.execute(
            "select globalTid, start, end from CUPTI_ACTIVITY_KIND_RUNTIME join StringIds on nameId = id "
            "where value like '%EventRecord%' order by start"
        ):
            recording[thread].append((start, end))
        ranges = database.execute(
            "select coalesce(text, value), globalTid, start, end from NVTX_EVENTS left join StringIds on textId = id "
            f"where eventType = {PUSH_POP} and end is not null order by start"
        ).fetchall()
    by_thread = {thread: np.array(sorted(rows), dtype=np.int64) for thread, rows in launched.items()}
    records = {thread: np.array(rows, dtype=np.int64) for thread, rows in recording.items()}
    busy_until = {thread: np.maximum.accumulate(rows[:, 2]) for thread, rows in by_thread.items()}
    found: dict[str, list[Times]] = defaultdict(list)
    for name, thread, start, end in ranges:
        if name not in PHASES or thread not in by_thread or thread not in records:
            continue
        rows = by_thread[thread]
        first, last = np.searchsorted(rows[:, 0], (start, end))
        pair = records[thread][slice(*np.searchsorted(records[thread][:, 0], (start, end)))]  # and those in between
        if last > first and len(pair) > 1:
            begun, done = rows[first:last, 1].min(), rows[first:last, 2].max()
            opened = max(pair[0, 1], busy_until[thread][first - 1] if first else 0)
            closed = max(pair[-1, 0], done)
            found[name].append(Times((end - start) / 1e6, float(closed - opened) / 1e6, float(done - begun) / 1e6))
    return found


def recorded(cell: Path) -> dict[str, list[Times]]:
    """Times of every phase in phases.csv, in order of start."""
    found: dict[str, list[tuple[float, Times]]] = defaultdict(list)
    with (cell / "phases.csv").open() as handle:
        for row in csv.DictReader(handle):
            if row["gpu_ms"]:
                gpu_ms = float(row["gpu_ms"])
                found[row["phase"]].append((float(row["start_s"]), Times(float(row["host_ms"]), gpu_ms, gpu_ms)))
    return {phase: [times for _, times in sorted(rows, key=lambda row: row[0])] for phase, rows in found.items()}


def total(times: Sequence[Times]) -> Times:
    """Their sum."""
    return Times(*(sum(column) for column in zip(*(vars(one).values() for one in times), strict=True)))


def compare(export: Path, cell: Path) -> list[Compared]:
    """Every phase that both know. Raises ValueError when Nsight saw fewer ranges of it than the plugin recorded."""
    theirs, ours = seen(export), recorded(cell)
    compared = []
    for phase in PHASES:
        if phase not in ours:
            continue
        count = len(ours[phase])
        if len(theirs.get(phase, ())) < count:
            raise ValueError(f"{phase}: {count} recorded, Nsight Systems has {len(theirs.get(phase, ()))}")
        compared.append(Compared(phase, count, total(ours[phase]), total(theirs[phase][-count:])))
    return compared


def main() -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nsight", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("export", type=Path, metavar="EXPORT.sqlite")
    parser.add_argument("cell", type=Path, metavar="CELL")
    parser.add_argument("--goal", type=float, default=0.01, help="largest difference of a phase (default 0.01)")
    asked = parser.parse_args()
    compared = compare(asked.export, asked.cell)
    print(f"{'phase':<14}{'ranges':>8}{'plugin: host, GPU ms':>26}{'Nsight: host, GPU, projected ms':>38}   off")
    for one in compared:
        ours, theirs = one.plugin, one.nsight
        text = f"{one.phase:<14}{one.count:>8}{ours.host_ms:>13.3f}{ours.gpu_ms:>13.3f}"
        text += f"{theirs.host_ms:>14.3f}{theirs.gpu_ms:>12.3f}{theirs.projected_ms:>12.3f}   "
        print(text + ", ".join(f"{off:+.2%}" for off in one.off))
    return int(not compared or any(abs(off) > asked.goal for one in compared for off in one.off[:2]))


if __name__ == "__main__":
    raise SystemExit(main())
