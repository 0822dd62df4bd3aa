"""Choosing hardware for a sweep: its price is the price, and nothing else of the sweep changes."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sweep.analysis import columns
from sweep.analysis.cell_data import CellData
from sweep.config.hardware import Hardware
from sweep.config.run import CONF, RunConfig, register
from sweep.machine.devices import Devices, discover
from sweep.places import THIS_MACHINE, machine_conf
from sweep.plan import preflight
from sweep.plan.building import build_cell
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan, build_plan
from tests import stored
from tests.conftest import Finished
from tests.fuzz import overrides

H200_PRICE = 4.59


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that nothing was measured on; the folder of its own hardware. Commands run in an empty one."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return machine_conf() / "hardware"


def cell(*given: str) -> Cell:
    """As composed from conf/, on this machine."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(given))
    return build_cell(cfg, devices, lambda run: "prompts", lambda run, found: None)


def devices(run: RunConfig) -> Devices:
    return discover(run.engine, run.model, run.hardware)


@pytest.mark.parametrize("chosen", ["h200", "mi300x", "rtx_4090"])
def test_hardware_changes_the_price_of_a_cell_and_nothing_else(chosen: str) -> None:
    before, after = cell("feature=cfg_parallel"), cell("feature=cfg_parallel", f"hardware={chosen}")
    assert after.config["hardware"]["name"] == chosen
    assert after.config["hardware"]["price_per_gpu_hour"] > 0
    same = dataclasses.replace(after, config={**after.config, "hardware": before.config["hardware"]}, overrides=())
    assert same == dataclasses.replace(before, overrides=()), "keys, label, devices, skip, baseline"


def test_auto_chooses_nothing() -> None:
    """As before there were files: `auto` has neither a price nor figures, also on hardware that is known."""
    assert cell().config["hardware"] == dataclasses.asdict(Hardware())
    assert Hardware(price_per_gpu_hour=None, gpus=None, name="auto") == Hardware()


@pytest.mark.parametrize(
    ("given", "price"), [((), H200_PRICE), (("hardware.price_per_gpu_hour=2",), 2.0)], ids=["of the file", "given"]
)
def test_the_price_of_the_chosen_hardware_is_in_cost_per_image(given: tuple[str, ...], price: float) -> None:
    """Twelve pictures within 24 s on one GPU."""
    chosen = cell("hardware=h200", *given).config["hardware"]
    made = dataclasses.replace(stored.template(), device="cuda")
    made = dataclasses.replace(made, config={**made.config, "hardware": chosen})
    result = stored.result_of(made, random.Random(0))
    data = CellData(made, (result,))
    row = columns.computed(data)
    assert row["cost_per_image"] == pytest.approx(made.gpus * price / 3600 / row["images_per_s"])


def test_a_plan_keeps_the_figures_that_were_chosen() -> None:
    made = build_plan([cell("hardware=h200", "hardware.memory_gb=40")])
    again = Plan.from_json(made.to_json())
    chosen = again.cells[0].run_config.hardware
    assert (chosen.name, chosen.memory_gb, chosen.peak_tflops["bfloat16"]) == ("h200", 40.0, 989.4)
    assert chosen.sources["bandwidth_gb_s"].grade == "data sheet"


SLIPS = {
    "hardware=h2000": "unknown hardware 'h2000'; did you mean 'h200'? (choose from a100_80gb, auto, b200, h100, h200, ",
    "hardware=H200": "unknown hardware 'H200'; write hardware=h200 (",
    f"hardware={THIS_MACHINE}": "measure it first, with python -m sweep.predict measure (",
    "hardware=mine/box.yaml": "; move the file to ",
    "-m feature=teacache hardware=h200,h100": "hardware=h200,h100: a sweep runs on one machine, so choose one of them",
    "hardware=h200 hardware.memory_gb=-1": "hardware.memory_gb=-1.0: must be more than 0",
    "hardware.link_gb_s=fast": "hardware.link_gb_s=fast: must be a number",
    "+hardware.peak_tflops.bf16=5": "hardware.peak_tflops: unknown dtype 'bf16'; choose from float32, tf32, ",
    "hardware.bandwidth=5": "did you mean 'hardware.bandwidth_gb_s'?",
}


@pytest.mark.parametrize("command", SLIPS)
def test_a_slip_is_answered_in_one_line(command: str) -> None:
    done = overrides.run(command.split(" "))
    assert done.code == 2, done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert SLIPS[command] in done.err, done.err
    assert not list(Path().iterdir()), "something was written"


def test_a_name_from_nvidia_smi_is_told_its_file() -> None:
    done = overrides.run(["hardware='NVIDIA A100-SXM4-80GB'"])
    assert "; write hardware=a100_80gb (" in done.err, done.err


def test_what_was_measured_here_is_chosen_by_name(sweep: Callable[..., Finished], machine: Path) -> None:
    machine.mkdir(parents=True)
    (machine / f"{THIS_MACHINE}.yaml").write_text(f"name: {THIS_MACHINE}\nmemory_gb: 8\nprice_per_gpu_hour: 0.5\n")
    done = sweep(f"hardware={THIS_MACHINE}", "--cfg", "job")
    assert done.code == 0, done.err
    assert f"name: {THIS_MACHINE}" in done.out
    assert "memory_gb: 8.0" in done.out
    listed = sweep("hardware=h2000")
    assert THIS_MACHINE in listed.err, "it is a choice like any other"


def test_a_file_of_ours_has_precedence_over_one_of_the_machine(sweep: Callable[..., Finished], machine: Path) -> None:
    machine.mkdir(parents=True)
    (machine / "h200.yaml").write_text("name: h200\nmemory_gb: 8\n")
    assert "memory_gb: 150.755" in sweep("hardware=h200", "--cfg", "job").out


@pytest.mark.parametrize(
    ("here", "warned"),
    [
        (["NVIDIA H200"] * 2, False),
        ([], False),
        (["NVIDIA A100-SXM4-80GB"], True),
        (["NVIDIA H200", "NVIDIA L4"], True),
    ],
)
def test_other_gpus_than_those_chosen_are_named(monkeypatch: pytest.MonkeyPatch, here: list[str], warned: bool) -> None:
    monkeypatch.setattr(preflight, "device_names", lambda: here)
    line = preflight.other_gpus(Hardware(name="h200", match=["NVIDIA H200"], price_per_gpu_hour=H200_PRICE))
    assert bool(line) is warned
    if warned:
        assert here[-1] in line
        assert "cost_per_image" in line
    assert preflight.other_gpus(Hardware()) == "", "auto is for any"
