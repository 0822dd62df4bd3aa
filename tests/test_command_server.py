"""What commands in tests find imported: the project only where they would import that very one."""

import os
from pathlib import Path

import pytest

from tests.conftest import environment, finished

PROBE = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


@pytest.mark.parametrize("another", [False, True], ids=["this checkout alone", "another place too"])
def test_the_project_is_imported_beforehand_only_for_this_checkout(tmp_path: Path, another: bool) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    variables = environment()
    if another:
        (tmp_path / "place").mkdir()
        variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "place"), variables["PYTHONPATH"]])
    imported = set(finished("probe", [], tmp_path, variables).out.split())
    assert {"hydra", "numpy"} <= imported
    assert ({"sweep", "profiling", "hydra_plugins"} <= imported) is not another
    assert not imported & {"torch", "pynvml"}


def test_a_module_in_the_place_of_one_of_the_project_is_the_one_that_runs(tmp_path: Path) -> None:
    (tmp_path / "place" / "sweep").mkdir(parents=True)
    (tmp_path / "place" / "sweep" / "__init__.py").touch()
    (tmp_path / "place" / "sweep" / "__main__.py").write_text("print('another')")
    place = os.pathsep.join([str(tmp_path / "place"), environment()["PYTHONPATH"]])
    assert finished("sweep", [], tmp_path, environment() | {"PYTHONPATH": place}).out == "another\n"
