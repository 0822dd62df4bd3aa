"""Mutated copies of the recorded traces: `python -m tests.fuzz.traces --count 500 --seed 0`.

Whatever a trace contains, `analyze` and `diff` end soon, with exit code 0 or 2, with an answer that can be true or one
clear line, and write nothing but what was asked for. Each case follows from its seed alone, and is printed with it when
it breaks that. Exit code 1 when one did.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import random
import resource
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from profiling.__main__ import main as profiling
from profiling.nsys import sqlite_file

TRACES = Path(__file__).resolve().parents[1] / "data" / "traces"
BASES = ("cuda_graph_node", "cuda_graph_graph", "cuda_graph_node", "cuda_graph_graph", "vllm_omni_h200")
LIMIT_S = 20.0
"""Of processor time, so that a busy machine changes nothing."""

WAIT_S = 300.0
"""Of wall time, for what waits instead of computing."""

MEMORY = 6 << 30
"""Bytes of addresses: what wants more, such as a table as long as the largest id, fails."""

READ = {
    "CUPTI_ACTIVITY_KIND_KERNEL": ("start", "end", "correlationId", "globalPid", "demangledName"),
    "CUPTI_ACTIVITY_KIND_MEMCPY": ("start", "end", "correlationId", "globalPid", "copyKind", "bytes"),
    "CUPTI_ACTIVITY_KIND_MEMSET": ("start", "end", "correlationId", "globalPid", "bytes"),
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE": ("start", "end", "correlationId", "globalPid"),
    "CUPTI_ACTIVITY_KIND_RUNTIME": ("start", "end", "globalTid", "correlationId", "nameId"),
    "NVTX_EVENTS": ("start", "end", "eventType", "globalTid", "endGlobalTid", "text", "textId", "domainId"),
    "StringIds": ("id", "value"),
    "META_DATA_EXPORT": ("name", "value"),
    "TARGET_INFO_GPU": ("id", "name"),
    "ENUM_CUDA_MEMCPY_OPER": ("id", "label"),
}
"""Tables and columns that are read."""

VALUES: tuple[object, ...] = (
    *(None, 0, 1, -1, 0.5, -0.0, 1e16, 1e308, float("inf"), 10**14, 2**31, 2**40, 2**53 + 1, 2**62, 2**63 - 1),
    *(-(2**63), "", "0", "12", "nan", "soon", "x" * 5000, "a\n\x1b[31mb\r\x07\x9b\u202e", "\x00", "一只猫"),
    *(b"", b"\x00\xff", b"\xff" * 40),
)
EXPRESSIONS = (
    *("{c} * 1.0", "CAST({c} AS TEXT)", "-{c}", "{c} / 2", "{c} * 1000000", "{c} + 1000000000000000", "-1 - abs({c})"),
    *("CAST(X'C4E3BAC3FF' AS TEXT)", "random()", "abs(random()) % 1000", "{c} - 100000000000000", "CAST({c} AS BLOB)"),
)
"""SQL that changes a column `c`."""

ROWS = ("1", "rowid = 1", "rowid % 2", "rowid % 7 = 3", "rowid > 5", "abs(random()) % 3 = 0")
Random = random.Random


def free(database: sqlite3.Connection, table: str) -> list[str]:
    """Columns of a table, which from now on takes values of all types."""
    names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    shown = ",".join(f'"{name}"' for name in names)
    database.execute(f"CREATE TABLE free_ ({shown})")
    database.execute(f"INSERT INTO free_ SELECT {shown} FROM {table}")
    database.execute(f"DROP TABLE {table}")
    database.execute(f"ALTER TABLE free_ RENAME TO {table}")
    return names


def chosen(random_: Random, database: sqlite3.Connection) -> tuple[str, str] | None:
    """A table and one of its columns, mostly of those that are read; None where nothing is left."""
    there = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    there = [name for name in there if name in READ or random_.random() < 0.02]
    if not there:
        return None
    often = [name for name in there if len(READ.get(name, ())) > 2]
    table = random_.choice(often if often and random_.random() < 0.6 else there)
    names = free(database, table)
    read = [name for name in READ.get(table, ()) if name in names]
    return table, random_.choice(read if read and random_.random() < 0.9 else names)


def value(random_: Random, database: sqlite3.Connection, table: str, column: str) -> str:
    """Set some values of a column."""
    what, rows = random_.choice(VALUES), random_.choice(ROWS)
    database.execute(f'UPDATE {table} SET "{column}" = ? WHERE {rows}', (what,))
    return f"{table}.{column} = {what!r:.40} where {rows}"


def expression(random_: Random, database: sqlite3.Connection, table: str, column: str) -> str:
    """Change some values of a column."""
    what, rows = random_.choice(EXPRESSIONS).format(c=f'"{column}"'), random_.choice(ROWS)
    database.execute(f'UPDATE {table} SET "{column}" = {what} WHERE {rows}')
    return f"{table}.{column} = {what} where {rows}"


def structure(random_: Random, database: sqlite3.Connection, table: str, column: str) -> str:
    """Change which tables, columns and rows there are."""
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS start, x AS id FROM n"
    statements = {
        "drop": f"DROP TABLE {table}",
        "suffix": f"ALTER TABLE {table} RENAME TO {table}_V2",
        "no column": f'ALTER TABLE {table} DROP COLUMN "{column}"',
        "other column": f'ALTER TABLE {table} RENAME COLUMN "{column}" TO other_',
        "empty": f"DELETE FROM {table}",
        "twice": f"INSERT INTO {table} SELECT * FROM {table}",
        "one row": f"DELETE FROM {table} WHERE rowid > 1",
        "view": f"ALTER TABLE {table} RENAME TO hidden_; CREATE VIEW {table} AS SELECT * FROM hidden_",
        "endless view": f"DROP TABLE {table}; CREATE VIEW {table} AS {endless}",
    }
    name = random_.choice(list(statements))
    database.executescript(statements[name])
    return f"{name} {table}.{column}"


def wal(random_: Random, database: sqlite3.Connection, table: str, column: str) -> str:
    """Leave the file in WAL mode, in which SQLite would write files next to it."""
    database.commit()
    database.execute("PRAGMA journal_mode = WAL")
    return "WAL mode"


def bits(random_: Random, raw: bytearray) -> str:
    """Flip bits all over the file, or in one place."""
    count, place = random_.choice((1, 10, 300)), random_.randrange(len(raw))
    width = random_.choice((64, 4096, len(raw)))
    for _ in range(count):
        raw[(place + random_.randrange(width)) % len(raw)] ^= 1 << random_.randrange(8)
    return f"{count} bits within {width} bytes from {place}"


def cut(random_: Random, raw: bytearray) -> str:
    """Cut the file off."""
    length = random_.choice((0, 1, 15, 16, 99, 100, 512, 4096, random_.randrange(len(raw)), len(raw) - 1))
    del raw[length:]
    return f"cut to {length} bytes"


def blank(random_: Random, raw: bytearray) -> str:
    """Overwrite a part with zeros, noise or another part."""
    length = min(len(raw), random_.choice((8, 512, 4096, 40_000)))
    place, other = (random_.randrange(max(1, len(raw) - length)) for _ in range(2))
    kind = random_.choice(("zeros", "noise", "another part"))
    put = {"zeros": bytes(length), "noise": random_.randbytes(length), "another part": raw[other : other + length]}
    raw[place : place + length] = put[kind]
    return f"{length} bytes of {kind} at {place}"


IN_SQL = (value, value, value, value, expression, expression, structure, structure, wal)
IN_BYTES = (bits, bits, cut, blank)


def mutate(seed: int, path: Path) -> str:
    """Write the trace of a seed; returns what is wrong with it."""
    random_ = Random(f"trace {seed}")
    base = random_.choice(BASES)
    path.write_bytes(gzip.decompress((TRACES / f"{base}.sqlite.gz").read_bytes()))
    done = [base]
    if random_.random() < 0.7:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA journal_mode = MEMORY")
            for _ in range(random_.choice((1, 1, 2, 3, 5))):
                with contextlib.suppress(sqlite3.Error):  # such as the last column of a table
                    if where := chosen(random_, database):
                        done.append(random_.choice(IN_SQL)(random_, database, *where))
    if len(done) == 1 or random_.random() < 0.1:
        raw = bytearray(path.read_bytes())
        done += [random_.choice(IN_BYTES)(random_, raw) for _ in range(random_.choice((1, 1, 2))) if raw]
        path.write_bytes(raw)
    return "; ".join(done)


def commands(seed: int, path: Path, good: Path) -> Iterator[list[str]]:
    """What is done with the trace of a seed."""
    random_ = Random(f"command {seed}")
    trace, other = str(path), str(good)
    yield ["analyze", trace, "--format", "json", *random_.choice(([], ["--host-only"]))]
    yield random_.choice(
        (
            ["analyze", trace, "--all", "--top", "5"],
            ["analyze", trace, "--format", "csv", "--save", str(path.parent / "saved")],
            ["diff", trace, other, "--format", "json"],
            ["diff", other, trace],
            ["diff", trace, trace, "--host-only"],
        )
    )


class TooLong(Exception):
    """The command did not end in time."""


def attempt(arguments: list[str]) -> str:
    """Run the command; returns what is wrong with how it ended, or ""."""

    def late(*_: object) -> None:
        raise TooLong

    out, err = io.StringIO(), io.StringIO()
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, LIMIT_S), (signal.ITIMER_REAL, signal.SIGALRM, WAIT_S))
    for timer, number, seconds in timers:
        signal.signal(number, late)
        signal.setitimer(timer, seconds)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = profiling(arguments)
    except TooLong:
        return f"no end within {LIMIT_S:g} s of processor time, or {WAIT_S:g} s"
    except BaseException:
        return traceback.format_exc()
    finally:
        for timer, _, _ in timers:
            signal.setitimer(timer, 0)
    return wrong(arguments, code, out.getvalue(), err.getvalue())


def wrong(arguments: list[str], code: int, out: str, err: str) -> str:
    """What is wrong with an answer, or ""."""
    if odd := {character for character in out + err if not character.isprintable()} - {"\n"}:
        return f"control characters: {odd}"
    if any(not line.startswith("profiling: ") for line in err.splitlines()):
        return f"stderr: {err}"
    if code == 2:
        return "" if not out and err.count("\n") == 1 else f"exit code 2 with {out[:80]!r} and {err!r}"
    if code:
        return f"exit code {code}"
    if not out.strip():
        return "no answer"
    if "json" in arguments:
        return untrue(json.loads(out, parse_constant=lambda name: float(name)), "")
    return ""


def untrue(values: object, name: str) -> str:
    """A number that cannot be true, or ""; a diff's changes may have either sign."""
    if isinstance(values, dict):
        parts = [values.get(part) for part in ("busy_ns", "gap_ns", "projected_ns")]
        if None not in parts and parts[0] + parts[1] != parts[2]:
            return f"{name} does not add up: {values}"
        inner = ((key, one) for key, one in values.items() if key != "parts_ns" and "change" not in key)
        return next((found for key, one in inner if (found := untrue(one, f"{name}.{key}"))), "")
    if isinstance(values, list):
        return next((found for one in values if (found := untrue(one, name))), "")
    if not isinstance(values, int | float) or name.endswith(".process"):
        return ""
    most = 1.000001 if name.endswith("_share") and "kernels" not in name else 1e19
    return "" if 0 <= values <= most else f"{name} is {values}"


def files_of(folder: Path) -> dict[Path, int]:
    """Everything below a folder, with its time of change."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def failures(seeds: range, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """What is wrong with the answer to each seed's trace, with what was done to it."""
    found = []
    with tempfile.TemporaryDirectory(prefix="sweep-fuzz-") as name, contextlib.chdir(name):
        good = Path(name) / "good.sqlite"
        good.write_bytes(gzip.decompress((TRACES / "cuda_graph_node.sqlite.gz").read_bytes()))
        for seed in seeds:
            folder = Path(name) / str(seed)
            folder.mkdir()
            path = folder / "trace.sqlite"
            sqlite_file.BATCH_ROWS = Random(seed).choice((50, 65_536))
            done = mutate(seed, path)
            for arguments in commands(seed, path, good):
                before, started = files_of(Path(name)), time.perf_counter()
                problem = attempt(arguments)
                new = {one for one, at in files_of(Path(name)).items() if before.get(one) != at and one != folder}
                if left := {one for one in new if "saved" not in one.parts}:
                    problem = problem or f"wrote {left}"
                say(f"seed {seed} {arguments[0]} {time.perf_counter() - started:.2f} s: {done}")
                if problem:
                    found.append(f"seed {seed}: {done}\n  {' '.join(arguments)}\n  {problem}")
            for one in sorted(folder.rglob("*"), reverse=True):
                one.rmdir() if one.is_dir() else one.unlink()
            folder.rmdir()
    return found


def asked(program: str, about: str, count: int) -> argparse.Namespace:
    """The command line of a fuzzer."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about.split("\n")[0])
    parser.add_argument("--count", type=int, default=count, help=f"number of inputs (default {count})")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first input (default 0)")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    return parser.parse_args()


def limited() -> None:
    """Limit this process's memory, and find no nsys."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    os.environ["NSYS"] = "/nowhere"


def main() -> int:
    """Try the traces of some seeds; returns the exit code."""
    chosen = asked("tests.fuzz.traces", __doc__ or "", 500)
    limited()
    seeds = range(chosen.seed, chosen.seed + chosen.count)
    found = failures(seeds, (lambda line: print(line, flush=True)) if chosen.verbose else (lambda _: None))
    print("\n".join([*found, f"{chosen.count} traces, {len(found)} failures"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
