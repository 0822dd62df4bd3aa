"""Reads a measured cell from its folder: phases.csv, telemetry.csv and requests.csv, on one time axis.

The axis starts at the cell's first request, as phases and requests do. Telemetry starts with the measurement;
result.json has the offset between the two. Columns are found by name, so files of other versions can be read. Knows
nothing of sweeps or pictures.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiling.errors import Refusal
from profiling.phases import PhaseRecord
from profiling.printing import clean

ALIGNED, NEARLY_ALIGNED, UNKNOWN = "aligned", "nearly aligned", "unknown"
Row = Mapping[str, str | None]

LONGEST_S = 1e7
"""No cell runs for 116 days: a greater time is an error, and next to it other times would vanish in rounding."""

LARGEST = 1e15
"""No real reading is greater; a greater value counts as missing."""

MOST = 2**31
"""Ranks, GPUs, repeats and running numbers stay below this."""


class NoPhases(Refusal):
    """A folder without recorded phases, in which nothing is damaged."""


@dataclass(frozen=True)
class Reading:
    """One row of telemetry.csv: its numbers by column, without missing values."""

    time_s: float  # on the axis of phases
    gpu_index: int | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class RecordedRequest:
    """The part of a row of requests.csv that is needed to find the request in phases.csv."""

    request_id: str
    repeat: int
    batch_index: int


@dataclass(frozen=True)
class RecordedCell:
    """The measurements of one cell, in order of time. A batch has the name of its first request."""

    label: str
    phases: tuple[PhaseRecord, ...]
    telemetry: tuple[Reading, ...] = ()  # also empty when its clock is UNKNOWN
    requests: tuple[RecordedRequest, ...] = ()
    clock: str = ALIGNED  # how well telemetry is aligned with the phases

    @property
    def batches(self) -> tuple[str, ...]:
        """Names of the measured batches, in order of time."""
        return tuple(dict.fromkeys(phase.request_id for phase in self.phases))


def read_cell(folder: Path, first_batch: bool = False) -> RecordedCell:
    """All measurements in `folder`; with `first_batch`, only the phases of the first batch. Raises Refusal."""
    path = folder / "phases.csv"
    if not path.is_file():
        raise NoPhases(*_no_cell(folder))
    phases: list[PhaseRecord] = []
    for number, row in _rows(path, ("request_id", "rank", "phase", "start_s", "host_ms")):
        record = _phase(path, number, row)
        if first_batch and phases and record.request_id != phases[0].request_id:
            break
        phases.append(record)
    if not phases:
        reason = "the cell failed before its first batch, or its engine records no phases"
        raise NoPhases(f"{path} has no phases: {reason}", "no_phases")
    result = stored_result(folder)
    offset_s, clock = _clock(result)
    return RecordedCell(
        label=clean(str(result.get("label") or folder.resolve().name)),
        phases=tuple(sorted(phases, key=lambda phase: (phase.start_s, -phase.host_ms))),
        telemetry=() if offset_s is None else tuple(_readings(folder / "telemetry.csv", offset_s)),
        requests=tuple(_requests(folder / "requests.csv")),
        clock=clock,
    )


def _no_cell(folder: Path) -> tuple[str, str]:
    """Why `folder` is not the folder of a measured cell, what to give instead, and the code."""
    if not folder.exists():
        advice = "give the folder of a measured cell, e.g. outputs/DATE/TIME/baseline-b1-…"
        return f"{folder} does not exist; {advice}", "no_such_folder"
    if not folder.is_dir():
        return f"{folder} is a file; give the folder of a measured cell, which contains phases.csv", "not_a_folder"
    cells = sorted(path.parent.name for path in folder.glob("*/phases.csv"))
    if cells:
        more = f" and {len(cells) - 4} more" if len(cells) > 4 else ""
        return f"{folder} is a sweep's folder; give one of its cells ({', '.join(cells[:4])}{more})", "sweep_folder"
    return f"{folder} is not the folder of a measured cell: it has no phases.csv", "no_cell"


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    """(line, row) of a CSV file. Raises Refusal if the file cannot be read or is cut short."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, restval=None)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise Refusal(f"{path} cannot be read: it has no column {', '.join(missing)}", "no_column")
            last = (reader.fieldnames or [""])[-1]
            for row in reader:
                if row[last] is None:
                    raise Refusal(f"{path} cannot be read: line {reader.line_num} is cut short", "cut_short")
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refusal(f"{path} cannot be read: {reason}", "unreadable") from error


def _phase(path: Path, line: int, row: Row) -> PhaseRecord:
    gpu_ms = row.get("gpu_ms")
    return PhaseRecord(
        rank=_count(path, line, row, "rank"),
        phase=clean(row["phase"] or ""),
        index=_count(path, line, row, "index") if row.get("index") else 0,
        start_s=_number(path, line, row, "start_s", -LONGEST_S, LONGEST_S),
        host_ms=_number(path, line, row, "host_ms", 0.0, 1000 * LONGEST_S),
        gpu_ms=_number(path, line, row, "gpu_ms", 0.0, 1000 * LONGEST_S) if gpu_ms else None,
        request_id=clean(row["request_id"] or ""),
    )


def _count(path: Path, line: int, row: Row, name: str) -> int:
    return int(_number(path, line, row, name, -MOST, MOST))


def _number(path: Path, line: int, row: Row, name: str, least: float, most: float) -> float:
    try:
        value = float(row[name] or "")
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise Refusal(f"{path} cannot be read: line {line}: {name} is {repr(row[name])[:40]}", "bad_number")
    return value


def stored_result(folder: Path) -> dict[str, Any]:
    """A cell's result.json, or {} if there is none that can be read."""
    path = folder / "result.json"
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _clock(result: Mapping[str, Any]) -> tuple[float | None, str]:
    """Seconds from the start of telemetry to the first request (None if unknown), and how accurate that is.

    Older results do not store this offset. In those, the first batch was sent when telemetry began, or after the same
    batch of an interleaved baseline. It started in the engine some milliseconds later, by an unknown amount.
    """
    stored = result.get("first_request_s")
    if isinstance(stored, (int, float)):
        return (float(stored), ALIGNED) if abs(stored) <= LONGEST_S else (None, UNKNOWN)
    try:
        first = result["batches"][0]
        offset_s = float(first.get("baseline_s") or first.get("reference_s") or 0.0)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return None, UNKNOWN
    return (offset_s, NEARLY_ALIGNED) if abs(offset_s) <= LONGEST_S else (None, UNKNOWN)


def _readings(path: Path, offset_s: float) -> Iterator[Reading]:
    """Rows of telemetry.csv; none if there is no such file."""
    if not path.is_file():
        return
    for line, row in _rows(path, ("time_s",)):
        gpu = _count(path, line, row, "gpu_index") if row.get("gpu_index") else None
        values = {name: number for name, text in row.items() if (number := _measured(name, text)) is not None}
        yield Reading(_number(path, line, row, "time_s", -LONGEST_S, LONGEST_S) - offset_s, gpu, values)


def _measured(name: str, text: str | None) -> float | None:
    """The number in a field; None for what is not a level: an empty field, a word, a time or a name."""
    if not text or name in ("time_s", "gpu_index") or not isinstance(text, str):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < LARGEST else None


def _requests(path: Path) -> Iterator[RecordedRequest]:
    """Rows of requests.csv; none if there is no such file. Failed requests have no phases and are left out."""
    if not path.is_file():
        return
    for line, row in _rows(path, ("request_id",)):
        if row.get("exit_code") in (None, "", "0"):
            repeat, batch = (_count(path, line, row, n) if row.get(n) else 0 for n in ("repeat", "batch_index"))
            yield RecordedRequest(clean(row["request_id"] or ""), repeat, batch)
