"""Sweeps from Python: `from sweep.api import run, plan, compare, load`. docs/python.md shows them.

`run`, `plan` and `compare` start the real commands in separate processes, so that their answers are the commands' own:
in a notebook, in a script without `if __name__ == "__main__"`, and whatever else the program has imported.
They are here, not in `sweep`, because `sweep.run`, `sweep.plan` and `sweep.compare` are packages.
"""

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sweep import child_command
from sweep.analysis import columns, options
from sweep.analysis.cell_data import CellData
from sweep.analysis.column import IDENTITY
from sweep.analysis.table import named
from sweep.child_command import Ended
from sweep.findings import SKIP
from sweep.overrides import Overrides, as_typed, folder_override
from sweep.plan.plans import Plan
from sweep.plan.stored import check_plan
from sweep.refusals import ConfigError
from sweep.report import notebook
from sweep.report.dataframes import SweepTables, load
from sweep.report.words import cells_words, quality_text, speedup_text

if TYPE_CHECKING:
    import pandas

__all__ = ["Comparison", "Planned", "SweepError", "SweepTables", "compare", "load", "plan", "run"]


class SweepError(Exception):
    """A command that gave no result; its one line is the message. `code` is its exit code, 2 for bad input."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True, repr=False)
class Planned:
    """What a sweep would run."""

    cells: "pandas.DataFrame"  # a row for every cell; `engine_start` counts from 1 and is empty for SKIP
    plan: Plan

    def __repr__(self) -> str:
        return f"Planned({self._said})"

    def _repr_html_(self) -> str:
        shown = self.cells.drop(columns=["cell_key", "role"]).astype(object)
        shown = shown.where(shown.notna(), "")
        shown = shown.loc[:, [name for name in shown if shown[name].nunique() > 1 or name == "cell"]]
        lines = [[f"{one:g}" if isinstance(one, float) else str(one) for one in row] for row in shown.to_numpy()]
        return notebook.table_html([name.removeprefix(options.PREFIX) for name in shown], lines, self._said)

    @property
    def _said(self) -> str:
        skipped = int((self.cells["status"] == SKIP).sum())
        run, starts = cells_words(len(self.cells) - skipped), len(self.plan.groups)
        return f"{run} to run, {skipped} skipped, {starts} engine start{'' if starts == 1 else 's'}"


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """What `python -m sweep.compare` says of two sweeps."""

    cells: "pandas.DataFrame"  # a row for every cell of both, with columns such as `speed.verdict` and `speed.ratio`
    values: dict[str, Any]  # all of it, in the format of `--format json` (sweep/compare/as_json.py)

    @property
    def failed_on(self) -> tuple[str, ...]:
        """Why the command ends with exit code 1: regression, status, quality; () when it does not."""
        return tuple(self.values["failed_on"])

    def __repr__(self) -> str:
        return f"Comparison({len(self.cells)} cells, failed_on={self.failed_on})"

    def _repr_html_(self) -> str:
        (found,) = self.values["comparisons"]
        lines = [_compared(cell) for cell in found["cells"] if cell["role"] != "aa"]
        names = self.values["before"]["name"], found["after"]["name"]
        failed = f", failed on {', '.join(self.failed_on)}" if self.failed_on else ""
        headings = ("cell", "speed", "before ÷ after (95 %)", "grew or shrank most", "status", "quality", "doubt")
        return notebook.table_html(headings, lines, f"{names[0]} → {names[1]}{failed}")


def run(overrides: Overrides, folder: str | Path | None = None, *, quiet: bool = False) -> SweepTables:
    """`python -m sweep -m OVERRIDES`: run a sweep and return what it measured.

    `overrides` are the command line's, as one string or a list (`["feature=teacache", "batch=1,2"]`), or a dict, in
    which lists are swept (`{"feature": "teacache", "batch": [1, 2]}`). `folder` is the sweep's; run again with the same
    folder, only missing cells run. None makes a new one in outputs/. `quiet` shows no progress.

    Cells that are FAIL or ERROR raise nothing: see `status` in the summary. Raises SweepError when there is no result,
    and KeyboardInterrupt, after finished cells were saved, when it is interrupted.
    """
    arguments = _arguments(overrides)
    place = Path(folder).expanduser() if folder is not None else _new_folder()
    ended = child_command.run("sweep", ["-m", *arguments, folder_override(place)], show=not quiet)
    _check(ended)
    return load(place)


def plan(overrides: Overrides) -> Planned:
    """`python -m sweep -m OVERRIDES dry_run=json`: the cells that a sweep would run. Overrides are those of `run`.

    Raises SweepError when they are wrong.
    """
    import pandas

    ended = child_command.run("sweep", ["-m", *_arguments(overrides), "dry_run=json"], catch=True)
    _check(ended)
    values = json.loads(ended.out)
    check_plan(values)
    made = Plan.from_json(values)
    starts = {key: group.number + 1 for group in made.groups for key in group.cells}
    chosen = options.of_cells(made.cells)
    rows = []
    for cell in made.cells:
        known = columns.computed(CellData(cell, ()))
        row = {name: known[name] for name in columns.of_kind(IDENTITY)} | {"features": named(known)}
        skip = {"status": SKIP, "reason": cell.skip.text} if cell.skip else {"status": "", "reason": ""}
        rows.append({**row, "engine_start": starts.get(cell.key), **skip, **chosen[cell.key]})
    frame = pandas.DataFrame(rows)
    return Planned(frame.astype({"engine_start": "Int64"}) if len(frame) else frame, made)


def compare(before: str | Path, after: str | Path, *flags: str) -> Comparison:
    """`python -m sweep.compare BEFORE AFTER FLAGS`: what became faster, slower or broken.

    Both are a sweep's folder or its report.json. `flags` are the command's, such as "--relative". A regression raises
    nothing: see `failed_on`. Raises SweepError when the two cannot be compared.
    """
    import pandas

    arguments = [*map(str, (before, after)), *flags, "--format", "json"]
    ended = child_command.run("sweep.compare", arguments, catch=True)
    _check(ended)
    values = json.loads(ended.out)
    return Comparison(pandas.json_normalize(values["comparisons"][0]["cells"]), values)


def _arguments(overrides: Overrides) -> list[str]:
    try:
        arguments = as_typed(overrides)
    except ConfigError as error:
        _refuse(str(error))
    folders = [one for one in arguments if one.lstrip("+").startswith(("hydra.sweep.dir=", "hydra.run.dir="))]
    if folders:
        _refuse(f"{folders[0]}: give the sweep's folder as run(…, folder=…)")
    return arguments


def _refuse(message: str) -> NoReturn:
    raise SweepError(message, 2)


def _new_folder() -> Path:
    """As the command line names it."""
    return Path("outputs") / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")


def _check(ended: Ended) -> None:
    """Exit code 1 says that a cell is FAIL or ERROR, or that something got worse: a result."""
    if ended.code not in (0, 1):
        _failed(ended)


def _failed(ended: Ended) -> NoReturn:
    line = ended.last_line or "it printed nothing"
    bad_input = ended.code == 2
    raise SweepError(line if bad_input else f"python -m {ended.module} ended with {ended.code}: {line}", ended.code)


def _compared(cell: Mapping[str, Any]) -> list[str]:
    speed, status, quality = cell["speed"], cell["status"], cell["quality"]
    ratio = {"speedup": speed["ratio"], "speedup_low": speed["low"], "speedup_high": speed["high"]}
    return [
        cell["cell"],
        speed["verdict"],
        speedup_text(ratio).replace("x", "×"),
        ", ".join(f"{one['phase']} {one['ms']:+.3g} ms" for one in cell["phases"]["shifts"]),
        status["after"] if status["before"] == status["after"] else f"{status['before']} → {status['after']}",
        " → ".join(dict.fromkeys(quality_text(quality[side]) for side in ("before", "after"))),
        cell["doubt"],
    ]
