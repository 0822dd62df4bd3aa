"""Some mutated cells on every run; `make bench` tries 100."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.fuzz import cells


def test_mutated_cells_end_in_a_timeline_or_one_line() -> None:
    command = [sys.executable, "-m", "tests.fuzz.cells", "--count", "6", "--seed", "41"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_files_that_should_not_be_there_and_json_that_is_none_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(*names: str) -> object:
        def attempt(arguments: list[str]) -> str:
            for name in names:
                Path(arguments[1], name).write_text('{"a": NaN}')
            return ""

        return attempt

    monkeypatch.setattr(cells, "attempt", writes("core"))
    assert "wrote" in cells.failures(range(1))[0]
    monkeypatch.setattr(cells, "attempt", writes(*cells.WRITTEN))
    assert "timeline.json: NaN" in cells.failures(range(1))[0]
