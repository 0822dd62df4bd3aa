"""Damaged sweeps end with an answer or one line; `make bench` tries 200, and 500 reports."""

import json
from pathlib import Path

import pytest

from tests.fuzz import reports, stored_example


def test_damaged_sweeps_end_in_an_answer_or_one_line() -> None:
    assert reports.failures([*range(501, 530), 201]) == []


def test_damaged_reports_end_in_an_answer_or_one_line() -> None:
    assert reports.failures(range(501, 541), reports.REPORT) == []


def test_cases_are_the_same_for_a_seed_and_varied(tmp_path: Path) -> None:
    folder = stored_example.make(tmp_path / "sweep")
    made = [reports.case(seed, folder) for seed in range(60)]
    assert made == [reports.case(seed, folder) for seed in range(60)]
    assert len({one.content for one in made}) > 50
    assert {Path(one.file).name for one in made} > {"plan.json", "result.json", "manifest.json", "events.jsonl"}
    whole = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert {"PASS", "NOT RUN"} <= {cell["status"] for cell in whole["cells"]}


def test_what_counts_as_a_bad_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(told: str, code: int) -> int:
        print(told)
        return code

    for told, code in (("fine", 3), ("\x1b[31m", 0), ("Traceback (most recent call last):", 0), ("", 2)):
        assert list(reports._command("sweep.report", lambda told=told, code=code: ends(told, code), (0, 2)))
    assert list(reports._command("sweep.report", lambda: ends("fine", 0), (0, 2))) == []

    def raises(given: list[str]) -> int:
        raise KeyError("batches")

    monkeypatch.setattr(reports, "report", raises)
    assert "KeyError" in reports.failures(range(1))[0]
