"""Reads an Nsight Systems export (SQLite) into arrays: GPU operations, the API calls that launched them, NVTX ranges.

Knows the export's schema and nothing of what the numbers mean; `plausible` decides which of them can be true. Times are
integer nanoseconds of the recording's clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from profiling.errors import Refusal
from profiling.nsys.plausible import MISSING, NOTHING, Bounds, LeftOut, after_launch, gpu_bounds, host_bounds, sizes
from profiling.nsys.sqlite_file import Column, Tables, opened, whole
from profiling.printing import clean

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

CALLS = "CUPTI_ACTIVITY_KIND_RUNTIME"
RANGES = "NVTX_EVENTS"
OPERATIONS = {KERNEL: "CUPTI_ACTIVITY_KIND_KERNEL", COPY: "CUPTI_ACTIVITY_KIND_MEMCPY"} | {
    FILL: "CUPTI_ACTIVITY_KIND_MEMSET",
    GRAPH: "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
}
"""Tables of an export."""

_NAMED = "(SELECT id FROM StringIds WHERE id IS NOT NULL AND ({}))".format(
    " OR ".join(f"value LIKE '%{part}%'" for part in ("launch", "memcpy", "memset", "prefetch"))
)
LAUNCHES, OTHERS = f"nameId IN {_NAMED}", f"(nameId IS NULL OR nameId NOT IN {_NAMED})"
"""SQL for API calls that put work on the GPU, by their names, and for the other calls, which are read only if some
operation belongs to none of those."""

COPY_NAMES = {1: "Host-to-Device", 2: "Device-to-Host", 8: "Device-to-Device", 9: "Host-to-Host", 10: "Peer-to-Peer"}
"""Labels of ENUM_CUDA_MEMCPY_OPER, which old exports lack."""

UNNAMED = -1
"""Replaces the number of a name that is not an integer."""

TIMES = Column("start", MISSING), Column('"end"', MISSING)
"""Start and end of an event."""

NO_CORRELATION, NO_CORRELATION_OF_A_CALL = -1, -2
"""Replace missing correlation numbers of operations and of calls; the two must not match."""


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
    left_out: LeftOut = NOTHING
    tables: frozenset[str] = frozenset()

    @cached_property
    def has_cuda(self) -> bool:
        """Whether any GPU operation was recorded."""
        return bool(len(self.operations.start))

    def lacks(self, table: str) -> str:
        """Where the file lacks the table: the tables whose names begin like it, such as those of another version."""
        if table in self.tables:
            return ""
        alike = sorted(clean(name) for name in self.tables if name.startswith(table))
        return f"no table {table}{f', but {alike[0]}' if alike else ''}"


def read(path: Path) -> Export:
    """Read a SQLite export. Raises Refusal when it is not an export, is damaged, or has an unknown schema."""
    with opened(path) as tables:
        return _Reader(tables).read()


@dataclass(frozen=True)
class _Called:
    """API calls, and the (process, correlation) of each."""

    calls: Calls
    keys: tuple[np.ndarray, np.ndarray]

    def chosen(self, those: np.ndarray) -> "_Called":
        """Some of them."""
        return _Called(
            Calls(*(one[those] for one in vars(self.calls).values())), (self.keys[0][those], self.keys[1][those])
        )

    def joined(self, other: "_Called") -> "_Called":
        """Both."""
        both = zip(vars(self.calls).values(), vars(other.calls).values(), strict=True)
        process, correlation = (np.concatenate(pair) for pair in zip(self.keys, other.keys, strict=True))
        return _Called(Calls(*(np.concatenate(pair) for pair in both)), (process, correlation))


@dataclass(frozen=True)
class _Part:
    """Operations of one table, before their calls are known."""

    start: np.ndarray
    end: np.ndarray
    correlation: np.ndarray
    process: np.ndarray
    name: np.ndarray
    size: np.ndarray
    kind: np.ndarray

    def chosen(self, those: np.ndarray) -> "_Part":
        """Some of them."""
        return _Part(*(one[those] for one in vars(self).values()))


class _Reader:
    """One export while it is being read."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.names = _Names(tables)

    def read(self) -> Export:
        """All of it."""
        schema = self._schema()
        gpus = self._gpus()
        ranges = self._ranges()
        called = self._called(LAUNCHES)
        host = host_bounds([ranges.start, called.calls.start])
        ranges, wrong_ranges = _ranges_within(ranges, host)
        called, wrong_calls = _calls_within(called, host)
        operations, wrong_sizes = self._operations()
        good = gpu_bounds(host, [ranges.end, called.calls.end]).holds(operations.start, operations.end)
        operations, wrong_operations = operations.chosen(good), int((~good).sum())
        owners = _owners(operations.correlation, operations.process, called.keys)
        if (owners < 0).any():
            others, more = _calls_within(self._called(OTHERS), host)
            wrong_calls += more
            called = called.joined(others)
            owners = _owners(operations.correlation, operations.process, called.keys)
        good = after_launch(operations.start, owners, called.calls.start)
        operations, owners = operations.chosen(good), owners[good]
        one = operations
        return Export(
            path=self.tables.path,
            schema=schema,
            gpus=gpus,
            names=self.names.used(),
            operations=Operations(one.start, one.end, one.kind, one.name, owners, one.size),
            calls=called.calls,
            ranges=ranges,
            left_out=LeftOut(wrong_operations + int((~good).sum()), wrong_calls, wrong_ranges, wrong_sizes),
            tables=self.tables.names,
        )

    def _schema(self) -> str:
        path = self.tables.path
        if "META_DATA_EXPORT" not in self.tables:
            problem = "not an Nsight Systems export: this SQLite file has no table META_DATA_EXPORT"
            raise Refusal(f"{path}: {problem}", "not_an_export")
        self.tables.require("META_DATA_EXPORT", ("name", "value"))
        asked = "SELECT CAST(value AS TEXT) FROM META_DATA_EXPORT WHERE name = 'EXPORT_SCHEMA_VERSION'"
        schema = str(next((value for (value,) in self.tables.rows(asked) if value), "unknown"))
        major = schema.partition(".")[0]
        if major != str(SCHEMA_MAJOR):
            advice = "export the recording again with nsys 2023 to 2025"
            problem = f"export schema {schema} is not supported, only {SCHEMA_MAJOR}.x"
            raise Refusal(f"{path}: {problem}; {advice}", "unknown_schema")
        return clean(schema)

    def _gpus(self) -> tuple[str, ...]:
        if not {"id", "name"} <= self.tables.columns_of("TARGET_INFO_GPU"):
            return ()
        asked = "SELECT CAST(coalesce(name, 'unnamed GPU') AS TEXT) FROM TARGET_INFO_GPU ORDER BY id"
        return tuple(clean(name) for (name,) in self.tables.rows(asked))

    def _ranges(self) -> Ranges:
        """All ranges that ended; their times are not checked."""
        if RANGES not in self.tables:
            nothing = np.empty(0, np.int64)
            return Ranges(nothing, nothing, nothing, (), (), 0)
        self.tables.require(RANGES, ("start", "end", "eventType", "globalTid", "text", "textId", "domainId"))
        text, named = "text", f"FROM {RANGES}"
        if {"id", "value"} <= self.tables.columns_of("StringIds"):
            text, named = "coalesce(text, value)", f"{named} LEFT JOIN StringIds ON textId = id"
        thread, text = whole("globalTid", 0), f"CAST(coalesce({text}, '') AS TEXT)"
        seen: dict[str, str] = {}

        def cleaned(name: str) -> str:
            return seen.get(name) or seen.setdefault(name, clean(name))

        asked = f"SELECT {thread}, domainId, {text} {named} WHERE eventType = {DOMAIN_CREATED}"
        domains = {(of & PROCESS, number): cleaned(name) for of, number, name in self.tables.rows(asked)}
        ended = "endGlobalTid" in self.tables.columns_of(RANGES)
        same_thread = "AND (endGlobalTid IS NULL OR endGlobalTid = globalTid)" if ended else ""
        end = f'CASE WHEN "end" IS NOT NULL THEN {whole(*TIMES[1])} END'
        rows = list(
            self.tables.rows(
                f"SELECT {whole(*TIMES[0])}, {end}, {thread}, {text}, domainId {named} "
                f"WHERE eventType IN {RANGE_TYPES} {same_thread}"
            )
        )
        past = [row for row in rows if row[1] is not None]
        times = (np.fromiter((row[column] for row in past), np.int64, len(past)) for column in range(3))
        starts, ends, threads = times
        of = tuple(domains.get((row[2] & PROCESS, row[4]), "") for row in past)
        return Ranges(starts, ends, threads, tuple(cleaned(row[3]) for row in past), of, len(rows) - len(past))

    def _called(self, which: str) -> _Called:
        """Those of LAUNCHES or of OTHERS."""
        if CALLS not in self.tables:
            empty = np.empty(0, np.int64)
            return _Called(Calls(empty, empty, empty, empty.astype(bool)), (empty, empty))
        self.tables.require(CALLS, ("start", "end", "globalTid", "correlationId", "nameId"))
        self.tables.require("StringIds", ("id", "value"))
        launches_graph = "nameId IN (SELECT id FROM StringIds WHERE value LIKE '%GraphLaunch%')"
        asked = [*TIMES, Column("globalTid", 0), Column("correlationId", NO_CORRELATION_OF_A_CALL)]
        asked.append(Column(launches_graph, 0))
        start, end, thread, correlation, graph = self.tables.arrays(asked, f"FROM {CALLS} WHERE {which}")
        return _Called(Calls(start, end, thread, graph.astype(bool)), (thread & PROCESS, correlation))

    def _operations(self) -> tuple[_Part, int]:
        """GPU operations, whose times are not checked, and how many of their sizes are impossible."""
        parts = [
            self._part(KERNEL, "demangledName"),
            self._part(COPY, "copyKind", "bytes"),
            self._part(FILL, "", "bytes"),
            self._part(GRAPH, ""),
        ]
        joined = _Part(*map(np.concatenate, zip(*(vars(one).values() for one in parts), strict=True)))
        size, wrong = sizes(joined.size)
        return replace(joined, size=size), wrong

    def _part(self, kind: int, name: str, size: str = "") -> _Part:
        table = OPERATIONS[kind]
        if table not in self.tables:
            empty = np.empty(0, np.int64)
            return _Part(empty, empty, empty, empty, empty, empty, empty.astype(np.int8))
        self.tables.require(table, ["start", "end", "correlationId", "globalPid", *filter(None, (name, size))])
        asked = [*TIMES, Column("correlationId", NO_CORRELATION), Column("globalPid", 0)]
        asked += [Column(name or "0", UNNAMED), Column(size or "0", -1)]
        start, end, correlation, process, number, bytes_ = self.tables.arrays(asked, f"FROM {table}")
        if kind == KERNEL:
            names = self.names.kernels(number)
        elif kind == COPY:
            names = self.names.copies(number)
        else:
            names = self.names.all_named("[memset]" if kind == FILL else "[CUDA graph]", len(start))
        return _Part(start, end, correlation, process, names, bytes_, np.full(len(start), kind, np.int8))


def _ranges_within(ranges: Ranges, bounds: Bounds) -> tuple[Ranges, int]:
    """Ranges with possible times, and the number of the others."""
    good = bounds.holds(ranges.start, ranges.end)
    if good.all():
        return ranges, 0
    kept = np.flatnonzero(good)
    names, domains = (tuple(one[which] for which in kept.tolist()) for one in (ranges.name, ranges.domain))
    times = ranges.start[kept], ranges.end[kept], ranges.thread[kept]
    return Ranges(*times, names, domains, ranges.still_open), len(good) - len(kept)


def _calls_within(called: _Called, bounds: Bounds) -> tuple[_Called, int]:
    """Calls with possible times, and the number of the others."""
    good = bounds.holds(called.calls.start, called.calls.end)
    return (called, 0) if good.all() else (called.chosen(good), int((~good).sum()))


class _Names:
    """Names of operations as small numbers: kernels by StringIds; copies, fills and graphs by their own names."""

    def __init__(self, tables: Tables) -> None:
        self._texts = tables.pairs("StringIds", "id", "value")
        self._copies = COPY_NAMES | tables.pairs("ENUM_CUDA_MEMCPY_OPER", "id", "label")
        self._names: list[str] = []

    def kernels(self, ids: np.ndarray) -> np.ndarray:
        """Numbers of the kernels' names."""
        unknown = {UNNAMED: "[unnamed kernel]"}
        return self._numbered(ids, lambda one: self._texts.get(one) or unknown.get(one) or f"kernel {one}")

    def copies(self, kinds: np.ndarray) -> np.ndarray:
        """Numbers of the copies' names, e.g. [memcpy Host-to-Device]."""
        return self._numbered(kinds, lambda one: f"[memcpy {self._copies.get(one, f'kind {one}')}]")

    def all_named(self, name: str, count: int) -> np.ndarray:
        """One name for all of them."""
        return np.full(count, self._add(name), np.int64) if count else np.empty(0, np.int64)

    def used(self) -> tuple[str, ...]:
        """Text of every number given so far."""
        return tuple(self._names)

    def _numbered(self, ids: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
        found = np.sort(distinct(ids))
        numbers = np.array([self._add(name(one)) for one in found.tolist()], np.int64)
        return numbers[np.searchsorted(found, ids)]

    def _add(self, name: str) -> int:
        self._names.append(clean(name))
        return len(self._names) - 1


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
