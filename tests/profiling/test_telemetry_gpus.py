"""Readings of GPUs through doubles of the drivers' libraries: what is absent stays absent."""

import types
from collections.abc import Callable
from typing import Any

import pytest
from driver_doubles import EVENT_REASONS, THROTTLE_REASONS, AmdSmiLibraryException, amd, nvml, unsupported

from profiling.telemetry.gpus import open_reader
from profiling.telemetry.samples import GpuReading, GpuUser


def test_everything_nvml_tells(driver: Callable[..., None]) -> None:
    driver(
        nvml(
            nvmlDeviceGetMemoryInfo=lambda gpu: types.SimpleNamespace(used=20e9 + gpu),
            nvmlDeviceGetUtilizationRates=lambda gpu: types.SimpleNamespace(gpu=0),
            nvmlDeviceGetPowerUsage=lambda gpu: 300_000,
            nvmlDeviceGetTotalEnergyConsumption=lambda gpu: 5_000_000,
            nvmlDeviceGetClockInfo=lambda gpu, kind: {1: 1980, 2: 3201}[kind],
            nvmlDeviceGetCurrentClocksEventReasons=lambda gpu: 0x4 | 0x40,
            nvmlDeviceGetComputeRunningProcesses=lambda gpu: [
                types.SimpleNamespace(pid=7, usedGpuMemory=0),
                types.SimpleNamespace(pid=8, usedGpuMemory=None),
            ],
            nvmlSystemGetProcessName=lambda pid: "/usr/bin/python" if pid == 7 else unsupported(),
            **EVENT_REASONS,
        )
    )
    reader = open_reader((0,))
    assert reader.read() == [
        GpuReading(0, 20.0, 0.0, 300.0, 5000.0, 1980.0, 3201.0, "sw_power_cap+hw_thermal_slowdown")
    ]
    assert reader.users() == [GpuUser(0, 7, "python", 0.0), GpuUser(0, 8, "", None)]
    reader.close()


def test_what_nvml_does_not_support_is_absent(driver: Callable[..., None]) -> None:
    driver(nvml())
    assert open_reader(None).read() == [GpuReading(0), GpuReading(1)]
    assert open_reader((1, 5)).read() == [GpuReading(1)]  # no GPU has number 5
    assert open_reader(None).users() == []


@pytest.mark.parametrize(
    "answers",
    [
        {"nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: 0x8, **THROTTLE_REASONS},
        {
            "nvmlDeviceGetCurrentClocksEventReasons": unsupported,  # a new package on an old driver
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: 0x8,
            **EVENT_REASONS,
        },
    ],
    ids=["old package", "old driver"],
)
def test_reasons_by_their_old_names(driver: Callable[..., None], answers: dict[str, Any]) -> None:
    driver(nvml(**answers))
    assert [gpu.throttle_reasons for gpu in open_reader((0,)).read()] == ["hw_slowdown"]


def test_no_reason_and_one_that_has_no_name_yet(driver: Callable[..., None]) -> None:
    masks = iter([0x0, 0x1, 0x100000 | 0x8])
    driver(nvml(nvmlDeviceGetCurrentClocksEventReasons=lambda gpu: next(masks), **EVENT_REASONS))
    reader = open_reader((0,))
    assert [reader.read()[0].throttle_reasons for _ in range(3)] == ["none", "gpu_idle", "hw_slowdown+0x100000"]


def test_bits_are_those_of_the_installed_package(driver: Callable[..., None]) -> None:
    pynvml = pytest.importorskip("pynvml")
    from profiling.telemetry.nvidia import REASONS, _reason_bits

    found = _reason_bits(pynvml)
    assert found[0x8] == "hw_slowdown"
    assert found[0x20] == "sw_thermal_slowdown"
    assert found[0x40] == "hw_thermal_slowdown"
    assert found[0x80] == "hw_power_brake_slowdown"
    assert set(found.values()) <= set(REASONS)


def test_everything_amd_smi_tells(driver: Callable[..., None]) -> None:
    driver(amdsmi=amd())
    reader = open_reader(None)
    assert reader.name == "AMD SMI"
    assert reader.read() == [GpuReading(0, 20.0, 97.0, 700.0, pytest.approx(15_300.0), 2100.0, 1300.0, None)]
    assert reader.users() == [GpuUser(0, 7, "python", 3.0), GpuUser(0, 8, "", None)]
    reader.close()


def test_what_amd_smi_does_not_know_is_absent_and_never_0(driver: Callable[..., None]) -> None:
    def fails(*_: object) -> Any:
        raise AmdSmiLibraryException(2)

    unknown = amd(
        amdsmi_get_gpu_memory_usage=fails,
        amdsmi_get_gpu_activity=lambda gpu: {"gfx_activity": "N/A"},
        amdsmi_get_power_info=lambda gpu: {"current_socket_power": 2**32 - 1, "average_socket_power": 0},
        amdsmi_get_energy_count=lambda gpu: {"energy_accumulator": 0, "counter_resolution": 0.0, "timestamp": 1},
        amdsmi_get_clock_info=lambda gpu, kind: {"clk": "N/A"},
        amdsmi_get_gpu_metrics_info=lambda gpu: {"prochot_residency_acc": "N/A", "throttle_status": True},
        amdsmi_get_gpu_process_list=fails,
    )
    driver(amdsmi=unknown)
    reader = open_reader((0, 3))
    assert [reader.read(), reader.read()] == [[GpuReading(0)]] * 2
    assert reader.users() == []


def test_reasons_that_held_between_two_readings_of_an_amd_gpu(driver: Callable[..., None]) -> None:
    counters = iter([(5, 9), (5, 9), (5, 11), (6, 12)])

    def metrics(_: object) -> dict[str, object]:
        hbm, ppt = next(counters)
        return {"hbm_thm_residency_acc": hbm, "ppt_residency_acc": ppt, "vr_thm_residency_acc": "N/A"}

    driver(amdsmi=amd(amdsmi_get_gpu_metrics_info=metrics))
    reader = open_reader(None)
    assert [reader.read()[0].throttle_reasons for _ in range(4)] == [None, "none", "ppt", "ppt+hbm_thermal"]


def test_no_driver_means_no_gpus(driver: Callable[..., None]) -> None:
    driver(nvml(nvmlInit=unsupported))
    assert open_reader(None).read() == []
    driver()
    assert open_reader(None).users() == []


def test_nobody_is_asked_where_no_gpu_is_wanted(driver: Callable[..., None]) -> None:
    driver(nvml())
    assert open_reader(()).name == "none"
