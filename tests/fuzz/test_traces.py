"""Some mutated traces on every run; `make bench` tries 500."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.fuzz import traces


def test_mutated_traces_end_in_an_answer_or_one_line() -> None:
    """In a process of its own, with a limit of time and memory, as a fault may be one of C code."""
    command = [sys.executable, "-m", "tests.fuzz.traces", "--count", "60", "--seed", "40"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_what_is_wrong_with_an_answer_is_noticed() -> None:
    phase = {"busy_ns": 3, "gap_ns": 1, "projected_ns": 4, "busy_share": 0.75, "kernels": [{"total_ns": 3}]}
    good = f'{{"phases": [{phase}]}}'.replace("'", '"')
    asked = ["analyze", "x", "--format", "json"]
    assert traces.wrong(asked, 0, good, "") == ""
    assert traces.wrong(asked, 2, "", "profiling: x: no\n") == ""
    bad = [
        (0, good.replace("0.75", "7.5"), ""),
        (0, good.replace("0.75", "NaN"), ""),
        (0, good.replace('"busy_ns": 3', '"busy_ns": 2'), ""),
        (0, good.replace('"total_ns": 3', '"total_ns": -3'), ""),
        (0, good, "Exception ignored\n"),
        (0, "\x1b[31m", ""),
        (0, "", ""),
        (1, "", ""),
        (2, "", "profiling: a\nprofiling: b\n"),
    ]
    assert [one for one in bad if not traces.wrong(asked, *one)] == []


def test_what_never_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def computes(arguments: list[str]) -> int:
        while True:
            pass

    def waits(arguments: list[str]) -> int:
        threading.Event().wait()
        return 0

    monkeypatch.setattr(traces, "LIMIT_S", 0.1)
    monkeypatch.setattr(traces, "profiling", computes)
    assert "no end" in traces.attempt([])
    monkeypatch.setattr(traces, "WAIT_S", 0.1)
    monkeypatch.setattr(traces, "profiling", waits)
    assert "no end" in traces.attempt([])


def test_what_a_command_leaves_behind_or_raises_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(arguments: list[str]) -> str:
        Path("left").write_text("x")
        return ""

    def raises(arguments: list[str]) -> int:
        raise ValueError

    assert traces.failures(range(1)) == []
    with monkeypatch.context() as patched:
        patched.setattr(traces, "profiling", raises)
        assert "ValueError" in traces.failures(range(1))[0]
    monkeypatch.setattr(traces, "attempt", writes)
    assert "wrote" in traces.failures(range(1))[0]
