"""CUDA_VISIBLE_DEVICES as CUDA reads it: which GPUs a sweep counts, and which it leases and watches."""

import sys
import types

import pytest

from sweep.machine import devices
from sweep.machine.devices import as_cuda_reads, cuda_device_count, visible_as
from sweep.machine.gpu_neighbours import nvml_indices

UUIDS = ("GPU-11111111-2222-3333-4444-555555555555", "GPU-99999999-2222-3333-4444-555555555555")

SEEN = {
    "0": [0],
    "1": [1],
    "1,0": [1, 0],
    " 1 , 0 ": [1, 0],
    "": [],
    "-1": [],
    "0,-1,1": [0],
    "-1,0": [],
    "7": [],
    "0,7,1": [0],
    "0,0": [],
    "1,0,1": [],
    "1gpu,0": [1, 0],
    "+1": [1],
    "none": [],
    "NoDevFiles": [],
    ",0": [],
    "0,,1": [0],
    UUIDS[1]: [1],
    "GPU-9": [1],
    "GPU-99999999,GPU-11": [1, 0],
    "GPU-": [],
    "GPU-5": [],
    "GPU-9,GPU-99": [],
    "GPU-9,0": [1],
    "0,GPU-9": [0],
    "gpu-9": [],
}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch):
    """A stand-in for NVML with two GPUs; it takes whole UUIDs only, as NVML does."""
    nvml = types.ModuleType("pynvml")
    nvml.nvmlInit = nvml.nvmlShutdown = lambda: None  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetCount = lambda: 2  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetUUID = lambda handle: UUIDS[handle]  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: UUIDS.index(uuid)  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetIndex = lambda handle: handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices._gpu_uuids.cache_clear()
    yield nvml
    devices._gpu_uuids.cache_clear()


@pytest.mark.parametrize("told", SEEN)
def test_only_what_cuda_would_see_is_counted_leased_and_watched(
    two_gpus: types.ModuleType, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    numbers = tuple(range(len(SEEN[told])))
    assert cuda_device_count() == len(SEEN[told])
    assert [gpu.index for gpu in as_cuda_reads(told, UUIDS)] == SEEN[told]
    if numbers:
        assert list(nvml_indices(numbers)) == SEEN[told]
        inner = as_cuda_reads(visible_as(numbers), UUIDS)
        assert [gpu.index for gpu in inner] == SEEN[told], "an engine sees what was leased for it"


def test_all_are_seen_where_nothing_is_said(two_gpus: types.ModuleType) -> None:
    assert cuda_device_count() == 2
    assert nvml_indices((0, 1)) == (0, 1)
    assert visible_as((1,)) == "1"


def test_a_driver_that_tells_no_uuid_is_asked_for_the_index(
    two_gpus: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    del two_gpus.nvmlDeviceGetUUID
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", UUIDS[1])
    assert cuda_device_count() == 1
    assert nvml_indices((0,)) == (1,)


def test_slices_are_taken_as_they_are_named(two_gpus: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1c/2,MIG-1c/3")
    assert cuda_device_count() == 2
    assert visible_as((1,)) == "MIG-1c/3"
    assert nvml_indices((0,)) == ()


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    devices._gpu_uuids.cache_clear()
    assert cuda_device_count() == 0
    devices._gpu_uuids.cache_clear()
