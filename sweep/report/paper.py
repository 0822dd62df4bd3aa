"""What a paper takes from a sweep: plots of a chosen format and width, and the summary as a LaTeX or Markdown table.

Takes a sweep's folder, or one that was published with summary.csv alone. Arguments are checked before anything is
read. The plots themselves are in `plots`, the tables in `summary_tables`.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep import legacy
from sweep.findings import SKIP
from sweep.refusals import ConfigError
from sweep.report import drawing, limit_cells
from sweep.report.limit_cells import LimitCell
from sweep.report.plots.sheet import FORMATS, NARROWEST, SCREEN, WIDEST, Sheet
from sweep.results.folder import SweepFolder

ALL = ""
"""What `--plots` without names means."""

RANDOM_WEIGHTS = "random_weights"


@dataclass(frozen=True)
class Wanted:
    """What was chosen. `plots` None: no plots; `only` None: all of them."""

    plots: bool
    only: tuple[str, ...] | None
    on: Sheet
    latex: bool
    markdown: bool
    costs: bool = False

    @property
    def table(self) -> bool:
        """Whether a table is printed."""
        return self.latex or self.markdown or self.costs

    @property
    def anything(self) -> bool:
        return self.plots or self.table


def wanted(
    plots: str | None,
    formats: Sequence[str],
    width: str | None,
    title: bool,
    latex: bool,
    markdown: bool,
    costs: bool = False,
) -> Wanted:
    """Checked arguments of the command line. Raises ConfigError with one line that says what to write instead."""
    if plots is None:
        for option, given in (("--format", formats), ("--width", width), ("--no-title", not title)):
            if given:
                raise ConfigError(f"{option} is about plots; add --plots")
    if latex and markdown:
        raise ConfigError("--latex and --markdown are one table each; choose one")
    chosen = tuple(dict.fromkeys(part.strip().lower() for one in formats for part in one.split(","))) or SCREEN.formats
    for one in chosen:
        if one not in FORMATS:
            raise ConfigError(f"--format {one}: choose from {', '.join(FORMATS)}")
    sheet = Sheet(chosen, _inches(width), title)
    return Wanted(plots is not None, _names(plots), sheet, latex, markdown, costs)


def _inches(width: str | None) -> float | None:
    if width is None:
        return None
    try:
        inches = float(width)
    except ValueError:
        inches = float("nan")
    if not NARROWEST <= inches <= WIDEST:
        raise ConfigError(f"--width {width}: give inches from {NARROWEST:g} to {WIDEST:g}, such as 3.3 for one column")
    return inches


def _names(plots: str | None) -> tuple[str, ...] | None:
    if plots is None or not plots.strip():
        return None
    names = tuple(dict.fromkeys(part.strip() for part in plots.split(",") if part.strip()))
    known = drawing.names()
    for name in names:
        if name not in known:
            raise ConfigError(f"--plots {name}: no such plot; choose from {', '.join(known)}, after the folder")
    return names


Draw = Callable[[Callable[[str, str], None]], list[Path]]


@dataclass(frozen=True)
class _Sweep:
    """What tables and plots are made from."""

    rows: Sequence[Mapping[str, Any]]
    note: str
    limits: Sequence[LimitCell]
    draw: Draw


def make(folder: SweepFolder, chosen: Wanted) -> Sequence[Mapping[str, Any]]:
    """Draw and print what was chosen; returns the rows. Raises ConfigError, Unfit and OSError."""
    found = _of_sweep(folder, chosen) if folder.has_plan else _of_published(folder, chosen)
    if chosen.plots:
        _plots(folder, chosen, found.draw)
    if chosen.table:
        sys.stdout.write(_table(folder, chosen, found))
    return found.rows


def _table(folder: SweepFolder, chosen: Wanted, found: _Sweep) -> str:
    """The summary, or what pictures cost. Raises ConfigError without a price."""
    from sweep.report import costs, summary_tables

    write = (
        summary_tables.latex if chosen.latex else summary_tables.markdown if chosen.markdown else summary_tables.plain
    )
    if not chosen.costs:
        return write(found.rows, found.note)
    rows, prices = costs.priced(found.rows, found.limits)
    if not rows:
        raise ConfigError(f"{folder.path}: {costs.NO_PRICE}")
    return write(rows, " ".join(filter(None, (prices, found.note))), summary_tables.OF_COSTS)


def _of_sweep(folder: SweepFolder, chosen: Wanted) -> _Sweep:
    from sweep.report import stored

    found = stored.read(folder)

    def draw(captioned: Callable[[str, str], None]) -> list[Path]:
        return drawing.draw(found, chosen.only, chosen.on, captioned)

    return _Sweep(found.summary.rows, found.note, found.limits, draw)


def _of_published(folder: SweepFolder, chosen: Wanted) -> _Sweep:
    """From summary.csv, and report.json if present: without plots of single requests and images."""
    from sweep.report.stored import RANDOM_WEIGHTS_NOTE

    rows = [{**row, "findings": _skip(row)} for row in folder.load_summary()]
    if lacking := [name for name in chosen.only or () if name in drawing.FROM_RESULTS]:
        raise ConfigError(f"--plots {','.join(lacking)}: needs the sweep's own folder; {folder.path} has no plan.json")
    note = RANDOM_WEIGHTS_NOTE if folder.load_manifest().get(RANDOM_WEIGHTS) else ""
    limits = limit_cells.published(folder.path, rows)

    def draw(captioned: Callable[[str, str], None]) -> list[Path]:
        return drawing.draw_rows(folder.plots_path(), rows, note, chosen.only, chosen.on, captioned, limits)

    return _Sweep(rows, note, limits, draw)


def _skip(row: Mapping[str, str]) -> list[Any]:
    """The finding of a skipped cell, whose few words a matrix has room for."""
    found = legacy.skip(row.get("reason") or "") if row.get("status") == SKIP else None
    return [found] if found else []


def _plots(folder: SweepFolder, chosen: Wanted, draw: Draw) -> None:
    """Draw, and print the paths on stderr, so that stdout holds only a table. A paper's captions are printed too."""
    captions: dict[str, str] = {}
    files = draw(captions.__setitem__)
    missing = [name for name in chosen.only or () if name not in {path.stem for path in files}]
    if not files or missing:
        raise ConfigError(f"{folder.path} has nothing to show for {', '.join(missing) or 'any plot'}")
    out = sys.stderr if chosen.table else sys.stdout
    for line in _said(files, captions if chosen.on.width is not None else {}):
        print(line, file=out)


def _said(files: Iterable[Path], captions: Mapping[str, str]) -> list[str]:
    from profiling.printing import clean

    lines = [clean(str(path)) for path in files]
    return lines + [clean(f"{name}: {caption}") for name, caption in captions.items() if caption]
