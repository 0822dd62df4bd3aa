"""`python -m sweep.predict measure` on a CPU: a file that sweeps and predictions find by name, or one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.config.hardware import DRIVER, MEASURED
from sweep.places import THIS_MACHINE, machine_conf
from sweep.predict import measure
from sweep.predict.__main__ import COMMANDS
from sweep.predict.hardware import by_device_name, device_for
from tests.conftest import environment, finished

SOON = "--seconds=2"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that nothing was measured on, and whose devices no other test holds; the folder of its own hardware."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SWEEP_LEASES", str(tmp_path / "leases"))
    return machine_conf() / "hardware"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sweep.predict", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, timeout=300)


def test_this_machine_is_measured_and_found_by_name(machine: Path) -> None:
    done = run("measure", "--device", "cpu", SOON)
    assert done.returncode == 0, done.stderr
    file = machine / f"{THIS_MACHINE}.yaml"
    assert list(machine.iterdir()) == [file], "nothing temporary is left"
    assert f"hardware={THIS_MACHINE}" in done.stdout
    assert str(file) in done.stdout
    assert "FLOP/s" in done.stderr, "progress"

    device = device_for(THIS_MACHINE)
    assert device == device_for(str(file)) == by_device_name(device.match[0])
    assert 1e8 < device.peak("float32") < 1e14  # type: ignore[operator]
    assert 1e8 < device.bandwidth_bytes_s < 1e13  # type: ignore[operator]
    assert 1e-8 < device.launch_s < 1e-2  # type: ignore[operator]
    assert device.memory_bytes > 1e9  # type: ignore[operator]
    figures = ("peak_flops", "bandwidth_bytes_s", "launch_s")
    assert {device.grade(figure) for figure in figures} == {MEASURED}
    assert device.grade("memory_bytes") == DRIVER
    if (os.cpu_count() or 1) > 1:
        sizes = [row.bytes for row in device.all_reduce or ()]
        assert sizes == list(measure.MESSAGES["cpu"])
        assert device.all_reduce_s(sizes[-1], 2) > device.all_reduce_s(sizes[0], 2)  # type: ignore[operator]


def test_a_file_elsewhere_says_how_it_is_used(tmp_path: Path, machine: Path) -> None:
    file = tmp_path / "mine" / "hardware" / "box.yaml"
    done = run("measure", "--device=cpu", "--seconds=1", "--out", str(file))
    assert done.returncode == 0, done.stderr
    assert f"--config-dir {tmp_path / 'mine'} hardware=box" in done.stdout
    assert device_for(str(file)).name == "box"
    assert not machine.exists()


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("measure", "--device=cpu", "--seconds=60"), env=environment(), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    while b"measuring" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted; nothing was written" in said
    assert not (tmp_path / "cache").exists()


SLIPS = {
    "": "no command given; there are: cells, calibrate, queue, measure",
    "mesure": "unknown command 'mesure'; did you mean 'measure'? There are: cells, calibrate, queue, measure",
    "measure --seconds soon": "--seconds soon: must be a number from 1 to 600",
    "measure --seconds 0": "--seconds 0: must be a number from 1 to 600",
    "measure --seconds nan": "--seconds nan: must be a number from 1 to 600",
    "measure --device tpu": "--device tpu: choose auto, cpu or cuda",
    "measure --out box": "--out box: name a file NAME.yaml",
    "measure --out auto.yaml": "--out auto.yaml: name a file NAME.yaml",
    "measure --out /dev/null/box.yaml": "/dev/null/box.yaml: cannot be written",
    "measure --fast": "unrecognized arguments: --fast",
}


@pytest.mark.parametrize("given", SLIPS)
def test_bad_usage_is_one_line(given: str, machine: Path, tmp_path: Path) -> None:
    done = finished("sweep.predict", given.split(), tmp_path)
    assert (done.code, done.out) == (2, "")
    assert SLIPS[given] in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert not machine.exists()


def test_a_name_of_conf_is_not_hidden_behind_a_file_of_the_machine(machine: Path, tmp_path: Path) -> None:
    done = finished("sweep.predict", ["measure", "--out", str(machine / "h200.yaml")], tmp_path)
    assert done.code == 2
    assert "hardware=h200 is there already" in done.err


def test_the_median_is_of_single_calls_however_many_are_timed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that each call advances by 1 ms, and each wait for launched work by 2 ms a sample."""
    now = 0.0

    def moved(by: float) -> None:
        nonlocal now
        now += by

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now)
    found = measure.median_s(lambda: moved(0.001), lambda: moved(0.002), budget_s=1.0)
    assert found == pytest.approx(0.001 + 0.002 / 3, rel=1e-6), "10 ms hold three calls of 3 ms, the first with a wait"


def test_help_names_every_command(tmp_path: Path) -> None:
    done = finished("sweep.predict", ["--help"], tmp_path)
    assert done.code == 0
    assert {*COMMANDS} <= {*done.out.split()}
    assert f"hardware={THIS_MACHINE}" in done.out
