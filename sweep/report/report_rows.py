"""report.json read back into rows of summary.csv: the inverse of `report_json`, for reports without their folder.

Reads one file and checks it; whatever it holds, rows have plain values under known names. Reports of any sweep version
are read: fields that an earlier one lacks are missing.
"""

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from profiling.printing import clean
from sweep import legacy
from sweep.analysis import columns, options
from sweep.analysis.column import FACT, IDENTITY, METRIC, PHASE, STATUS
from sweep.findings import STATUSES, Finding, deciding
from sweep.refusals import ConfigError
from sweep.results.files import MOST_BYTES, open_regular, parsed

REPORT = "report.json"

Number = bool | int | float | None
Count = Annotated[int, Meta(ge=0, le=2**31)]


class _Finding(Struct, frozen=True):
    code: str
    text: str = ""
    status: str = ""


class _Speedup(Struct, frozen=True):
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    called: str = ""
    p_value: float | None = None
    p_holm: float | None = None
    interaction_gain: float | None = None
    interaction_low: float | None = None
    interaction_high: float | None = None


class _OverBase(Struct, frozen=True):
    base: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


class _Quality(Struct, frozen=True):
    mean_diff: float | None = None
    max_diff: float | None = None
    psnr_db: float | None = None
    ssim: float | None = None
    clip_similarity: float | None = None
    identical: bool | None = None


class _Evidence(Struct, frozen=True):
    text: str = ""


class _Cell(Struct, frozen=True):
    cell: str
    cell_key: str
    role: str
    model: str
    engine: str
    batch: Count
    status: str
    features: list[str] = []
    options: dict[str, bool | int | float | str] = {}
    findings: list[_Finding] | None = None
    speedup: _Speedup = _Speedup()
    over_base: _OverBase = _OverBase()
    quality: _Quality = _Quality()
    evidence: _Evidence = _Evidence()
    phases_ms: dict[str, float | None] = {}
    metrics: dict[str, Number] = {}


class _Report(Struct, frozen=True):
    schema_version: Literal[1]
    sweep: dict[str, Any]
    cells: list[_Cell]


def read(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows, as `summary.summarise` makes them, and what the report says of its sweep (command, versions, machine).

    A name that ends with .gz is unpacked. Raises ConfigError with one line when the file is not a report.json.
    """
    try:
        values = parsed(_content(path))
        report = msgspec.convert(values, _Report)
        unknown = {cell.status for cell in report.cells}.difference(STATUSES)
        if unknown:
            raise ValueError(f"a status is '{unknown.pop()}', not one of {', '.join(STATUSES)}")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; give a sweep's folder or its {REPORT}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} is not a {REPORT} that this version reads: {clean(str(error))}") from None
    rows = [_row(cell, entry) for cell, entry in zip(report.cells, values["cells"], strict=True)]
    return rows, report.sweep


def _content(path: Path) -> bytes:
    with open_regular(path) as file:
        if path.suffix != ".gz":
            data = file.read(MOST_BYTES + 1)
        else:
            with gzip.open(file, "rb") as unpacked:
                data = unpacked.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    return data


def _row(cell: _Cell, entry: Mapping[str, Any]) -> dict[str, Any]:
    """`entry` is the cell as JSON holds it, for the fields that are columns by the same name."""
    facts = {name: _plain(entry.get(name)) for name in columns.of_kind(IDENTITY, FACT, STATUS)}
    facts |= {name: facts[name] or "" for name in columns.of_kind(STATUS)}  # a text that has nothing to say
    speedup, quality = cell.speedup, cell.quality
    return {
        **facts,
        "features": "+".join(sorted(map(clean, cell.features))),
        "reason_code": _code(cell, facts["reason"]),
        "evidence": clean(cell.evidence.text) or None,
        **{name: cell.metrics.get(name) for name in columns.of_kind(METRIC)},
        **{name: cell.phases_ms.get(name.removesuffix("_ms")) for name in columns.of_kind(PHASE)},
        "speedup": speedup.ratio,
        "speedup_low": speedup.low,
        "speedup_high": speedup.high,
        "called": clean(speedup.called),
        "p_value": speedup.p_value,
        "p_holm": speedup.p_holm,
        "interaction_gain": speedup.interaction_gain,
        "interaction_low": speedup.interaction_low,
        "interaction_high": speedup.interaction_high,
        "base": clean(cell.over_base.base) or None,
        "gain_over_base": cell.over_base.ratio,
        "gain_over_base_low": cell.over_base.low,
        "gain_over_base_high": cell.over_base.high,
        "mean_diff": quality.mean_diff,
        "max_diff": quality.max_diff,
        "psnr_db": math.inf if quality.identical else quality.psnr_db,
        "ssim": quality.ssim,
        "clip_similarity": quality.clip_similarity,
        **{f"{options.PREFIX}{clean(name)}": _plain(value) for name, value in cell.options.items()},
    }


def _code(cell: _Cell, reason: str) -> str | None:
    if cell.findings is None:
        return next(iter(legacy.codes(cell.status, reason)), None)
    grave = deciding([Finding(one.code, one.text, one.status) for one in cell.findings])
    return clean(grave[0].code) if grave else None


def _plain(value: Any) -> Any:
    """A value that fits a field of a table; None for anything else, and for a text that says nothing."""
    if isinstance(value, str):
        return clean(value) or None
    return value if isinstance(value, bool | int | float) else None
