"""The marker that tells random weights from trained ones, and how little it takes to read it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.checkpoints.marker import NAME, NOTE, read_marker
from tests.checkpoints.conftest import MODELS
from tests.conftest import environment


def test_a_folder_without_marker_is_not_marked(tmp_path: Path) -> None:
    assert read_marker(tmp_path) is None
    assert read_marker(tmp_path / "missing") is None
    (tmp_path / "file").write_text("weights")
    assert read_marker(tmp_path / "file") is None


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_marker_that_cannot_be_read_still_marks(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    assert read_marker(tmp_path) == {"note": NOTE}


@pytest.mark.parametrize("model", MODELS)
def test_every_checkpoint_says_what_it_is(model: str, tiny: Callable[[str], Path]) -> None:
    marker = read_marker(tiny(model))
    assert marker is not None
    assert (marker["model"], marker["seed"], marker["tiny"], marker["device"]) == (model, 0, True, "cpu")
    assert set(marker) >= {"layers", "versions", "residual_scaling", "parameters", "recipe"}
    assert "not representative" in str(marker["note"])


@pytest.mark.parametrize(
    "what", ["import sweep.checkpoints.marker", "import sweep.checkpoints.__main__ as m; m.parser()"]
)
def test_reading_a_marker_and_help_import_nothing_heavy(what: str) -> None:
    check = (
        f"{what}; import sys; print([m for m in ('torch', 'diffusers', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
