"""report.json as frozen dataclasses: the only module of the comparison that opens files.

Reads the format of docs/report.md and checks it: whatever a file holds, the decisions get finite numbers, known
statuses and text that is safe to print. Knows no statistics.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiling.printing import clean
from sweep import legacy
from sweep.analysis.paired import Noise, Sample, Start, interleaved_noise
from sweep.compare.loads import Load
from sweep.findings import STATUSES, Finding, deciding
from sweep.plan.cells import noise_engine
from sweep.results.records import LONGEST_S, SHORTEST_S

SCHEMA_VERSION = 1  # of report.json
REPORT = "report.json"


class CompareError(ValueError):
    """Something cannot be compared: one line that says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a report. `starts` are in seconds, `phases_ms` in milliseconds per request."""

    key: str
    baseline_key: str
    label: str
    role: str  # baseline, feature, aa
    features: tuple[str, ...]
    model: str
    engine: str
    parallel: str
    batch: int
    width: int
    height: int
    steps: int
    prompts: int
    status: str
    reason: str
    codes: tuple[str, ...]  # of the findings that decided the status
    valid: bool
    invalid_reason: str
    profiled: str  # its profiler: nsys, torch; "" if none
    speedup: Mapping[str, Any]  # ratio, low, high, called
    quality: Mapping[str, float | None]
    phases_ms: Mapping[str, float]
    metrics: Mapping[str, float | None]
    starts: tuple[Start, ...]  # engine starts that measured something
    interleaved: tuple[Start, ...]  # the interleaved baseline of each start; empty if there was none
    load: Load | None = None  # None offline
    settings: Mapping[str, str] = field(default_factory=dict)  # what it was measured with; empty in earlier reports

    @property
    def noise_name(self) -> tuple[str, str]:
        """What its noise is estimated for: model and engine, offline and under load apart."""
        return self.model, noise_engine(self.engine, self.load is not None)

    @property
    def is_baseline(self) -> bool:
        """Whether it is a baseline, measured without features; a relative comparison divides by it."""
        return self.role == "baseline"

    @property
    def is_repeat(self) -> bool:
        """Whether it is an A/A run: it measures noise and is not judged itself."""
        return self.role == "aa"


@dataclass(frozen=True)
class Floor:
    """Chance differences for one model and engine: latency between engine starts, and pixels."""

    alone: Noise = Noise()  # of one start's mean log latency
    interleaved: Noise = Noise()  # of one start's mean log ratio to its interleaved baseline
    mean_diff: float = 0.0  # between two runs of the baseline


@dataclass(frozen=True)
class Report:
    """One sweep. `name` is its name on the command line."""

    name: str
    cells: Mapping[str, Cell]  # by cell_key
    floors: Mapping[tuple[str, str], Floor]  # by model and engine, as `noise_name` names it
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    git_commit: str
    start: str
    note: str  # says that weights are random, or ""

    repeats: Mapping[str, tuple[Start, ...]]  # starts of A/A runs, by the key of their baseline

    def starts(self, cell: Cell) -> tuple[Start, ...]:
        """All starts that measured this cell; for a baseline, also those of its A/A runs."""
        return cell.starts + self.repeats.get(cell.key, ())

    def floor(self, cell: Cell) -> Floor:
        """The noise in this cell's numbers."""
        return self.floors.get(cell.noise_name, Floor())


def load(argument: str) -> Report:
    """The report that a command line argument names: a sweep's folder or a file. Raises CompareError."""
    path = Path(argument)
    if path.is_dir():
        folder, path = path, path / REPORT
        if not path.is_file():
            raise CompareError(f"{folder} has no {REPORT}; `python -m sweep.report {folder}` writes it")
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CompareError(f"{path} does not exist; give a sweep's folder or its {REPORT}") from None
    except OSError as error:
        raise CompareError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CompareError(f"{path} is not a {REPORT}: {clean(str(error))}") from None
    try:
        return parse(data, clean(argument.rstrip("/") or argument))
    except CompareError as error:
        raise CompareError(f"{path}: {error}") from None
    except OverflowError:
        raise CompareError(f"{path}: a number is too large") from None


def parse(data: Any, name: str) -> Report:
    """A report from its JSON values. Raises CompareError that names the field."""
    if not isinstance(data, dict) or "schema_version" not in data:
        raise CompareError(f"not a {REPORT}: it has no schema_version")
    if data["schema_version"] != SCHEMA_VERSION:
        raise CompareError(
            f"schema_version is {clean(str(data['schema_version']))}, but this version reads {SCHEMA_VERSION}; rebuild "
            "it with `python -m sweep.report DIR`, or use the version that wrote it"
        )
    common = _settings(data, "the report")
    cells: dict[str, Cell] = {}
    for number, entry in enumerate(_list(data, "cells", "the report")):
        cell = _cell(entry, f"cells[{number}]", common)
        if cell.key in cells:
            raise CompareError(f"cells[{number}].cell_key {cell.key} appears twice")
        cells[cell.key] = cell
    repeats = [cell for cell in cells.values() if cell.is_repeat]
    floors = dict(_floor(entry, f"noise[{n}]", repeats) for n, entry in enumerate(_list(data, "noise", "the report")))
    sweep = _mapping(data, "sweep", "the report")
    weights = clean(str(sweep.get("note") or "Random weights.")) if sweep.get("random_weights") else ""
    return Report(
        name=name,
        cells=cells,
        floors=floors,
        machine=_texts(_mapping(sweep, "machine", "sweep")),
        versions=_texts(_mapping(sweep, "versions", "sweep")),
        git_commit=clean(str(sweep.get("git_commit") or "")),
        start=clean(str(sweep.get("start") or "")),
        note=weights,
        repeats=_joined(repeats),
    )


def _cell(entry: Any, where: str, common: Mapping[str, str]) -> Cell:
    _check(isinstance(entry, dict), where, "must be an object")
    status = _text(entry, "status", where)
    _check(status in STATUSES, f"{where}.status", f"is '{status}', not one of {', '.join(STATUSES)}")
    speedup = _mapping(entry, "speedup", where)
    starts, interleaved = _starts(entry, where)
    return Cell(
        key=_text(entry, "cell_key", where),
        baseline_key=_text(entry, "baseline_key", where, ""),
        label=_text(entry, "cell", where),
        role=_text(entry, "role", where),
        features=tuple(clean(str(feature)) for feature in _list(entry, "features", where)),
        model=_text(entry, "model", where),
        engine=_text(entry, "engine", where),
        parallel=_text(entry, "parallel", where, ""),
        batch=_whole(entry, "batch", where),
        width=_whole(entry, "width", where),
        height=_whole(entry, "height", where),
        steps=_whole(entry, "steps", where),
        prompts=_whole(entry, "prompts", where),
        status=status,
        reason=_text(entry, "reason", where, ""),
        codes=_codes(entry, where),
        valid=entry.get("valid") is not False,
        invalid_reason=_text(entry, "invalid_reason", where, ""),
        profiled=_text(entry, "profiled", where, ""),
        speedup={**_numbers(speedup, ("ratio", "low", "high"), where), "called": _text(speedup, "called", where, "")},
        quality=_numbers(_mapping(entry, "quality", where), ("mean_diff", "max_diff", "psnr_db", "ssim"), where),
        phases_ms=_phases(_mapping(entry, "phases_ms", where), where),
        metrics=_numbers(_mapping(entry, "metrics", where), ("images_per_s", "peak_memory_gb"), where),
        starts=starts,
        interleaved=interleaved,
        load=_load(entry, where),
        settings={**common, **_settings(entry, where)},
    )


def _settings(entry: Mapping[str, Any], where: str) -> dict[str, str]:
    """Settings as texts, which are compared and shown; {} in reports from before settings."""
    return {clean(str(name)): _setting(value) for name, value in _mapping(entry, "settings", where).items()}


def _setting(value: Any) -> str:
    return clean(value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False))


_OF_LOAD = ("requests_per_s", "goodput_per_s", "goodput_share", "goodput_low", "goodput_high")


def _load(entry: Mapping[str, Any], where: str) -> Load | None:
    """A cell's load; None offline, and in reports from before loads."""
    words = _text(entry, "load", where, "")
    if not words:
        return None
    given = _mapping(entry, "slo", where)
    limits = _numbers(given, tuple(given), f"{where}.slo")
    sent, failed = (_whole(entry, f"requests_{name}", where) for name in ("sent", "failed"))
    _check(0 <= failed <= sent, f"{where}.requests_failed", "must be from 0 to requests_sent")
    measured = _numbers(_mapping(entry, "metrics", where), _OF_LOAD, where)
    for name, value in measured.items():
        _check(value is None or 0 <= value < math.inf, f"{where}.metrics.{name}", "must be finite and at least 0")
    slo = {clean(name): limit for name, limit in limits.items() if limit is not None}
    return Load(
        words=words,
        slo=slo,
        sent=sent,
        failed=failed,
        requests_per_s=measured["requests_per_s"],
        goodput_per_s=measured["goodput_per_s"],
        goodput_share=measured["goodput_share"],
        goodput_low=measured["goodput_low"],
        goodput_high=measured["goodput_high"],
    )


def _codes(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Codes of the findings that decided the status; for reports from before findings, from their reason."""
    if "findings" not in entry:
        return legacy.codes(str(entry.get("status")), str(entry.get("reason")))
    found = []
    for number, one in enumerate(_list(entry, "findings", where)):
        here = f"{where}.findings[{number}]"
        _check(isinstance(one, dict), here, "must be an object")
        found.append(Finding(_text(one, "code", here), _text(one, "text", here, ""), _text(one, "status", here, "")))
    return tuple(finding.code for finding in deciding(found))


def _starts(entry: Mapping[str, Any], where: str) -> tuple[tuple[Start, ...], tuple[Start, ...]]:
    starts, interleaved = [], []
    for number, start in enumerate(_list(entry, "starts", where)):
        here = f"{where}.starts[{number}]"
        _check(isinstance(start, dict), here, "must be an object")
        samples = _samples(start.get("samples"), f"{here}.samples")
        if samples:
            starts.append(samples)
            interleaved.append(_samples(start.get("reference"), f"{here}.reference"))
    return tuple(starts), tuple(interleaved)


def _samples(rows: Any, where: str) -> dict[Sample, float]:
    if not rows:
        return {}
    try:
        samples = {(prompt, seed, repeat): float(latency) for prompt, seed, repeat, latency in rows}
        sound = all(SHORTEST_S <= latency <= LONGEST_S for latency in samples.values())
    except (TypeError, ValueError):
        raise CompareError(f"{where} must be a list of [prompt_index, seed, repeat, latency_s]") from None
    _check(sound, where, f"has a latency that is not between {SHORTEST_S:g} and {LONGEST_S:g} s")
    return samples


def _floor(entry: Any, where: str, repeats: Sequence[Cell]) -> tuple[tuple[str, str], Floor]:
    _check(isinstance(entry, dict), where, "must be an object")
    found = _numbers(entry, ("sd", "df", "prompt_sd", "mean_diff"), where)
    name = _text(entry, "model", where), _text(entry, "engine", where)
    sd, df = found["sd"], int(found["df"] or 0)
    for part in ("sd", "prompt_sd"):
        _check(0 <= (found[part] or 0.0) < math.inf, f"{where}.{part}", "must be finite and at least 0")
    alone = Noise() if sd is None or df < 1 else Noise(sd, df, found["prompt_sd"] or 0.0)
    own = [cell for cell in repeats if cell.noise_name == name]
    interleaved = interleaved_noise((r, s) for cell in own for s, r in zip(cell.starts, cell.interleaved, strict=True))
    return name, Floor(alone, interleaved, found["mean_diff"] or 0.0)


def _joined(repeats: Sequence[Cell]) -> dict[str, tuple[Start, ...]]:
    joined: dict[str, tuple[Start, ...]] = {}
    for cell in repeats:
        joined[cell.baseline_key] = joined.get(cell.baseline_key, ()) + cell.starts
    return joined


def _phases(found: Mapping[str, Any], where: str) -> dict[str, float]:
    return {clean(k): v for k, v in _numbers(found, tuple(found), where).items() if v is not None and v < math.inf}


def _numbers(found: Mapping[str, Any], names: tuple[str, ...], where: str) -> dict[str, float | None]:
    """These fields as float; None if absent, null or NaN. Infinity stays (PSNR of identical images)."""
    numbers: dict[str, float | None] = {}
    for name in names:
        value = found.get(name)
        if isinstance(value, str) and value in ("inf", "Infinity"):
            value = math.inf
        _check(value is None or isinstance(value, int | float), f"{where}.{name}", "must be a number or null")
        numbers[name] = None if value is None or math.isnan(value) else float(value)
    return numbers


def _text(found: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = found.get(name, default)
    if value is None and default is not None:
        return default
    _check(isinstance(value, str), f"{where}.{name}", "is missing or not a string")
    return clean(value) if isinstance(value, str) else ""


def _whole(found: Mapping[str, Any], name: str, where: str) -> int:
    value = found.get(name)
    _check(value is None or isinstance(value, int), f"{where}.{name}", "must be a whole number")
    return value or 0


def _list(found: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = found.get(name)
    if value is None and where != "the report":
        return []
    _check(isinstance(value, list), f"{where}.{name}" if where != "the report" else name, "is missing or not a list")
    return value if isinstance(value, list) else []


def _mapping(found: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = found.get(name)
    if value is None:
        return {}
    _check(isinstance(value, dict), f"{where}.{name}", "must be an object")
    return value if isinstance(value, dict) else {}


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    return {clean(str(name)): _shown(value) for name, value in found.items()}


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return clean(f"{value:g}" if isinstance(value, float) else "" if value is None else str(value))


def _check(holds: bool, where: str, wrong: str) -> None:
    if not holds:
        raise CompareError(f"{where} {wrong}")
