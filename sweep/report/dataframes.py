"""A stored sweep as pandas data frames: `sweep.frames.load`.

Reads through `SweepFolder` and computes only the summary.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.analysis import columns
from sweep.analysis.summary import summarise
from sweep.plan.cells import Plan
from sweep.results.folder import SweepFolder

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class SweepTables:
    """A sweep as pandas data frames; every row starts with `cell` and `cell_key`.

    What is stored of a cell but cannot be read is in no frame; in `summary` its cell is an ERROR.
    """

    summary: "pandas.DataFrame"
    requests: "pandas.DataFrame"
    phases: "pandas.DataFrame"
    telemetry: "pandas.DataFrame"
    plan: Plan
    manifest: dict[str, Any]
    problems: dict[tuple[str, str], str] = field(default_factory=dict)  # (cell_key, file) -> why it cannot be read


def load(folder: str | Path) -> SweepTables:
    """Everything stored for a sweep, as pandas data frames. The summary is recomputed from the stored results."""
    import pandas

    sweep = SweepFolder(Path(folder))
    plan = sweep.load_plan()

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
    rows = summarise(sweep, plan, loaded).rows
    summary = pandas.DataFrame(rows, columns=list(columns.NAMES))
    requests, phases, telemetry = (gather(f"{name}.csv") for name in ("requests", "phases", "telemetry"))
    return SweepTables(summary, requests, phases, telemetry, plan, sweep.load_manifest(), problems)
