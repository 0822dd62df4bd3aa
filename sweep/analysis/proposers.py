"""Cells that a sweep adds while it runs, because of what it has measured so far. The only way in which a plan grows.

A proposer sees the plan and its results and names further cells; when all engines have ended, every proposer is asked,
until none has anything to add. `repeat=auto` is the first (`adaptive_repeats`). Pure.
"""

from collections.abc import Callable
from typing import Protocol

from sweep.analysis import adaptive_repeats, load_search
from sweep.analysis.engine_starts import Results
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan


class Proposer(Protocol):
    """A source of further cells."""

    def applies(self, plan: Plan) -> bool:
        """Whether it may ever propose anything for this plan; if not, no result is read for it."""

    def propose(self, plan: Plan, results: Results) -> list[Cell]:
        """Cells to add now; none of them is in the plan. An empty list says that nothing is missing any more."""


class FurtherStarts:
    """Fresh engine starts of cells that need more than one (`repeat`), and of the baselines that judge them."""

    def applies(self, plan: Plan) -> bool:
        """As Proposer."""
        return any(cell.config["repeat"] != 1 for cell in plan.cells)

    def propose(self, plan: Plan, results: Results) -> list[Cell]:
        """As Proposer."""
        return adaptive_repeats.further_starts(plan, results)


class Loads:
    """Further loads, for searches (`load.search`). Groups have already measured most of them when they end."""

    def applies(self, plan: Plan) -> bool:
        """As Proposer."""
        return bool(load_search.searches(plan.cells))

    def propose(self, plan: Plan, results: Results) -> list[Cell]:
        """As Proposer."""
        return load_search.proposed(plan.cells, results)


PROPOSERS: tuple[Proposer, ...] = (Loads(), FurtherStarts())


def proposed(plan: Plan, results: Callable[[], Results]) -> list[Cell]:
    """What all proposers add, each cell once. `results` is called only where one of them applies."""
    asked = [proposer for proposer in PROPOSERS if proposer.applies(plan)]
    if not asked:
        return []
    known = results()
    found = {cell.key: cell for proposer in asked for cell in proposer.propose(plan, known)}
    return [cell for key, cell in found.items() if key not in plan.by_key]
