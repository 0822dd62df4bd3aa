"""What summary rows are computed from: a sweep's plan, results, and what follows from several of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from profiling.evidence import RankEvidence
from sweep.analysis import evidence as evidence_rules
from sweep.analysis.engine_starts import Floor, Measured
from sweep.plan.cells import Cell
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
    totals: dict[str, tuple[RankEvidence, ...]] = field(default_factory=dict)

    def evidence(self, key: str) -> tuple[RankEvidence, ...]:
        """What each rank executed in the start with this key; computed once, because many cells share a baseline."""
        if key not in self.totals:
            result = self.results[key]
            self.totals[key] = evidence_rules.total_evidence([b.evidence for b in result.batches]) if result else ()
        return self.totals[key]
