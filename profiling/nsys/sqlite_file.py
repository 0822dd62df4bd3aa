"""Reads tables of an Nsight Systems export (SQLite): big ones through ADBC (Arrow's C reader), small ones with sqlite3.

Knows nothing of what the tables mean. Never writes, and values of the file raise nothing but Refusal.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from profiling.errors import Refusal

BATCH_ROWS = 65_536
"""Rows that are read at a time; what is wrong in a later batch is found only then."""

EXPORT_AGAIN = "export it again with nsys export"


def whole(column: str, otherwise: int) -> str:
    """SQL for a column's integers, and `otherwise` where it holds NULL, text, a float or a blob."""
    return f"CASE typeof({column}) WHEN 'integer' THEN {column} ELSE {otherwise} END"


class Column(NamedTuple):
    """An SQL expression, and the substitute for values that are not integers."""

    sql: str
    otherwise: int


@dataclass(frozen=True)
class Tables:
    """An opened file. `names` are those of its tables."""

    path: Path
    connection: sqlite3.Connection
    names: frozenset[str]

    def __contains__(self, table: str) -> bool:
        return table in self.names

    def columns_of(self, table: str) -> set[str]:
        """Names of a table's columns; none where there is no such table."""
        return {str(row[1]) for row in self.connection.execute(f"PRAGMA table_info({table})")}

    def require(self, table: str, columns: Sequence[str]) -> None:
        """Raise Refusal where the table or one of the columns is missing."""
        if table not in self:
            raise Refusal(f"{self.path}: the file has no table {table}; {EXPORT_AGAIN}", "no_table")
        there = self.columns_of(table)
        if missing := [column for column in columns if column not in there]:
            problem = f"{table} has no column {missing[0]}, so another nsys version exported it; export it again"
            raise Refusal(f"{self.path}: {problem}", "no_column")

    def pairs(self, table: str, number: str, text: str) -> dict[int, str]:
        """Text by number of a small table; empty where the file does not have it."""
        if not {number, text} <= self.columns_of(table):
            return {}
        query = f"SELECT {number}, CAST({text} AS TEXT) FROM {table} WHERE typeof({number}) = 'integer'"
        return {one: str(value) for one, value in self.connection.execute(query)}

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Rows of a query."""
        return iter(self.connection.execute(query))

    def arrays(self, columns: Sequence[Column], rest: str) -> list[np.ndarray]:
        """Columns of all rows of `rest` (FROM … WHERE …), all of them integers. Raises Refusal.

        Checking the type of every value takes a third longer, so it is done only if some are not integers.
        """
        plain = ", ".join(f"coalesce({one.sql}, {one.otherwise})" for one in columns)
        checked = ", ".join(whole(*one) for one in columns)
        try:
            return self._fetched(f"SELECT {plain} {rest}", len(columns))
        except _Unreadable:
            pass
        try:
            return self._fetched(f"SELECT {checked} {rest}", len(columns))
        except _Unreadable as error:
            raise Refusal(f"{self.path}: the file cannot be read ({error}); {EXPORT_AGAIN}", "unreadable") from error

    def _fetched(self, query: str, width: int) -> list[np.ndarray]:
        """Columns of a query without NULLs. Raises _Unreadable, also for a value that is not an integer."""
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
                statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})
                statement.set_sql_query(query)
                stream = nanoarrow.ArrayStream(statement.execute_query()[0])
                for batch in stream:
                    if any(field.type != nanoarrow.Type.INT64 for field in stream.schema.fields):
                        raise _Unreadable("not all values are integers")
                    parts.append([_values(batch.child(column)) for column in range(width)])
        except (adbc_driver_manager.Error, RuntimeError) as error:  # nanoarrow raises the latter, from the second batch
            raise _Unreadable(" ".join(str(error).partition("query:")[0].split())) from error
        if not parts:
            return [np.empty(0, np.int64) for _ in range(width)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


class _Unreadable(Exception):
    """Why the rows of a query cannot be read as integers."""


def _values(column: object) -> np.ndarray:
    """An Arrow column of int64 without nulls; an all-integer query yields nothing else."""
    return np.frombuffer(column.buffer(1), np.int64, len(column), 8 * column.offset)  # type: ignore[attr-defined, arg-type]


@contextmanager
def opened(path: Path) -> Iterator[Tables]:
    """The file's tables. Raises Refusal, also in place of what SQLite raises inside the block."""
    try:
        database = sqlite3.connect(uri(path), uri=True)
        try:
            database.text_factory = _text
            database.execute("PRAGMA trusted_schema = OFF")
            found = database.execute("SELECT CAST(name AS TEXT) FROM sqlite_master WHERE type = 'table'")
            yield Tables(path, database, frozenset(str(name) for (name,) in found))
        finally:
            database.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # sqlite3 decodes its messages and names of columns strictly
        problem = f"not a readable SQLite file ({error}); {EXPORT_AGAIN}"
        raise Refusal(f"{path}: {problem}", "unreadable") from error


def uri(path: Path) -> str:
    """URI that opens the file to be read alone.

    Read-only is not enough: for a file in WAL mode, SQLite would leave a -wal and a -shm file behind. "immutable"
    leaves none; it would overlook a -wal file that is there already, with what another program is writing.
    """
    writing = path.with_name(f"{path.name}-wal")
    immutable = "" if writing.exists() and writing.stat().st_size else "&immutable=1"
    return f"{path.resolve().as_uri()}?mode=ro{immutable}"


def _text(raw: bytes) -> str:
    """Text of the file; bytes that are not UTF-8 are replaced, as only the text is wrong, not the file."""
    return raw.decode("utf-8", "replace")
