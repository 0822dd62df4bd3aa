"""Writes an Nsight Systems export of any size: `python -m tests.bench.traces OUT.sqlite --kernels 1200000`.

Shaped like the real exports of tests/data/traces: two DiT ranks on two GPUs (request > denoise_step > dit_forward >
block, with copies, memsets and NCCL kernels), an AR process that replays CUDA graphs traced node by node, and one whose
graphs are traced whole. Two API calls a launch, as PyTorch makes. Times are drawn from a seed; nothing was measured.
"""

import argparse
import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SCHEMA = """
CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE META_DATA_EXPORT (name TEXT NOT NULL, value TEXT);
CREATE TABLE PROCESSES (globalPid INTEGER, pid INTEGER, name TEXT);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER NOT NULL,
  globalTid INTEGER, correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL, callchainId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
  contextId INTEGER NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER,
  globalPid INTEGER, demangledName INTEGER NOT NULL, shortName INTEGER NOT NULL, mangledName INTEGER,
  launchType INTEGER, cacheConfig INTEGER, registersPerThread INTEGER NOT NULL, gridX INTEGER NOT NULL,
  gridY INTEGER NOT NULL, gridZ INTEGER NOT NULL, blockX INTEGER NOT NULL, blockY INTEGER NOT NULL,
  blockZ INTEGER NOT NULL, staticSharedMemory INTEGER NOT NULL, dynamicSharedMemory INTEGER NOT NULL,
  localMemoryPerThread INTEGER NOT NULL, localMemoryTotal INTEGER NOT NULL, gridId INTEGER NOT NULL,
  sharedMemoryExecuted INTEGER, graphNodeId INTEGER, sharedMemoryLimitConfig INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
  contextId INTEGER NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER,
  globalPid INTEGER, bytes INTEGER NOT NULL, copyKind INTEGER NOT NULL, graphNodeId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMSET (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
  contextId INTEGER NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER,
  globalPid INTEGER, value INTEGER NOT NULL, bytes INTEGER NOT NULL, graphNodeId INTEGER, memKind INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
  contextId INTEGER NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER,
  globalPid INTEGER, graphId INTEGER NOT NULL, graphExecId INTEGER);
CREATE TABLE NVTX_EVENTS (start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER,
  category INTEGER, color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER, textId INTEGER,
  domainId INTEGER, uint64Value INTEGER, int64Value INTEGER, doubleValue REAL, uint32Value INTEGER,
  int32Value INTEGER, floatValue REAL, jsonTextId INTEGER, jsonText TEXT, binaryData TEXT);
"""
VERSION = "3.20.3"
PUSH_POP = 59
DOMAIN_CREATED = 75
KERNELS = 40
NCCL = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)"
CALL_NS, BETWEEN_NS = 2_500, 1_000
BLOCK, BLOCKS, STEPS = 30, 20, 20  # kernels a block, blocks a forward, steps a request


@dataclass
class Export:
    """A SQLite export in the making; times are ns."""

    database: sqlite3.Connection
    random: np.random.Generator
    names: dict[str, int] = field(default_factory=dict)
    correlation: int = 0

    def name(self, text: str) -> int:
        """Its number in StringIds."""
        return self.names.setdefault(text, len(self.names) + 1)

    def insert(self, table: str, columns: str, rows: Iterable[Sequence[object]]) -> None:
        """Append rows."""
        marks = ",".join("?" * (columns.count(",") + 1))
        self.database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)

    def ranges(self, thread: int, name: str, starts: np.ndarray, ends: np.ndarray) -> None:
        """NVTX push/pop ranges with their running number as payload."""
        columns = "start,end,eventType,globalTid,textId,domainId,int64Value"
        number = self.name(name)
        rows = zip(starts.tolist(), ends.tolist(), itertools.count(), strict=False)
        self.insert(
            "NVTX_EVENTS", columns, ((begin, end, PUSH_POP, thread, number, 1, index) for begin, end, index in rows)
        )

    def calls(self, thread: int, name: str, starts: np.ndarray, count: int) -> np.ndarray:
        """API calls that launch something, each after one that does not; returns the correlation numbers."""
        numbers = self.correlation + 1 + 2 * np.arange(count)
        self.correlation += 2 * count
        columns = "start,end,eventClass,globalTid,correlationId,nameId,returnValue"
        asks, launches = self.name("cuKernelGetName"), self.name(name)
        for begin, took, which, number in (
            (starts - 400, 200, asks, numbers - 1),
            (starts, CALL_NS, launches, numbers),
        ):
            values = zip(begin.tolist(), number.tolist(), strict=True)
            rows = ((at, at + took, 0, thread, correlation, which, 0) for at, correlation in values)
            self.insert("CUPTI_ACTIVITY_KIND_RUNTIME", columns, rows)
        return numbers

    def kernels(
        self,
        process: int,
        device: int,
        starts: np.ndarray,
        ends: np.ndarray,
        correlations: np.ndarray,
        names: np.ndarray,
        nodes: np.ndarray | None = None,
    ) -> None:
        """GPU kernels."""
        columns = (
            "start,end,deviceId,contextId,streamId,correlationId,globalPid,demangledName,shortName,registersPerThread,"
            "gridX,gridY,gridZ,blockX,blockY,blockZ,staticSharedMemory,dynamicSharedMemory,localMemoryPerThread,"
            "localMemoryTotal,gridId,graphNodeId"
        )
        node = [None] * len(starts) if nodes is None else nodes.tolist()
        values = zip(starts.tolist(), ends.tolist(), correlations.tolist(), names.tolist(), node, strict=True)
        self.insert(
            "CUPTI_ACTIVITY_KIND_KERNEL",
            columns,
            (
                (begin, end, device, 1, 7, number, process, name, name, 96, 132, 1, 1, 384, 1, 1, 0, 232448, 0, 0,
                 number, node)
                for begin, end, number, name, node in values
            ),
        )  # fmt: skip


def one_after_another(calls: np.ndarray, lasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of operations on one stream: each when it was launched and the one before it is done.

    With c_i the earliest start and d_i the duration, end_i = max over j ≤ i of (c_j + d_j + … + d_i).
    """
    done = np.cumsum(lasts)
    ends = done + np.maximum.accumulate(calls - (done - lasts))
    return ends - lasts, ends


def rank(export: Export, number: int, kernels: int) -> None:
    """A DiT rank: eager launches in four levels of ranges, with copies, memsets and collectives."""
    process, device = (1 << 48) + ((100 + number) << 24), number
    thread = process + 100 + number
    starts = 1_000_000 + (CALL_NS + BETWEEN_NS) * np.arange(kernels)
    lasts = export.random.gamma(2.0, 1_800.0, kernels).astype(np.int64) + 500
    begins, ends = one_after_another(starts + CALL_NS + 800, lasts)
    correlations = export.calls(thread, "cudaLaunchKernel_v7000", starts, kernels)
    names = np.array([export.name(f"kernel_{index}<__nv_bfloat16>(float*)") for index in range(KERNELS)])
    chosen = names[export.random.integers(KERNELS, size=kernels)]
    chosen[::BLOCK] = export.name(NCCL)
    copies, sets = np.arange(7, kernels, 97), np.arange(11, kernels, 89)
    eager = np.setdiff1d(np.arange(kernels), np.union1d(copies, sets), assume_unique=True)
    export.kernels(process, device, begins[eager], ends[eager], correlations[eager], chosen[eager])
    common = "start,end,deviceId,contextId,streamId,correlationId,globalPid,bytes"
    copied = zip(begins[copies].tolist(), ends[copies].tolist(), correlations[copies].tolist(), strict=True)
    rows: Iterable[Sequence[object]] = ((b, e, device, 1, 7, c, process, 4096, 1) for b, e, c in copied)
    export.insert("CUPTI_ACTIVITY_KIND_MEMCPY", f"{common},copyKind", rows)
    zeroed = zip(begins[sets].tolist(), ends[sets].tolist(), correlations[sets].tolist(), strict=True)
    rows = ((b, e, device, 1, 7, c, process, 4096, 0) for b, e, c in zeroed)
    export.insert("CUPTI_ACTIVITY_KIND_MEMSET", f"{common},value", rows)
    size = BLOCK
    for name, inside in (("block", 1), ("dit_forward", BLOCKS), ("denoise_step", 2), ("request", STEPS)):
        size *= inside
        firsts = np.arange(0, kernels, size)
        lasts_of = np.minimum(firsts + size, kernels) - 1
        room = 100 * (1 + ("block", "dit_forward", "denoise_step", "request").index(name))
        export.ranges(thread, name, starts[firsts] - room - 400, starts[lasts_of] + CALL_NS + room)


def decoder(export: Export, number: int, steps: int, nodes: int) -> None:
    """An AR process: every decode step replays a CUDA graph of `nodes` kernels (0: traced whole)."""
    process = (1 << 48) + ((200 + number) << 24)
    thread = process + 200 + number
    last = export.random.gamma(2.0, 3_000.0, steps * max(nodes, 1)).astype(np.int64) + 500
    whole = last.reshape(steps, -1).sum(axis=1) + 300 * max(nodes, 1)
    starts = 2_000_000 + np.cumsum(whole + 50_000) - whole
    correlations = export.calls(thread, "cudaGraphLaunch_v10000", starts, steps)
    if nodes:
        offsets = np.cumsum(last.reshape(steps, nodes) + 300, axis=1)
        ends = (starts[:, None] + CALL_NS + 1_000 + offsets).ravel()
        node = np.tile((2 << 32) + np.arange(nodes), steps)
        names = np.tile(np.array([export.name(f"decode_{index % 9}(int)") for index in range(nodes)]), steps)
        export.kernels(process, 0, ends - last, ends, np.repeat(correlations, nodes), names, node)
    else:
        columns = "start,end,deviceId,contextId,streamId,correlationId,globalPid,graphId,graphExecId"
        values = zip((starts + CALL_NS + 1_000).tolist(), whole.tolist(), correlations.tolist(), strict=True)
        rows = ((begin, begin + took, 0, 1, 7, number, process, 1, 2) for begin, took, number in values)
        export.insert("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", columns, rows)
    export.ranges(thread, "ar_decode", starts - 500, starts + CALL_NS + 20_000)


def write(path: Path, kernels: int, seed: int = 0) -> None:
    """Write an export with about `kernels` GPU kernels; raises FileExistsError rather than adding to one."""
    if path.exists():
        raise FileExistsError(path)
    with sqlite3.connect(path) as database:
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + SCHEMA)
        export = Export(database, np.random.default_rng(seed))
        nodes = 60
        for number in range(2):
            rank(export, number, kernels * 2 // 5)
        decoder(export, 0, max(1, kernels // 5 // nodes), nodes)
        decoder(export, 1, max(1, kernels // 5 // nodes), 0)
        threads = database.execute("SELECT DISTINCT globalTid FROM NVTX_EVENTS").fetchall()
        export.insert(
            "NVTX_EVENTS",
            "start,eventType,globalTid,text,domainId",
            ((1, DOMAIN_CREATED, thread, "sweep", 1) for (thread,) in threads),
        )
        export.insert("StringIds", "id,value", ((number, text) for text, number in export.names.items()))
        parts = zip(("MAJOR", "MINOR", "MICRO"), VERSION.split("."), strict=True)
        about = [("EXPORT_SCHEMA_VERSION", VERSION), *((f"EXPORT_SCHEMA_VERSION_{name}", n) for name, n in parts)]
        export.insert("META_DATA_EXPORT", "name,value", about)
    database.close()


def main() -> int:
    """Write it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.traces", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT.sqlite")
    parser.add_argument("--kernels", type=int, default=1_200_000, help="GPU kernels (default 1200000)")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    write(asked.out, asked.kernels, asked.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
