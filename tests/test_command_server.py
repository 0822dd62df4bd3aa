"""What commands in tests find imported: the project only where they would import that very one."""

import os
from pathlib import Path

import pytest

from tests.conftest import environment, finished
from tests.faults.conftest import path_with

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


ENGINES = ("sweep.engines.noop.engine", "sweep.engines.diffusers.engine")


@pytest.mark.parametrize("elsewhere", [(), ("sweep.run.session",)], ids=["in engines alone", "elsewhere too"])
def test_the_project_is_imported_beforehand_where_faults_are_in_engines_alone(
    tmp_path: Path, elsewhere: tuple[str, ...]
) -> None:
    faults = dict.fromkeys((*ENGINES, *elsewhere), "print(f'a fault in {__name__}')")
    (tmp_path / "probe.py").write_text(f"{PROBE}; import sweep.engines.noop.engine; print('diffusers' in sys.modules)")
    path = path_with(faults, tmp_path / "faults", environment()["PYTHONPATH"])
    done = finished("probe", [], tmp_path, environment() | {"PYTHONPATH": path})
    imported, *faulty = done.out.splitlines()
    assert ("sweep" in imported.split()) is not bool(elsewhere)
    assert faulty == ["a fault in sweep.engines.noop.engine", "False"], "which was not imported before"


def test_a_module_in_the_place_of_one_of_the_project_is_the_one_that_runs(tmp_path: Path) -> None:
    (tmp_path / "place" / "sweep").mkdir(parents=True)
    (tmp_path / "place" / "sweep" / "__init__.py").touch()
    (tmp_path / "place" / "sweep" / "__main__.py").write_text("print('another')")
    place = os.pathsep.join([str(tmp_path / "place"), environment()["PYTHONPATH"]])
    assert finished("sweep", [], tmp_path, environment() | {"PYTHONPATH": place}).out == "another\n"
