"""A stored sweep as pandas data frames: `sweep.frames.load`.

Reads through `SweepFolder`, or a report.json through `report_rows`, and computes only the summary.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.analysis.summary import summarise
from sweep.analysis.table import table
from sweep.plan.plans import Plan
from sweep.report import notebook, report_rows
from sweep.results.folder import SweepFolder

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class SweepTables:
    """A sweep as pandas data frames; every row starts with `cell` and, except in the summary, `cell_key`.

    Stored values of a cell that cannot be read are in no frame; in `summary` its cell is an ERROR. A report.json holds
    only the summary: loaded from one, the other frames are empty and `plan` is None.
    """

    summary: "pandas.DataFrame"  # a row for every cell, with the columns of summary.csv
    requests: "pandas.DataFrame"  # a row for every request
    phases: "pandas.DataFrame"  # a row for every phase of every request
    telemetry: "pandas.DataFrame"  # a row for every GPU and moment
    plan: Plan | None
    manifest: dict[str, Any]  # command, versions, machine
    problems: dict[tuple[str, str], str] = field(default_factory=dict)  # (cell_key, file) -> why it cannot be read

    def __repr__(self) -> str:
        frames = ("summary", "requests", "phases", "telemetry")
        return f"SweepTables({', '.join(f'{name}: {len(getattr(self, name))} rows' for name in frames)})"

    def _repr_html_(self) -> str:
        """The summary as a notebook shows it, without the columns that say how sure or why."""
        return notebook.summary_html(self.summary.to_dict("records"))


def load(source: str | Path) -> SweepTables:
    """A sweep's folder, or its report.json (also packed, .json.gz), as pandas data frames.

    The summary of a folder is recomputed from its stored results. A folder that was published without them is read
    from its report.json. Raises sweep.config.ConfigError when it is neither.
    """
    import pandas

    path = Path(source).expanduser()
    sweep = SweepFolder(path)
    if not path.is_dir():
        return _of_report(path)
    if not sweep.has_plan and (path / report_rows.REPORT).is_file():
        return _of_report(path / report_rows.REPORT)
    plan = sweep.grown_plan()

    problems: dict[tuple[str, str], str] = {}

    def gather(name: str) -> "pandas.DataFrame":
        frames = []
        for cell in plan.cells:
            try:
                content = sweep.load_table(cell, name)
                frame = pandas.read_csv(io.BytesIO(content)) if content else pandas.DataFrame()
            except (OSError, ValueError) as error:
                problems[cell.key, name] = str(error)
                continue
            if len(frame):
                frame.insert(0, "cell_key", cell.key)
                frame.insert(0, "cell", cell.label)
                frames.append(frame)
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()

    loaded = sweep.load_results(plan)
    problems |= {(key, "result.json"): problem for key, (_, problem) in loaded.items() if problem}
    summary = _frame(summarise(sweep, plan, loaded).rows)
    requests, phases, telemetry = (gather(f"{name}.csv") for name in ("requests", "phases", "telemetry"))
    return SweepTables(summary, requests, phases, telemetry, plan, sweep.load_manifest(), problems)


def _of_report(path: Path) -> SweepTables:
    import pandas

    rows, facts = report_rows.read(path)
    requests, phases, telemetry = (pandas.DataFrame() for _ in range(3))
    return SweepTables(_frame(rows), requests, phases, telemetry, None, facts)


def _frame(rows: Sequence[Mapping[str, Any]]) -> "pandas.DataFrame":
    import pandas

    names, values = table(rows)
    return pandas.DataFrame(values, columns=names)
