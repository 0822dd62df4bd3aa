"""How long the cells of a plan took when they were measured before: in its own folder, and in others near it.

Reads results, knows nothing of how they are shown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from sweep.results.folder import SweepFolder
from sweep.results.records import DONE, RunResult

MOST_SWEEPS = 200
"""Folders of sweeps that are looked through, newest first."""


@dataclass(frozen=True)
class Expected:
    """Known durations of a plan before it runs, in seconds."""

    cells_s: Mapping[str, float]  # key -> warm-up and measurement, when it was measured before
    loads_s: Mapping[str, float]  # engine key -> starting the engine
    kept: frozenset[str]  # keys of cells whose results are in the sweep's own folder: they do not run again


NOTHING_KNOWN = Expected({}, {}, frozenset())


def expected(plan: Plan, folder: Path, others: Path) -> Expected:
    """Times from earlier results: those in `folder`, where the sweep would run, then those of sweeps below `others`."""
    wanted = {cell.key: cell for cell in plan.cells if not cell.skip}
    found = _of_sweep(folder, wanted)
    kept = frozenset(found)
    for path in _sweeps(others):
        if len(found) == len(wanted):
            break
        missing = {key: cell for key, cell in wanted.items() if key not in found}
        found |= _of_sweep(path, missing)
    cells_s = {key: sum(result.stage_s.values()) for key, result in found.items() if result.stage_s}
    loads_s = {wanted[key].engine_key: result.load_s for key, result in found.items() if result.load_s is not None}
    return Expected(cells_s, loads_s, kept)


def _of_sweep(path: Path, wanted: Mapping[str, Cell]) -> dict[str, RunResult]:
    """Finished results of these cells in a sweep's folder."""
    folder = SweepFolder(path)
    there = (cell for cell in wanted.values() if (folder.cell_path(cell) / "result.json").is_file())
    results = ((cell.key, folder.load_result(cell)) for cell in there)
    return {key: result for key, result in results if result is not None and result.state == DONE}


def _sweeps(others: Path) -> Iterable[Path]:
    """Folders with a plan in `others` and one level below its folders, as `2026-11-21/10-00-00`, newest first."""
    found = [plan.parent for depth in ("*/plan.json", "*/*/plan.json") for plan in others.glob(depth)]
    return sorted(dict.fromkeys(path for path in found if not path.is_symlink()), key=_time, reverse=True)[:MOST_SWEEPS]


def _time(path: Path) -> float:
    try:
        return (path / "plan.json").stat().st_mtime
    except OSError:
        return 0.0
