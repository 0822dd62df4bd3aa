"""Cells under load from made-up requests: what their figures are drawn from."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sweep.analysis.cell_data import CellData
from sweep.analysis.columns import computed
from sweep.report.load_cells import LoadCell
from sweep.results.records import RequestRow
from tests.analysis.test_loads import data


def load_cell(asked: dict[str, Any], made: Sequence[RequestRow], name: str = "baseline b1", **more: Any) -> LoadCell:
    """A cell with these requests; `more` are fields of its result."""
    found = data(asked, list(made), **more)
    key = f"{name} {asked}"
    config = {**found.cell.config, "seed": sum(map(ord, name))}  # another name is another configuration
    level = found.cell.run_config.load.level
    cell = dataclasses.replace(found.cell, key=key, label=f"{name} {level}", suffix=level, config=config)
    found = CellData(cell, found.results)
    return LoadCell({**computed(found), "cell_key": key, "role": "baseline", "status": "PASS"}, found)
