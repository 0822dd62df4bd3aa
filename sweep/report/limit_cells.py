"""Cells with a known prediction and limit, from a sweep's own folder or a published one.

If all were profiled, those; else the unprofiled ones, each with what a profiled cell of the same features shows.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sweep.plan.cells import BASELINE, FEATURE
from sweep.predict.calibrate import Calibration, with_learnt
from sweep.predict.calibration_files import calibration_for
from sweep.predict.hardware import by_device_name
from sweep.predict.observed import Observed, observed
from sweep.predict.reached import Reached, reached
from sweep.refusals import ConfigError
from sweep.report.words import Row, text

TABLE = "nsys_phases.csv"


@dataclass(frozen=True)
class Recorded:
    """What Nsight Systems saw of a phase, over all processes: shares of its time on the GPU."""

    busy: float
    for_host: float  # nothing to do, because the host had launched nothing


@dataclass(frozen=True)
class LimitCell:
    """A cell as a row of summary.csv, with how far it came."""

    row: Row
    found: Reached
    calibration: Calibration
    sweep: str = ""  # name of its folder
    recorded: Mapping[str, Recorded] = field(default_factory=dict)  # by phase

    @property
    def key(self) -> str:
        """The cell's key."""
        return text(self.row, "cell_key")

    @property
    def name(self) -> str:
        """Its label."""
        return text(self.row, "cell")

    @property
    def fitted_on(self) -> bool:
        """Whether the factors of its prediction were fitted on its own sweep, among others."""
        return self.sweep in self.calibration.hosts

    @property
    def compared(self) -> bool:
        """Whether it is a baseline or a feature, and no A/A run."""
        return text(self.row, "role") in (BASELINE, FEATURE)


def cells(
    rows: Iterable[Row],
    found: Mapping[str, Reached],
    tables: Mapping[str, Sequence[Mapping[str, str]]],
    sweep: str,
) -> list[LimitCell]:
    """The rows whose key is in `found`. `tables` has rows of nsys_phases.csv by cell key, `sweep` names the folder."""
    known = [_cell(row, one, sweep) for row in rows if (one := found.get(text(row, "cell_key"))) is not None]
    profiled = [one for one in known if text(one.row, "profiled")]
    plain = [one for one in known if not text(one.row, "profiled")]
    seen = {_what(one): recorded(tables[one.key]) for one in profiled if tables.get(one.key)}
    return [replace(one, recorded=seen.get(_what(one), {})) for one in plain or profiled]


def _cell(row: Row, found: Reached, sweep: str) -> LimitCell:
    return LimitCell(row, found, calibration_for(found.device.name, found.ran.engine), sweep)


def _what(one: LimitCell) -> tuple[str, ...]:
    return tuple(text(one.row, name) for name in ("model", "engine", "features", "batch", "width", "height"))


def recorded(table: Iterable[Mapping[str, str]]) -> dict[str, Recorded]:
    """Rows of nsys_phases.csv by phase, those of this framework's ranges."""
    sums: dict[str, list[float]] = {}
    for row in table:
        try:
            times = [float(row[f"{name}_ns"]) for name in ("projected", "busy", "idle_for_host")]
        except (KeyError, TypeError, ValueError):
            continue
        if row.get("domain") == "sweep" and times[0] > 0:
            sums[row["phase"]] = [a + b for a, b in zip(sums.get(row["phase"], [0.0] * 3), times, strict=True)]
    return {phase: Recorded(busy / whole, host / whole) for phase, (whole, busy, host) in sums.items()}


def published(folder: Path, rows: Sequence[Row]) -> list[LimitCell]:
    """The same for a published sweep, from its report.json, whose rows are `rows`. [] if that holds too little."""
    try:
        seen = [*observed(folder), *observed(folder, profiled=True)]
    except ConfigError:
        return []
    found = {one.key: made for one in seen if (made := _reached(one)) is not None}
    tables = {text(row, "cell_key"): _table(folder, row, len(rows)) for row in rows if text(row, "profiled")}
    return cells(rows, found, tables, folder.name)


def _reached(one: Observed) -> Reached | None:
    device = by_device_name(one.device) if one.device else None
    if device is None:
        return None
    by = calibration_for(device.name, one.point.engine).factors
    learnt = by.skip if one.random_weights else {}  # what caches skip with random weights says nothing about others
    before = replace(one.point, effects=with_learnt(one, learnt))
    measured = one.latency_s, one.phases_s, one.peak_memory_bytes, one.parts_bytes
    try:
        return reached(before, one.point, device, by, *measured)
    except ConfigError:  # a value that the device's file lacks
        return None


def _table(folder: Path, row: Row, count: int) -> list[dict[str, str]]:
    """nsys_phases.csv of a published cell: in the folder that its features name, or next to report.json."""
    places = [folder / (text(row, "features") or BASELINE) / TABLE, *([folder / TABLE] if count == 1 else [])]
    for path in places:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error):
            continue
    return []
