"""A stored sweep as pandas data frames: `sweep.frames.load`.

Reads through `SweepFolder` and computes only the summary.
"""

from dataclasses import dataclass
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
    """A sweep as pandas data frames; every row starts with `cell` and `cell_key`."""

    summary: "pandas.DataFrame"
    requests: "pandas.DataFrame"
    phases: "pandas.DataFrame"
    telemetry: "pandas.DataFrame"
    plan: Plan
    manifest: dict[str, Any]


def load(folder: str | Path) -> SweepTables:
    """Everything stored for a sweep, as pandas data frames. The summary is recomputed from the stored results."""
    import pandas

    sweep = SweepFolder(Path(folder))
    plan = sweep.load_plan()

    def gather(name: str) -> "pandas.DataFrame":
        frames = []
        for cell in plan.cells:
            path = sweep.cell_path(cell) / name
            if path.is_file():
                frame = pandas.read_csv(path)
                if len(frame):
                    frame.insert(0, "cell_key", cell.key)
                    frame.insert(0, "cell", cell.label)
                    frames.append(frame)
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()

    rows = summarise(sweep, plan, sweep.load_results(plan)).rows
    summary = pandas.DataFrame(rows, columns=list(columns.NAMES))
    return SweepTables(
        summary, gather("requests.csv"), gather("phases.csv"), gather("telemetry.csv"), plan, sweep.load_manifest()
    )
