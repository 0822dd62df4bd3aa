"""`make bench` is not run here; that each of its comparisons still runs is, in small, whatever the times."""

import importlib
import pkgutil

import pytest

import tests.bench
import tests.bench.__main__ as bench
from tests.bench import bad_input, client
from tests.bench.client import SMALL, STREAM, Work, serving
from tests.bench.peer_commands import Found, PeerFailed
from tests.bench.peers import OURS, Client, here, raced


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


@pytest.mark.parametrize("work", [SMALL, STREAM])
def test_clients_that_race(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvloop")
    slow = Client("slow", lambda url, work, count, flight: Found(rate=10.0, cpu_s=1.0 + 0.004 * count))
    with serving(work) as url:
        raced([Client(OURS, here(client.ours)), slow, Client("none", refusing)], url, work, 4, pairs=1, seconds=0.01)
    none, mine, other = capsys.readouterr().out.splitlines()
    assert none == "  none      cannot: asks for nothing"
    assert "in the process that sends, 300 requests" in mine
    assert "10/s (10 to 10),   4.00 ms of a core a request; ours" in other


def refusing(url: str, work: Work, count: int, flight: int) -> Found:
    raise PeerFailed("asks for nothing")
