"""What summary rows are computed from: a sweep's plan, results, and what follows from several of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweep.analysis import engagement, image_faults, picture_text, prompt_checks
from sweep.analysis.engagement import Executed
from sweep.analysis.engine_starts import Floor, Measured
from sweep.analysis.picture_text import Readings
from sweep.analysis.prompt_checks import Checks
from sweep.cached import cached_property
from sweep.findings import Finding
from sweep.plan.cells import AA, Cell, model_and_engine
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult


@dataclass(frozen=True)
class StoredSweep:
    """The data that the rows are computed from."""

    folder: SweepFolder
    cells: Mapping[str, Cell]
    results: Mapping[str, RunResult | None]
    problems: Mapping[str, str]  # why a stored result cannot be read, by cell key
    states: Mapping[str, Mapping[str, Any]]  # last event of each cell, when some cell has no result
    measured: Mapping[str, Measured]
    baselines: Mapping[str, list[Measured]]  # a baseline and its A/A starts, by the baseline's key
    floors: Mapping[tuple[str, str], Floor]
    ran: dict[str, Executed] = field(default_factory=dict)
    faults: dict[str, list[Finding]] = field(default_factory=dict)
    checked: dict[str, Checks | None] = field(default_factory=dict)
    read: dict[str, Readings] = field(default_factory=dict)

    @cached_property
    def repeated_baselines(self) -> Mapping[tuple[str, str], Sequence[Cell]]:
        """The A/A cells that were planned, by model and engine."""
        found: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells.values():
            if cell.role == AA:
                found.setdefault(model_and_engine(cell), []).append(cell)
        return found

    def executed(self, key: str) -> Executed:
        """What the start with this key executed; computed once, because many cells share a baseline."""
        if key not in self.ran:
            result = self.results[key]
            self.ran[key] = engagement.executed(result) if result else Executed()
        return self.ran[key]

    def starts(self, key: str) -> list[Executed]:
        """What each engine start of the cell with this key executed; [] where none finished."""
        return [self.executed(one.key) for one in self.measured[key].results] if key in self.measured else []

    def image_faults(self, key: str) -> list[Finding]:
        """What is wrong with the images of the cell with this key; computed once, likewise."""
        if key not in self.faults:
            self.faults[key] = image_faults.faults(self.measured[key].results) if key in self.measured else []
        return self.faults[key]

    def checks(self, key: str) -> Checks | None:
        """Whether the pictures of the cell with this key show what was asked; None where that cannot be checked."""
        if key not in self.checked:
            mine = self.measured.get(key)
            self.checked[key] = prompt_checks.of(self.folder, mine.cell, mine.results[0]) if mine else None
        return self.checked[key]

    def texts(self, key: str) -> Readings:
        """What was read in the pictures of the cell with this key; {} where nothing was."""
        if key not in self.read:
            mine = self.measured.get(key)
            self.read[key] = picture_text.of(self.folder, mine.cell, mine.results[0]) if mine else {}
        return self.read[key]
