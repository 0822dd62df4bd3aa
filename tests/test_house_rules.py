"""The import contracts of pyproject.toml hold, and notice what they are there for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    """Hold the contracts against the packages in `folder`."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", "pyproject.toml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages and their contracts, to plant something in."""
    for name in ("sweep", "profiling"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("sweep/plan/cells.py", "from sweep.run.group import run_group"),
        ("sweep/plan/cells.py", "import torch"),
        ("profiling/phases.py", "import sweep.config.run"),
        ("sweep/analysis/paired.py", "from sweep.analysis import summary"),
    ],
    ids=["upward", "torch while planning", "profiling knows sweeps", "a circle"],
)
def test_what_breaks_a_house_rule_is_noticed(copy: Path, module: str, line: str) -> None:
    before = contracts(copy)
    assert before.returncode == 0, before.stdout
    path = copy / module
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    assert contracts(copy).returncode == 1
