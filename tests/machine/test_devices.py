"""Leases of devices: one sweep at a time on each, however each sweep numbers it."""

import functools
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest

from sweep.machine import gpu_neighbours, leases
from sweep.machine.devices import Devices
from sweep.machine.gpu_neighbours import Before
from sweep.machine.leases import lease

GPUS = Devices("cuda", 2)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(leases.LEASES_VARIABLE, str(tmp_path / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "leases"


def never(message: str) -> None:
    raise AssertionError(message)


def hold(visible: str, found: Any, leave: Any) -> None:
    """Another sweep's process: takes one GPU of those that it sees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with lease(Devices("cuda", 1), 1, never) as taken:
            found.put(taken)
            leave.wait(30)


def waits(devices: Devices, count: int) -> bool:
    """Whether a lease has to wait now. Takes it as soon as it can."""
    said: list[str] = []
    started = threading.Event()

    def waiting(message: str) -> None:
        said.append(message)
        started.set()

    def take() -> None:
        with lease(devices, count, waiting, poll_s=0.01):
            started.set()

    threading.Thread(target=take, daemon=True).start()
    assert started.wait(10)
    return bool(said)


def test_a_gpu_is_the_same_for_a_sweep_that_sees_only_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other sees GPU 1 alone, as its number 0."""
    spawn = multiprocessing.get_context("spawn")
    found, leave = spawn.Queue(), spawn.Event()
    other = spawn.Process(target=hold, args=("1", found, leave))
    other.start()
    try:
        assert found.get(timeout=60) == (0,)
        with lease(GPUS, 1, never) as mine:
            assert mine == (0,), "GPU 1 is taken"
        assert waits(GPUS, 2)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        assert waits(Devices("cuda", 1), 1)
    finally:
        leave.set()
        other.join()
    with lease(Devices("cuda", 1), 1, never) as mine:
        assert mine == (0,)


def test_a_slice_that_nvml_cannot_number_goes_by_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1c/2,MIG-1c/3")
    with lease(GPUS, 2, never):
        assert {path.name for path in folder.iterdir()} == {"MIG-1c_2.lock", "MIG-1c_3.lock"}


def test_all_or_none() -> None:
    with lease(GPUS, 1, never):
        assert waits(GPUS, 2)
        assert not waits(GPUS, 1), "what it could not use is free"


def test_the_folder_does_not_follow_the_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(leases.LEASES_VARIABLE)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert not leases.lease_folder().is_relative_to(tmp_path)


def test_what_an_engine_leaves_on_its_own_gpus_is_waited_for_and_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU 2 is another engine's, which loads and ends meanwhile."""
    now = {0: 0.4, 1: 0.4, 2: 30.0}
    monkeypatch.setattr(gpu_neighbours, "used_gb", lambda indices: tuple(now[index] for index in indices))
    monkeypatch.setattr(gpu_neighbours, "gpu_pids", lambda indices: frozenset({(2, 77)}) & {(i, 77) for i in indices})
    monkeypatch.setattr(
        gpu_neighbours, "wait_for_memory", functools.partial(gpu_neighbours.wait_for_memory, timeout_s=0.2, poll_s=0.01)
    )
    before = Before.now((0, 1))
    assert before.doubts() == ()
    now[2] = 60.0
    assert before.left() == ""
    now[1] = 9.0
    assert "GPU 1 " in before.left()
    assert " 8.6 GB " in before.left()
    (doubt,) = Before.now((1, 2)).doubts()  # process 77 is listed on GPU 2
    assert "GPU 1 " in doubt
    assert " 9.0 GB " in doubt
    assert Before.now(()) == Before()
    assert Before().left() == ""
