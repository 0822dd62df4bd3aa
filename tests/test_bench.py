"""`make bench` is not run here; each of its comparisons is, in small, whatever the times."""

import gzip
import importlib
import json
import pkgutil
import sys
from pathlib import Path

import pytest

import tests.bench
import tests.bench.__main__ as bench
from tests.bench import bad_input, client, communication
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


def kernel(name: str, start_us: float, end_us: float) -> dict[str, object]:
    return {"ph": "X", "cat": "kernel", "name": name, "ts": start_us, "dur": end_us - start_us}


def test_what_traces_of_ranks_say_of_communication(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forward = {"ph": "X", "cat": "gpu_user_annotation", "name": "dit_forward", "ts": 1000.0, "dur": 900.0}
    step = forward | {"name": "denoise_step", "ts": 1900.0, "dur": 100.0}  # what the step launches after its forward
    kernels = [
        kernel("ncclDevKernel_SendRecv", 900, 1300),  # 300 of it inside the step
        kernel("gemm", 1200, 1500),
        kernel("gemm", 1400, 1600),  # on another stream
        kernel("cross_device_reduce_1stage<bf16>", 1700, 1800),
        kernel("vae", 2500, 2600),  # after the step
    ]
    (tmp_path / "tp").mkdir()
    with gzip.open(tmp_path / "tp" / "trace-rank0.json.gz", "wt") as file:
        json.dump({"traceEvents": [step, forward, {"ph": "i", "name": "mark"}, *kernels]}, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["communication", str(tmp_path / "tp")])
        communication.main()
    data = json.loads(capsys.readouterr().out)["tp"]
    (rank,) = data["ranks"].values()
    assert data["least_ms"] == 0.5  # of the only rank, whole
    assert {name: value for name, value in rank.items() if name != "communication_kernels"} == {
        "ranges": 2,
        "phase_ms": 1.0,
        "communication_ms": 0.4,
        "communication_exposed_ms": 0.3,
        "other_kernels_ms": 0.4,
        "idle_ms": 0.3,
    }
    other = [kernel("ncclDevKernel_SendRecv", 1200, 1300), kernel("cross_device_reduce_1stage<bf16>", 1500, 1800)]
    both = [communication.communicating(events) for events in (kernels, other)]
    assert communication.least(both) == 0.2  # the first waited in one rank, the second in the other
    assert communication.least([both[0], both[1][:1]]) is None
    with pytest.raises(ValueError, match="no GPU range called denoise_step or dit_forward"):
        communication.shares(kernels)
