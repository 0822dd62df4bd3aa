"""The one way in which a plan grows: proposers are asked, and each cell is added once."""

import dataclasses

import pytest

from sweep.analysis import proposers
from sweep.analysis.engine_starts import Results
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from tests import stored

CELL = stored.template()


class Proposes:
    """Wants one cell, for plans with more than one cell only."""

    def __init__(self, key: str) -> None:
        self.key = key

    def applies(self, plan: Plan) -> bool:
        return len(plan.cells) > 1

    def propose(self, plan: Plan, results: Results) -> list[Cell]:
        return [dataclasses.replace(CELL, key=self.key)]


def plan_of(*keys: str) -> Plan:
    return Plan(tuple(dataclasses.replace(CELL, key=key) for key in keys), ())


def test_what_several_propose_is_added_once_and_never_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposers, "PROPOSERS", (Proposes("c"), Proposes("c"), Proposes("a")))
    assert [cell.key for cell in proposers.proposed(plan_of("a", "b"), dict)] == ["c"]


def test_no_result_is_read_where_no_proposer_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposers, "PROPOSERS", (Proposes("c"),))

    def results() -> Results:
        raise AssertionError("read although nobody asked")

    assert proposers.proposed(plan_of("a"), results) == []
