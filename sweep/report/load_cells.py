"""The cells of a sweep that were measured under load, with their requests.

What load plots, bench.json, the text report and the dashboard are made from. Pure; knows no files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweep.analysis import load_metrics
from sweep.analysis.cell_data import CellData
from sweep.analysis.engine_starts import measured_cells
from sweep.analysis.ladders import Ladder, family_of, name_of
from sweep.cached import cached_property
from sweep.plan.cells import AA
from sweep.plan.plans import Plan
from sweep.results.records import RequestRow, RunResult

Row = Mapping[str, Any]


@dataclass(frozen=True)
class LoadCell:
    """A cell under load: its row of summary.csv, and what the row was computed from."""

    row: Row
    data: CellData

    @property
    def label(self) -> str:
        """The cell's name in every table."""
        return self.data.cell.label

    @cached_property
    def family(self) -> str:
        """What cells share if they differ only in how heavy their load is, or in their part of a long load."""
        cell = self.data.cell
        load = {name: value for name, value in cell.config["load"].items() if name != "part"}
        return family_of(replace(cell, config={**cell.config, "load": load}))

    @property
    def name(self) -> str:
        """The label without the load."""
        return name_of(self.data.cell)

    @property
    def is_open(self) -> bool:
        """Whether each request has a due time of its own."""
        return bool(self.data.cell.config["load"]["name"] == "open")

    @property
    def part(self) -> int | None:
        """Which part of a long load it is, counted from 0; None for other loads."""
        load = self.data.cell.config["load"]
        return int(load["part"]) if load.get("search") == "soak" else None

    @property
    def level(self) -> float | None:
        """How heavy the load is: requests in flight, or per second; None for recorded times and parts of long loads."""
        if self.part is not None:
            return None
        found = self.row.get("request_rate" if self.is_open else "concurrency")
        return None if found is None else float(found)

    @property
    def level_words(self) -> str:
        """`4 in flight`, `2/s poisson`, `part 3`."""
        if self.part is not None:
            return f"part {self.part + 1}"
        return str(self.row["load"]).partition(", ")[2]

    @property
    def failed(self) -> list[RequestRow]:
        """Requests without a usable reply, of all starts."""
        return [one for result in self.data.results for one in result.failed]

    def took_s(self, request: RequestRow) -> float:
        """Latency: from sending, or for an open load from when the request was due, until its last byte."""
        return load_metrics.taken_s(request) if self.is_open else request.e2e_s


def of(plan: Plan, rows: Sequence[Row], results: Mapping[str, RunResult | None]) -> list[LoadCell]:
    """Those that were measured, in the order of the rows; without A/A runs, which repeat another cell."""
    measured = measured_cells(plan, results)
    return [
        LoadCell(row, CellData(plan.by_key[row["cell_key"]], measured[row["cell_key"]].results))
        for row in rows
        if row["cell_key"] in measured and row["role"] != AA and plan.by_key[row["cell_key"]].under_load
    ]


def families(cells: Sequence[LoadCell]) -> list[list[LoadCell]]:
    """Cells that differ only in how heavy their load is, lightest or earliest first; ordered by their first cells."""
    found: dict[str, list[LoadCell]] = {}
    for one in cells:
        found.setdefault(one.family, []).append(one)
    return [sorted(group, key=lambda one: one.level or one.part or 0.0) for group in found.values()]


def telling(cells: Sequence[LoadCell], ladders: Sequence[Ladder]) -> list[LoadCell]:
    """One cell of each family: the one at its ladder's knee, else the one with the heaviest load."""
    knees = {knee_key(ladder) for ladder in ladders}
    groups = families(cells)
    return [next((one for one in group if one.row["cell_key"] in knees), group[-1]) for group in groups]


def knee_key(ladder: Ladder) -> str:
    """Key of the cell at the knee; "" where there is none."""
    if ladder.knee is None:
        return ""
    return next(str(row["cell_key"]) for row in ladder.rows if float(row[ladder.level]) == ladder.knee)
