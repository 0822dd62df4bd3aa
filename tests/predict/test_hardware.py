"""Hardware files: every figure has its source, peaks are dense, and nonsense is one line."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sweep.config.hardware import AUTO, DATA_SHEET, FIGURES, GIVEN, LIST_PRICE, MEASURED, AllReduce, Hardware, Origin
from sweep.config.run import CONF, register
from sweep.places import THIS_MACHINE, machine_conf
from sweep.predict import hardware
from sweep.predict.hardware import Device, by_device_name, device_for, device_of
from sweep.refusals import ConfigError
from tests.conftest import environment

PEAKS = {
    # Dense. Data sheets with "*with sparsity" print twice as much: H200 bf16 1,979, fp8 3,958; B200 bf16 4,500.
    # H100, H200: NVIDIA H100 Tensor Core GPU Architecture, H100 SXM5 (one chip). A100: nvidia-a100-datasheet r4.
    # L40S: its data sheet. RTX 4090: NVIDIA Ada GPU Architecture, appendix A, sums in FP32.
    # MI300X: its data sheet. B200: NVIDIA Blackwell data sheet, HGX B200, individual GPU.
    "h200": {"float32": 66.9e12, "tf32": 494.7e12, "bfloat16": 989.4e12, "fp8": 1978.9e12, "int8": 1978.9e12},
    "h100": {"float32": 66.9e12, "tf32": 494.7e12, "bfloat16": 989.4e12, "fp8": 1978.9e12, "int8": 1978.9e12},
    "a100_80gb": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12, "int8": 624e12},  # it has no fp8
    "l40s": {"float32": 91.6e12, "tf32": 183e12, "bfloat16": 362.05e12, "fp8": 733e12, "int8": 733e12},
    "rtx_4090": {"float32": 82.6e12, "tf32": 82.6e12, "bfloat16": 165.2e12, "fp8": 330.3e12, "int8": 660.6e12},
    "mi300x": {"float32": 163.4e12, "tf32": 653.7e12, "bfloat16": 1307.4e12, "fp8": 2614.9e12, "int8": 2614.9e12},
    "b200": {"float32": 75e12, "tf32": 1100e12, "bfloat16": 2250e12, "fp8": 4500e12, "int8": 4500e12},
}

MEMORY = {
    # MiB that nvidia-smi shows, bytes/s of the data sheet, bytes/s to all other GPUs and to one, W
    "h200": (143771, 4.8e12, 450e9, 450e9, 700),
    "h100": (81559, 3.35e12, 450e9, 450e9, 700),
    "a100_80gb": (81920, 2.039e12, 300e9, 300e9, 400),
    "l40s": (46068, 864e9, 32e9, 32e9, 350),
    "rtx_4090": (24564, 1.008e12, 32e9, 32e9, 450),
    "mi300x": (206141652992 / 2**20, 5.3e12, 448e9, 64e9, 750),
    "b200": (183359, 7.7e12, 900e9, 900e9, 1000),
}

UNKNOWN = {"launch_us", "all_reduce"}
"""Figures that no data sheet has."""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that nothing was measured on, without GPUs; the folder of its own hardware."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hardware, "device_names", list)
    return machine_conf() / "hardware"


def test_there_is_a_file_for_each_gpu_and_no_other() -> None:
    assert hardware.known_names() == sorted(PEAKS)


@pytest.mark.parametrize("name", PEAKS)
def test_peaks_are_dense_and_not_those_with_sparsity(name: str) -> None:
    device = device_for(name)
    assert device.peak_flops == pytest.approx(PEAKS[name])
    assert device.peak("float16") == device.peak("bfloat16") == pytest.approx(PEAKS[name]["bfloat16"])


@pytest.mark.parametrize("name", MEMORY)
def test_memory_links_and_power_are_those_of_drivers_and_data_sheets(name: str) -> None:
    device, (mib, bandwidth, link, peer, power) = device_for(name), MEMORY[name]
    assert device.memory_bytes == pytest.approx(mib * 2**20, rel=1e-5)
    assert device.usable_bytes is not None
    assert 0.98 * mib * 2**20 < device.usable_bytes < mib * 2**20, "what a process can allocate is less than there is"
    found = (device.bandwidth_bytes_s, device.link_bytes_s, device.peer_bytes_s, device.power_w)
    assert found == pytest.approx((bandwidth, link, peer, power))
    assert device.idle_w is None or 0 < device.idle_w < device.power_w / 2  # type: ignore[operator]


@pytest.mark.parametrize("name", PEAKS)
def test_every_figure_has_its_source(name: str) -> None:
    found = hardware.hardware_for(name)
    given = {figure for figure in FIGURES if getattr(found, figure) not in (None, {}, [])}
    assert given >= {*FIGURES} - UNKNOWN - {"idle_w"}
    assert given == found.sources.keys(), "a figure without its source, or the other way round"
    assert all(origin.source for origin in found.sources.values())
    assert found.sources["price_per_gpu_hour"].grade == LIST_PRICE
    assert len(found.sources["price_per_gpu_hour"].date) == len("2026-11-29"), "prices change: they need a day"
    assert device_for(name).grade("peak_flops") == device_for(name).grade("bandwidth_bytes_s") == DATA_SHEET


def test_hydra_reads_the_same_as_we_do() -> None:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name in PEAKS:
            made = OmegaConf.to_object(compose("config", [f"hardware={name}"]))
            assert made.hardware == hardware.hardware_for(name), name  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("H200", "h200"),
        ("nvidia  h200 ", "h200"),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-SXM4-80GB", "a100_80gb"),
        ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA A100 80GB PCIe", None),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4090", "rtx_4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("AMD Instinct MI300X", "mi300x"),
        ("AMD Instinct MI300X OAM", "mi300x"),
        ("AMD Instinct MI325X", None),
        ("NVIDIA B200", "b200"),
        ("", None),
    ],
)
def test_a_gpu_is_found_by_the_name_that_its_driver_reports_and_its_relatives_are_not(
    reported: str, name: str | None
) -> None:
    found = by_device_name(reported)
    assert (found.name if found else None) == name


def written(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


NONSENSE = {
    "memory_gb: -80": "must be more than 0",
    "memory_gb: lots": "memory_gb",
    "bandwidth: 3": "unknown field 'bandwidth'; did you mean 'bandwidth_gb_s'?",
    "peak_tflops: {bf16: 3}": "unknown dtype 'bf16'; choose from float32, tf32, bfloat16, fp8, int8",
    "peak_tflops: {fp8: 0}": "must be more than 0",
    "all_reduce: [{ranks: 1, bytes: 8, us: 1}]": "ranks=1: must be at least 2",
    "sources: {memory: {source: me}}": "no figure is called 'memory'",
    "sources: {memory_gb: {grade: guess}}": "unknown grade 'guess'",
    "- a list": "holds no hardware",
    "": "holds no hardware",
    "a: [": "not YAML",
}


@pytest.mark.parametrize("text", NONSENSE)
def test_a_file_of_nonsense_is_one_line_with_its_path(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        device_for(str(path))
    assert str(path) in str(caught.value)
    assert NONSENSE[text] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("h2000", "unknown hardware 'h2000'; did you mean 'h200'? (choose from a100_80gb, b200, "),
        ("", "unknown hardware '' (choose from"),
        (THIS_MACHINE, "nothing was measured here yet; run python -m sweep.predict measure"),
        (AUTO, "this machine has no GPU that the driver reports; run python -m sweep.predict measure, or choose"),
        ("no/such.yaml", "hardware=no/such.yaml: cannot be read (No such file or directory)"),
    ],
)
def test_hardware_that_nothing_has_is_one_line_with_what_to_write(name: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        device_for(name)
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_changed_file_is_read_anew(machine: Path) -> None:
    path = written(machine, "memory_gb: 8", "box.yaml")
    assert device_for("box").memory_bytes == 8e9
    path.write_text("memory_gb: 16")
    assert device_for(str(path)).memory_bytes == device_for("box").memory_bytes == 16e9


def test_auto_is_this_machines_gpu_else_what_was_measured_of_it(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of(Hardware()) is None
    written(machine, "match: [Some CPU]\nmemory_gb: 8", f"{THIS_MACHINE}.yaml")
    here = device_of(Hardware())
    assert here is not None
    assert (here.name, here.memory_bytes) == (THIS_MACHINE, 8e9)
    monkeypatch.setattr(hardware, "device_names", lambda: ["NVIDIA H200", "NVIDIA H200"])
    assert device_of(Hardware()) == device_for(AUTO) == device_for("h200")


def test_what_the_command_line_changes_is_given_and_no_figure_of_the_data_sheet() -> None:
    chosen = dataclasses.replace(hardware.hardware_for("h200"), memory_gb=40.0, price_per_gpu_hour=2.0)
    device = device_of(chosen)
    assert device is not None
    assert (device.memory_bytes, device.price_per_hour) == (40e9, 2.0)
    assert (device.grade("memory_bytes"), device.grade("price_per_hour")) == (GIVEN, GIVEN)
    assert device.grade("bandwidth_bytes_s") == DATA_SHEET
    alone = device_of(Hardware(price_per_gpu_hour=3.0))
    assert alone == Device(AUTO, price_per_hour=3.0, origins={"price_per_hour": Origin(GIVEN)})


def test_hardware_of_a_plan_from_another_machine_is_as_the_plan_has_it() -> None:
    """Its file is not here."""
    stored = Hardware(name=THIS_MACHINE, memory_gb=8.0, sources={"memory_gb": Origin(MEASURED)})
    device = device_of(stored)
    assert device is not None
    assert (device.memory_bytes, device.grade("memory_bytes")) == (8e9, MEASURED)


def test_time_of_an_all_reduce_between_and_beyond_measured_sizes() -> None:
    rows = (AllReduce(2, 1_000, 10.0), AllReduce(2, 100_000, 1_000.0), AllReduce(4, 1_000, 30.0))
    device = Device("box", all_reduce=rows)
    assert device.all_reduce_s(1_000, 2) == pytest.approx(10e-6)
    assert device.all_reduce_s(10_000, 2) == pytest.approx(100e-6), "half-way of a line between logarithms"
    assert device.all_reduce_s(1, 2) == pytest.approx(10e-6), "no message is faster than the smallest"
    assert device.all_reduce_s(200_000, 2) == pytest.approx(2e-3), "bandwidth of the largest"
    assert device.all_reduce_s(1_000, 4) == pytest.approx(30e-6)
    assert device.all_reduce_s(1_000, 8) == pytest.approx(30e-6), "of the most ranks that were measured"
    assert device.all_reduce_s(1_000, 3) == pytest.approx(10e-6)
    assert device_for("h200").all_reduce_s(1_000, 2) is None


def test_reading_hardware_imports_neither_torch_nor_hydra() -> None:
    read = "[h.device_for(name) for name in h.known_names()]; h.device_here()"
    code = f"import sys; from sweep.predict import hardware as h; {read}"
    check = "print(sorted({'torch', 'hydra', 'omegaconf'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_no_file_has_a_date_that_yaml_reads_as_one() -> None:
    """OmegaConf refuses dates: they are texts."""
    for path in (CONF / "hardware").glob("*.yaml"):
        for origin in (yaml.safe_load(path.read_text()).get("sources") or {}).values():
            assert isinstance(origin["date"], str), path
