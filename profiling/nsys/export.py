"""Reads an Nsight Systems export (SQLite) into arrays: GPU operations, the API calls that launched them, NVTX ranges.

Reads big tables through ADBC (Arrow's C reader) and small ones through sqlite3. Knows the export's schema and nothing
of what the numbers mean. Times are integer nanoseconds of the recording's clock.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from profiling.errors import Refusal

SCHEMA_MAJOR = 3
"""Schema of the exports that this module was written for (3.7 to 3.20). Later minor versions with the same columns
are read too."""

PROCESS = ~0xFFFFFF
"""Mask that turns a thread's global id into its process's: the process has 24 bits, and 24 bits below are the thread.
"""

RANGE_TYPES = (59, 60, 70, 71)  # push/pop and start/end, of NVTX and of NVTX text files
DOMAIN_CREATED = 75
KERNEL, COPY, FILL, GRAPH = range(4)
"""Kinds of operations; GRAPH is a whole CUDA graph (`--cuda-graph-trace=graph`)."""

LAUNCH = "(value LIKE '%launch%' OR value LIKE '%memcpy%' OR value LIKE '%memset%' OR value LIKE '%prefetch%')"
"""Names of API calls that put work on the GPU. Other calls are read only if some operation belongs to none of these."""

COPY_NAMES = {1: "Host-to-Device", 2: "Device-to-Host", 8: "Device-to-Device", 9: "Host-to-Host", 10: "Peer-to-Peer"}
"""Labels of ENUM_CUDA_MEMCPY_OPER, which old exports lack."""


@dataclass(frozen=True)
class Operations:
    """What ran on GPUs: each array has one entry per operation, in no particular order."""

    start: np.ndarray  # ns
    end: np.ndarray  # ns
    kind: np.ndarray
    name: np.ndarray  # index into Export.names
    call: np.ndarray  # index into Calls; -1 when the call was not recorded
    size: np.ndarray  # bytes copied or filled, else 0


@dataclass(frozen=True)
class Calls:
    """API calls of the host, in no particular order."""

    start: np.ndarray  # ns
    end: np.ndarray  # ns
    thread: np.ndarray  # global id
    graph: np.ndarray  # whether it launches a CUDA graph


@dataclass(frozen=True)
class Ranges:
    """NVTX ranges that began and ended on one thread, in no particular order."""

    start: np.ndarray  # ns
    end: np.ndarray  # ns
    thread: np.ndarray  # global id
    name: tuple[str, ...]
    domain: tuple[str, ...]  # NVTX domain of each; "" for the default one
    still_open: int  # ranges left out because recording ended before they did


@dataclass(frozen=True)
class Export:
    """One recording."""

    path: Path
    schema: str
    gpus: tuple[str, ...]
    names: tuple[str, ...]  # of operations
    operations: Operations
    calls: Calls
    ranges: Ranges

    @cached_property
    def has_cuda(self) -> bool:
        """Whether any GPU operation was recorded."""
        return bool(len(self.operations.start))


def read(path: Path) -> Export:
    """Read a SQLite export. Raises Refusal when it is not an export, is damaged, or has an unknown schema."""
    try:
        with _connected(path) as database:
            tables = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            schema = _schema(path, database, tables)
            strings = _Strings(database, tables)
            ranges = _ranges(path, database, tables)
            gpus = _gpus(database, tables)
            if "CUPTI_ACTIVITY_KIND_RUNTIME" in tables:
                operations, calls = _Reader(path, database, tables, strings).read()
            else:
                operations, calls = _none()
            return Export(path, schema, gpus, strings.used(), operations, calls, ranges)
    except sqlite3.Error as error:
        problem = f"not a readable SQLite file ({error}); export it again with nsys export"
        raise Refusal(f"{path}: {problem}", "unreadable") from error


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(uri(path), uri=True)
    try:
        yield database
    finally:
        database.close()


def uri(path: Path) -> str:
    """URI that opens the file read-only."""
    return f"{path.resolve().as_uri()}?mode=ro"


def _schema(path: Path, database: sqlite3.Connection, tables: set[str]) -> str:
    if "META_DATA_EXPORT" not in tables:
        problem = "not an Nsight Systems export: this SQLite file has no table META_DATA_EXPORT"
        raise Refusal(f"{path}: {problem}", "not_an_export")
    about = dict(database.execute("SELECT name, value FROM META_DATA_EXPORT").fetchall())
    schema = str(about.get("EXPORT_SCHEMA_VERSION") or "unknown")
    major = schema.partition(".")[0]
    if not major.isdigit() or int(major) != SCHEMA_MAJOR:
        advice = "export the recording again with nsys 2023 to 2025"
        problem = f"export schema {schema} is not supported, only {SCHEMA_MAJOR}.x"
        raise Refusal(f"{path}: {problem}; {advice}", "unknown_schema")
    return schema


def _gpus(database: sqlite3.Connection, tables: set[str]) -> tuple[str, ...]:
    if "TARGET_INFO_GPU" not in tables:
        return ()
    return tuple(str(name) for (name,) in database.execute("SELECT name FROM TARGET_INFO_GPU ORDER BY id"))


def _ranges(path: Path, database: sqlite3.Connection, tables: set[str]) -> Ranges:
    if "NVTX_EVENTS" not in tables:
        nothing = np.empty(0, np.int64)
        return Ranges(nothing, nothing, nothing, (), (), 0)
    asked = ("start", "end", "eventType", "globalTid", "text", "textId", "domainId")
    _require(path, database, "NVTX_EVENTS", asked)
    ended = {row[1] for row in database.execute("PRAGMA table_info(NVTX_EVENTS)")} & {"endGlobalTid"}
    same_thread = "AND (endGlobalTid IS NULL OR endGlobalTid = globalTid)" if ended else ""
    named = "FROM NVTX_EVENTS LEFT JOIN StringIds ON textId = id"
    domains = {
        (int(thread) & PROCESS, domain): str(name)
        for thread, domain, name in database.execute(
            f"SELECT globalTid, domainId, coalesce(text, value, '') {named} WHERE eventType = {DOMAIN_CREATED}"
        )
    }
    rows = database.execute(
        f"SELECT start, end, globalTid, coalesce(text, value, ''), domainId {named} "
        f"WHERE eventType IN {RANGE_TYPES} {same_thread}"
    ).fetchall()
    whole = [row for row in rows if row[1] is not None]
    start, end, thread = (np.fromiter((row[column] for row in whole), np.int64, len(whole)) for column in range(3))
    names = tuple(row[3] for row in whole)
    of = tuple(domains.get((row[2] & PROCESS, row[4]), "") for row in whole)
    return Ranges(start, end, thread, names, of, len(rows) - len(whole))


def _require(path: Path, database: sqlite3.Connection, table: str, columns: Sequence[str]) -> None:
    there = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
    if missing := [column for column in columns if column not in there]:
        problem = f"{table} has no column {missing[0]}, so another nsys version exported it; export it again"
        raise Refusal(f"{path}: {problem}", "no_column")


class _Strings:
    """Names of operations as small numbers: kernels by StringIds; copies, fills and graphs by their own names."""

    def __init__(self, database: sqlite3.Connection, tables: set[str]) -> None:
        self._texts: dict[int, str] = {}
        if "StringIds" in tables:
            rows = database.execute("SELECT id, value FROM StringIds")
            self._texts = {int(number): str(text) for number, text in rows}
        self._names: list[str] = []
        kinds = dict(COPY_NAMES)
        if "ENUM_CUDA_MEMCPY_OPER" in tables:
            kinds |= {int(n): str(t) for n, t in database.execute("SELECT id, label FROM ENUM_CUDA_MEMCPY_OPER")}
        self._copies = kinds

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """Numbers of the kernels' names."""
        found = distinct(ids)
        table = np.zeros(int(found.max(initial=0)) + 1, np.int64)
        for number in found.tolist():
            table[number] = self._add(self._texts.get(number, f"kernel {number}"))
        return table[ids]

    def copies(self, kinds: np.ndarray) -> np.ndarray:
        """Numbers of the copies' names, e.g. [memcpy Host-to-Device]."""
        table = np.zeros(int(kinds.max(initial=0)) + 1, np.int64)
        for kind in distinct(kinds).tolist():
            table[kind] = self._add(f"[memcpy {self._copies.get(kind, f'kind {kind}')}]")
        return table[kinds]

    def all_named(self, name: str, count: int) -> np.ndarray:
        """One name for all of them."""
        return np.full(count, self._add(name), np.int64) if count else np.empty(0, np.int64)

    def used(self) -> tuple[str, ...]:
        """Text of every number given so far."""
        return tuple(self._names)

    def _add(self, name: str) -> int:
        self._names.append(name)
        return len(self._names) - 1


class _Reader:
    """The CUDA tables of one export."""

    def __init__(self, path: Path, database: sqlite3.Connection, tables: set[str], strings: _Strings) -> None:
        self.path, self.database, self.tables, self.strings = path, database, tables, strings

    def read(self) -> tuple[Operations, Calls]:
        """GPU operations, each with its call."""
        parts = [
            self._part(KERNEL, "KERNEL", "demangledName"),
            self._part(COPY, "MEMCPY", "copyKind", "bytes"),
            self._part(FILL, "MEMSET", "0", "bytes"),
            self._part(GRAPH, "GRAPH_TRACE", "0"),
        ]
        start, end, correlation, process, name, size, kind = map(np.concatenate, zip(*parts, strict=True))
        calls, keys = self._calls(LAUNCH)
        owners = _owners(correlation, process, keys)
        if (owners < 0).any():
            others, more = self._calls(f"NOT {LAUNCH}")
            calls = Calls(*_joined(vars(calls).values(), vars(others).values()))
            keys = _joined(keys, more)
            owners = _owners(correlation, process, keys)
        return Operations(start, end, kind, name, owners, size), calls

    def _part(self, kind: int, table: str, name: str, size: str = "0") -> list[np.ndarray]:
        full = f"CUPTI_ACTIVITY_KIND_{table}"
        if full not in self.tables:
            return [np.empty(0, np.int64)] * 6 + [np.empty(0, np.int8)]
        asked = ["start", "end", "correlationId", "globalPid", *(one for one in (name, size) if not one.isdigit())]
        _require(self.path, self.database, full, asked)
        start, end, correlation, process, *rest = self._columns(
            f'SELECT start, "end", coalesce(correlationId, -1), coalesce(globalPid, 0)'
            f"{''.join(f', {one}' for one in asked[4:])} FROM {full}"
        )
        sizes = rest[1] if len(rest) > 1 else np.zeros(len(start), np.int64)
        if kind == KERNEL:
            names = self.strings.numbers(rest[0])
        elif kind == COPY:
            names = self.strings.copies(rest[0])
        else:
            names = self.strings.all_named("[memset]" if kind == FILL else "[CUDA graph]", len(start))
            sizes = rest[0] if rest else sizes
        return [start, end, correlation, process, names, sizes, np.full(len(start), kind, np.int8)]

    def _calls(self, which: str) -> tuple[Calls, tuple[np.ndarray, ...]]:
        """Calls with such a name, and the (process, correlation) of each."""
        table = "CUPTI_ACTIVITY_KIND_RUNTIME"
        _require(self.path, self.database, table, ("start", "end", "globalTid", "correlationId", "nameId"))
        start, end, thread, correlation, graph = self._columns(
            'SELECT start, "end", coalesce(globalTid, 0), coalesce(correlationId, -1),'
            " nameId IN (SELECT id FROM StringIds WHERE value LIKE '%GraphLaunch%') "
            f"FROM {table} WHERE nameId IN (SELECT id FROM StringIds WHERE {which})"
        )
        return Calls(start, end, thread, graph.astype(bool)), (thread & PROCESS, correlation)

    def _columns(self, query: str) -> list[np.ndarray]:
        """Columns of a query, all integers and never null."""
        import adbc_driver_manager
        import adbc_driver_sqlite
        import nanoarrow

        parts: list[list[np.ndarray]] = []
        try:
            with (
                adbc_driver_sqlite.connect(uri(self.path)) as opened,
                adbc_driver_manager.AdbcConnection(opened) as connection,
                adbc_driver_manager.AdbcStatement(connection) as statement,
            ):
                statement.set_options(**{"adbc.sqlite.query.batch_rows": "65536"})
                statement.set_sql_query(query)
                stream = nanoarrow.ArrayStream(statement.execute_query()[0])
                width = len(stream.schema.fields)
                for batch in stream:
                    parts.append([_values(batch.child(column)) for column in range(width)])
        except adbc_driver_manager.Error as error:
            said = " ".join(str(error).partition("query:")[0].split())
            problem = f"the file cannot be read ({said}); export it again with nsys export"
            raise Refusal(f"{self.path}: {problem}", "unreadable") from error
        if not parts:
            return [np.empty(0, np.int64) for _ in range(width)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _joined(columns: Iterable[np.ndarray], more: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(both) for both in zip(columns, more, strict=True))


def _values(column: object) -> np.ndarray:
    """An Arrow column of int64 without nulls; an all-integer query yields nothing else."""
    return np.frombuffer(column.buffer(1), np.int64, len(column), 8 * column.offset)  # type: ignore[attr-defined, arg-type]


def _owners(correlation: np.ndarray, process: np.ndarray, keys: Sequence[np.ndarray]) -> np.ndarray:
    """For each operation, the index of the call with its correlation number in its process, or -1."""
    owners = np.full(len(correlation), -1, np.int64)
    call_process, call_correlation = keys
    for one in distinct(process).tolist():
        calls = np.flatnonzero(call_process == one)
        if not len(calls):
            continue
        mine = np.flatnonzero(process == one)
        numbers = call_correlation[calls]
        low, high = int(numbers.min()), int(numbers.max())
        asked = correlation[mine]
        inside = (asked >= low) & (asked <= high)
        if high - low < 16 * len(calls) + 1_000_000:
            table = np.full(high - low + 1, -1, np.int64)
            table[numbers - low] = calls
            owners[mine[inside]] = table[asked[inside] - low]
        else:  # too sparse for a table
            order = np.argsort(numbers, kind="stable")
            place = np.minimum(np.searchsorted(numbers[order], asked), len(order) - 1)
            same = numbers[order][place] == asked
            owners[mine[same]] = calls[order][place[same]]
    return owners


def distinct(values: np.ndarray) -> np.ndarray:
    """The distinct values; fast where there are few."""
    found: list[np.ndarray] = []
    rest = values
    while len(rest) and len(found) < 64:
        found.append(rest[:1])
        rest = rest[rest != rest[0]]
    return np.concatenate([*found, np.unique(rest)])


def _none() -> tuple[Operations, Calls]:
    empty = np.empty(0, np.int64)
    return (
        Operations(empty, empty, empty.astype(np.int8), empty, empty, empty),
        Calls(empty, empty, empty, empty.astype(bool)),
    )
