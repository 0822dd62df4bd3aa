"""Inputs that are nearly right, the same ones every time: the goal is the right answer, not a time.

Each kind has its mutations in tests/fuzz; the tests try a few dozen of each.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"traces": 500, "cells": 100}
"""Modules of tests/fuzz that are commands: how many inputs of each are tried."""


def told(what: str, failures: list[str]) -> bool:
    """Print one result; whether none ended badly."""
    print(*failures, sep="\n", end="\n" * bool(failures))
    print(f"{what}\n  {len(failures)} ended badly, goal none: {'MISSED' if failures else 'met'}", flush=True)
    return not failures


def overrides(count: int = 500, seed: int = 0) -> bool:
    """Command lines: each ends with exit code 0, or 2 and one line."""
    from tests.fuzz import overrides as mutated

    return told(f"{count} mutated command lines", mutated.failures(count, seed))


def traces_and_cells(counts: dict[str, int] = COUNTS) -> bool:
    """Traces and recorded cells, in processes of their own."""
    met = True
    for name, count in counts.items():
        command = [sys.executable, "-m", f"tests.fuzz.{name}", "--count", str(count)]
        start = time.perf_counter()
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        failures = [done.stdout + done.stderr] if done.returncode else []
        met = told(f"{count} mutated {name}, {seconds:.0f} s", failures) and met
    return met


def stored_sweeps(files: int = 200, reports: int = 500) -> bool:
    """Stored sweeps with a mutation in one file: report, load and compare end with an answer or one line."""
    from tests.fuzz import reports as damaged

    found = damaged.failures(range(files)) + damaged.failures(range(reports), damaged.REPORT)
    return told(f"{files} damaged sweeps, {reports} damaged reports", found)
