"""A stored sweep with everything that its reports are made from: read once for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.analysis import summary
from sweep.analysis.summary import Summary
from sweep.cached import cached_property
from sweep.plan.plans import Plan
from sweep.report import conclusions, limit_cells, load_cells, load_view
from sweep.report.conclusion import Conclusion
from sweep.report.limit_cells import LimitCell
from sweep.report.load_cells import LoadCell
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult

RANDOM_WEIGHTS_NOTE = "Random weights: images mean nothing, and cache speed-ups are not representative."

Loaded = Mapping[str, tuple[RunResult | None, str]]
"""What `SweepFolder.load_results` returns."""


@dataclass(frozen=True)
class Stored:
    """A sweep's plan and results, and the summary that follows from them."""

    folder: SweepFolder
    plan: Plan
    results: Mapping[str, RunResult | None]  # by cell key
    summary: Summary
    manifest: Mapping[str, Any]
    note: str  # that weights are random; "" if they are not

    @cached_property
    def loads(self) -> list[LoadCell]:
        """The cells that were measured under load."""
        return load_cells.of(self.plan, self.summary.rows, self.results)

    @cached_property
    def conclusions(self) -> tuple[Conclusion, ...]:
        """What the sweep found, in sentences."""
        return conclusions.conclude(
            self.summary.rows, self.summary.ladders, self.load_lines, self.limits, random_weights=bool(self.note)
        )

    @cached_property
    def limits(self) -> list[LimitCell]:
        """The cells with known predictions and limits."""
        profiled = [row for row in self.summary.rows if row.get("profiled") and row["cell_key"] in self.summary.reached]
        tables = {
            row["cell_key"]: self.folder.load_recorded_phases(self.plan.by_key[row["cell_key"]]) for row in profiled
        }
        return limit_cells.cells(self.summary.rows, self.summary.reached, tables, self.folder.path.name)

    @property
    def load_lines(self) -> list[load_view.Line]:
        """What is said about all loads together."""
        return load_view.lines(self.summary)


def read(folder: SweepFolder) -> Stored:
    """Read a sweep's folder. Raises ConfigError when it is not one."""
    plan = folder.grown_plan()
    return gathered(folder, plan, folder.load_results(plan))


def gathered(folder: SweepFolder, plan: Plan, loaded: Loaded) -> Stored:
    """The same from results that were read before."""
    manifest = folder.load_manifest()
    embedded = (cell.config["model"] for cell in plan.cells if cell.config["model"]["embedded"])
    random_weights = any(not model.get("weights") for model in embedded) or manifest.get("random_weights")
    return Stored(
        folder=folder,
        plan=plan,
        results={key: result for key, (result, _) in loaded.items()},
        summary=summary.summarise(folder, plan, loaded),
        manifest=manifest,
        note=RANDOM_WEIGHTS_NOTE if random_weights else "",
    )
