"""Reads tables of an Nsight Systems export (SQLite): big ones through ADBC (Arrow's C reader), small ones with sqlite3.

Knows nothing of what the tables mean. Nothing is ever written, and no value of the file raises anything but Refusal.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from profiling.errors import Refusal

EXPORT_AGAIN = "export it again with nsys export"


def whole(column: str, otherwise: int) -> str:
    """SQL for a column's integers, and `otherwise` where it holds NULL, text, a float or a blob."""
    return f"CASE typeof({column}) WHEN 'integer' THEN {column} ELSE {otherwise} END"


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

    def arrays(self, query: str) -> list[np.ndarray]:
        """Columns of a query, all of them integers and never null (see `whole`)."""
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
            raise Refusal(f"{self.path}: the file cannot be read ({said}); {EXPORT_AGAIN}", "unreadable") from error
        if not parts:
            return [np.empty(0, np.int64) for _ in range(width)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


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
