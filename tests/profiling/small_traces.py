"""Exports of Nsight Systems for tests: the recorded ones of tests/data/traces, and small ones written by hand."""

import contextlib
import gzip
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from profiling.__main__ import main, run
from profiling.errors import Refusal
from tests.bench.traces import SCHEMA, VERSION
from tests.conftest import ROOT, Finished, environment

RECORDED = ROOT / "tests" / "data" / "traces"
PROCESS = (1 << 48) + (321 << 24)
THREAD = PROCESS + 321


def unpacked(name: str, folder: Path) -> Path:
    """A recorded trace as a .sqlite file."""
    path = folder / f"{name}.sqlite"
    if not path.exists():
        path.write_bytes(gzip.decompress((RECORDED / f"{name}.sqlite.gz").read_bytes()))
    return path


def profiling(*arguments: object) -> Finished:
    """`python -m profiling …`, but for the interpreter's start."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(map(str, arguments)))
    return Finished(code, out.getvalue(), err.getvalue())


def refusal(*arguments: object) -> str:
    """The code with which the command refuses its input."""
    with pytest.raises(Refusal) as refused:
        run(list(map(str, arguments)))
    return refused.value.code


def profiling_process(*arguments: object, env: dict[str, str]) -> Finished:
    """`python -m profiling …`, as a user runs it."""
    command = [sys.executable, "-m", "profiling", *map(str, arguments)]
    done = subprocess.run(command, env=environment() | env, capture_output=True, text=True, timeout=120)
    return Finished(done.returncode, done.stdout, done.stderr)


def document_of(*traces: Path) -> dict[str, Any]:
    """What `analyze --format json` prints."""
    done = profiling("analyze", *traces, "--format", "json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def phases_of(*traces: Path) -> list[dict[str, Any]]:
    """The phases in `document_of`."""
    return document_of(*traces)["phases"]


@dataclass
class Written:
    """An export written by hand. Times are ns; one thread of one process where nothing else is said."""

    path: Path
    version: str = VERSION
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    correlation: int = 0

    def name(self, text: str) -> int:
        return self.names.setdefault(text, len(self.names) + 1)

    def add(self, table: str, **values: Any) -> None:
        self.rows.setdefault(table, []).append(values)

    def range(self, name: str, start: int, end: int | None, thread: int = THREAD, **more: Any) -> None:
        values = {"eventType": 59, "text": name, "domainId": 0, **more}
        self.add("NVTX_EVENTS", start=start, end=end, globalTid=thread, **values)

    def call(self, start: int, end: int, name: str = "cudaLaunchKernel", thread: int = THREAD) -> int:
        self.correlation += 1
        common = {"eventClass": 0, "returnValue": 0, "nameId": self.name(name), "correlationId": self.correlation}
        self.add("CUPTI_ACTIVITY_KIND_RUNTIME", start=start, end=end, globalTid=thread, **common)
        return self.correlation

    def operation(
        self, call: int, start: int, end: int, name: str = "matmul", process: int = PROCESS, stream: int = 7
    ) -> None:
        """A kernel, or with a name in brackets a copy."""
        common = {"deviceId": 0, "contextId": 1, "streamId": stream, "correlationId": call, "globalPid": process}
        if name.startswith("["):
            self.add("CUPTI_ACTIVITY_KIND_MEMCPY", start=start, end=end, bytes=end - start, copyKind=1, **common)
            return
        number = self.name(name)
        zeros = ("registersPerThread", "gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ", "staticSharedMemory")
        zeros += ("dynamicSharedMemory", "localMemoryPerThread", "localMemoryTotal", "gridId")
        common |= dict.fromkeys(zeros, 0) | {"demangledName": number, "shortName": number}
        self.add("CUPTI_ACTIVITY_KIND_KERNEL", start=start, end=end, **common)

    def launch(self, at: int, start: int, end: int, name: str = "matmul", **more: Any) -> None:
        """A call of 3 ns and the operation that it launches."""
        self.operation(self.call(at, at + 3), start, end, name, **more)

    def save(self) -> Path:
        """Write it; tables without rows are left out, as nsys leaves them out."""
        with sqlite3.connect(self.path) as database:
            database.executescript("PRAGMA synchronous = OFF;" + SCHEMA)
            for table in [row[0] for row in database.execute("SELECT name FROM sqlite_master").fetchall()]:
                if table.startswith(("CUPTI", "NVTX")) and table not in self.rows:
                    database.execute(f"DROP TABLE {table}")
            for table, rows in self.rows.items():
                for row in rows:
                    columns, marks = ",".join(f'"{name}"' for name in row), ",".join("?" * len(row))
                    database.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(row.values()))
            database.executemany("INSERT INTO StringIds VALUES (?, ?)", [(n, t) for t, n in self.names.items()])
            database.execute("INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_SCHEMA_VERSION', ?)", (self.version,))
        database.close()
        return self.path


def simple(path: Path, change: Callable[[Written], None] = lambda _: None) -> Path:
    """A request of two kernels 10 ns apart, the second launched in time."""
    written = Written(path)
    written.range("request", 0, 100)
    written.launch(10, 20, 40)
    written.launch(15, 50, 80)
    change(written)
    return written.save()


def by_name(phases: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of phases that occur in one process only."""
    assert len({phase["name"] for phase in phases}) == len(phases)
    return {phase["name"]: phase for phase in phases}
