"""Prompt files: text, JSON, JSON lines, CSV and TSV, as practitioners have them.

All rules for prompt files are here, so that a bad file is refused before anything loads. Knows nothing of workloads.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.refusals import ConfigError, nearest, require

PROMPT_KEYS = ("prompt", "text", "caption")
"""Keys of a JSON object, and names of a table's columns, that hold a prompt; the first one that is there counts."""

_PLURALS = tuple(f"{key}s" for key in PROMPT_KEYS)
_COLUMN = "workload.prompts_column"


def read_prompt_file(name: str, column: str | None = None) -> list[str]:
    """All prompts of a file, in its order.

    .txt: one a line. .csv and .tsv: a column. .jsonl: a key of each line's object. .json: a list of texts or objects,
    an object of objects, or an object with one list of them. `column` names the column or the key (`body.prompt` is a
    key inside an object); without it the first of PROMPT_KEYS counts. In a table without a header, it is the column's
    number, from 1. Blank lines and empty fields of a table are dropped.

    Raises ConfigError when the file is missing, unreadable, not Unicode text, empty or malformed.
    """
    asked = f"workload.prompts={name}"
    path = Path(name).expanduser()
    reader = _READERS.get(path.suffix.lower())
    try:
        require(path.exists(), f"{asked}: no such file; check the path, which is relative to {Path.cwd()}")
        require(not path.is_dir(), f"{asked}: this is a folder; give a file in it ({', '.join(_READERS)})")
        require(path.is_file(), f"{asked}: not a regular file; save the prompts in a file")
        require(
            reader is not None,
            f"{asked}: unknown file type; use .txt (one prompt per line) or convert it to {', '.join([*_READERS][1:])}",
        )
        text = _decoded(path.read_bytes())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{asked}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
    except (OSError, ValueError, RuntimeError) as error:  # ValueError covers ConfigError and NUL in a path
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{asked}: cannot be read ({error}); check the path and its permissions") from error
    require(bool(text.strip()), f"{asked}: the file is empty; write one prompt per line")
    assert reader is not None
    prompts = reader(text, asked, column)
    require(bool(prompts), f"{asked}: it holds no prompts")
    return prompts


def is_text(text: str) -> bool:
    """False when `text` holds lone surrogates: command-line bytes or JSON escapes that are not characters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _decoded(data: bytes) -> str:
    """UTF-8, or UTF-16 with a byte-order mark. Editors on Windows put one before UTF-8 as well."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig")


def _lines(text: str) -> list[tuple[int, str]]:
    """Numbered lines without blank ones. Not splitlines(): it splits on U+2028 and others that belong to prompts."""
    lines = enumerate(re.split(r"\r\n|\n|\r", text), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _of_text(text: str, asked: str, column: str | None) -> list[str]:
    require(column is None, f"{_COLUMN}={column}: a .txt file has one prompt per line and no columns")
    lines = [line for _, line in _lines(text)]
    titles = [title.strip().lower() for title in lines[0].split("\t")]
    table = len(titles) > 1 and bool({*PROMPT_KEYS, *_PLURALS} & set(titles))
    require(not table, f"{asked}: its first line names columns ({', '.join(titles)}); rename it to .tsv")
    return lines


def _of_table(text: str, asked: str, column: str | None) -> list[str]:
    first = _lines(text)[0][1]
    delimiter = next((one for one in "\t;" if one in first and "," not in first.split(one)[0]), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows += [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        raise ConfigError(f"{asked}, line {reader.line_num}: not a valid table ({error})") from error
    place, header = _column(rows[0][1], asked, column)
    found = []
    for number, row in rows[header:]:
        require(place < len(row), f"{asked}, line {number}: has {len(row)} columns, but prompts are in {place + 1}")
        found.append(row[place].strip())
    return [prompt for prompt in found if prompt]


def _column(titles: Sequence[str], asked: str, column: str | None) -> tuple[int, int]:
    """Where the prompts are, and how many rows the header has."""
    plain = [title.strip().lower() for title in titles]
    wanted = [*PROMPT_KEYS, *_PLURALS] if column is None else [column.strip().lower()]
    for name in wanted:
        if name in plain:
            return plain.index(name), 1
    shown = ", ".join(title.strip()[:40] for title in titles[:8])
    if column is None:
        raise ConfigError(
            f"{asked}: which column holds the prompts? Its first row is: {shown}; choose with {_COLUMN}=NAME, or, "
            "without a header, by number (1 is the first)"
        )
    if column.isdecimal() and 1 <= int(column) <= len(titles):
        return int(column) - 1, 0
    raise ConfigError(
        f"{_COLUMN}={column}: no such column{nearest(column, map(str.strip, titles))}; there are: {shown}"
    )


def _of_json_lines(text: str, asked: str, column: str | None) -> list[str]:
    if text.lstrip().startswith("["):
        return _of_json(text, asked, column)
    return [_of_row(_parsed(line, w := f"{asked}, line {number}"), w, column) for number, line in _lines(text)]


def _of_json(text: str, asked: str, column: str | None) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and len(_lines(text)) > 1 and "Extra data" in str(error):
            return _of_json_lines(text, asked, column)
        raise ConfigError(f"{asked}: not valid JSON ({error})") from error
    rows = _rows(value)
    require(rows is not None, f'{asked}: holds no list of prompts; write ["…", …] or [{{"prompt": "…"}}, …]')
    found = []
    for number, row in enumerate(rows or (), start=1):
        where = f"{asked}, entry {number}"
        if isinstance(row, str):
            require(is_text(row), f"{where}: not valid Unicode text")
            found.append(row)
        else:
            found.append(_of_row(row, where, column))
    return found


def _rows(value: Any) -> Sequence[Any] | None:
    """The entries that hold a prompt each; None when it is not clear which."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return None
    if value and all(isinstance(inner, dict) for inner in value.values()):
        return list(value.values())
    lists = [inner for inner in value.values() if isinstance(inner, list) and any(map(_may_hold_prompts, inner))]
    return lists[0] if len(lists) == 1 else None


def _may_hold_prompts(row: Any) -> bool:
    return isinstance(row, str) or (isinstance(row, dict) and any(key in row for key in PROMPT_KEYS))


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'{where}: not valid JSON ({error}); write one object per line, {{"prompt": "…"}}') from error


def _of_row(row: Any, where: str, column: str | None) -> str:
    require(isinstance(row, dict), f'{where}: not a JSON object; write {{"prompt": "…"}}')
    if column is None:
        there = [key for key in PROMPT_KEYS if key in row]
        keys = ", ".join(map(str, list(row)[:8]))
        none = f'has neither "prompt" nor "text"; choose one of its keys ({keys}) with {_COLUMN}=KEY'
        require(bool(there), f"{where}: {none}")
        key = next((key for key in there if row[key] is not None), there[0])
        text = row[key]
    else:
        key, text = column, _inside(row, column, where)
    require(isinstance(text, str), f'{where}: "{key}" is not a string; write {{"prompt": "…"}}')
    require(is_text(text), f'{where}: "{key}" is not valid Unicode text')
    return str(text)


def _inside(value: Any, path: str, where: str) -> Any:
    """The value at `body.prompt` or `conversations.0.value`."""
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            known = [str(key) for key in value] if isinstance(value, Mapping) else []
            raise ConfigError(f"{where}: has no '{path}', as {_COLUMN} asks{nearest(part, known)}")
    return value


_READERS: Mapping[str, Callable[[str, str, str | None], list[str]]] = {
    ".txt": _of_text,
    ".jsonl": _of_json_lines,
    ".json": _of_json,
    ".csv": _of_table,
    ".tsv": _of_table,
}
