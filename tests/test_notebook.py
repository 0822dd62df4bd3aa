"""The notebook in examples/ runs from its first cell to its last, in a kernel as Jupyter starts it."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT, environment

NOTEBOOK = ROOT / "examples" / "from_python.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook with its outputs, from a folder like the project's. Raises CellExecutionError."""
    base = tmp_path_factory.mktemp("project")
    (base / "examples").mkdir()
    (base / "docs").symlink_to(ROOT / "docs")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    places = {"metadata": {"path": str(base / "examples")}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=600, startup_timeout=300, resources=places)
    return client.execute(env=environment())


def outputs(notebook: nbformat.NotebookNode, cell_id: str) -> list[nbformat.NotebookNode]:
    """What the cell with this id shows."""
    (found,) = [cell for cell in notebook.cells if cell.id == cell_id]
    return list(found.outputs)


def test_every_cell_shows_its_answer(executed: nbformat.NotebookNode) -> None:
    """Those that end with a table show one; a sweep shows its progress as lines, not as a terminal's moving table."""
    progress = "".join(one.text for one in outputs(executed, "run"))
    assert "teacache b1 rel_l1_thresh=0.1: done" in progress
    assert "\x1b" not in progress
    for cell_id in ("plan", "tables", "best", "phases", "compare", "published"):
        (shown,) = outputs(executed, cell_id)
        assert "<table" in shown.data["text/html"], cell_id


def test_the_answer_is_the_threshold_that_keeps_the_quality(executed: nbformat.NotebookNode) -> None:
    """At threshold 1 pictures are worse than 40 dB, at 0.1 better; the same images as on any machine."""
    (shown,) = outputs(executed, "best")
    assert shown.data["text/plain"].splitlines()[1].split()[1] == "0.1"


def test_the_stored_notebook_holds_no_outputs() -> None:
    """They would become outdated, and contain the paths of the last person who ran it."""
    stored = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in stored.cells)
