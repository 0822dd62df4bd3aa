"""`make bench` is not run here; that each of its comparisons still runs is, in small, whatever the times."""

import importlib
import pkgutil

import pytest

import tests.bench
import tests.bench.__main__ as bench
from tests.bench import bad_input


def test_every_module_can_be_imported() -> None:
    names = [module.name for module in pkgutil.iter_modules(tests.bench.__path__)]
    assert {"calibration", "steps", "traces_cost"} <= set(names)
    for name in names:
        importlib.import_module(f"tests.bench.{name}")


def test_stored_sweeps_of_another_size(capsys: pytest.CaptureFixture[str]) -> None:
    bench.stored(cells=12)
    bench.page(cells=12)
    out = capsys.readouterr().out
    assert "stored cells" in out
    assert "report.html" in out


def test_cells_against_hydra(capsys: pytest.CaptureFixture[str]) -> None:
    bench.overhead(rounds=1, cells=4)
    assert "4 cells" in capsys.readouterr().out


def test_mutated_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert bad_input.traces_and_cells({"traces": 2})
    assert "2 mutated traces" in capsys.readouterr().out
    assert not bad_input.traces_and_cells({"no_such_module": 1})
