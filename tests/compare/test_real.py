"""A sweep, and one of its cells measured again, with and without a delay in one phase, through both command lines."""

import json
import shutil
from pathlib import Path

import pytest

from sweep.report.build import RANDOM_WEIGHTS_NOTE
from tests.conftest import Finished, environment, finished
from tests.faults.conftest import path_with

SWEEP = (
    *("-m", "model=tiny_qwen_image", "feature=teacache", "workload.num_prompts=3", "workload.repeats=1", "aa=3"),
    *("interleave=true", "workload.steps=3", "plots=false"),
)
DELAY_S = 5.0  # very many times a request: on a busy machine, A/A runs differ by much, and the interval says so
OPTIONS = ("--relative", "--min-change", "300")  # a shared machine may truly have been slower the second time

DELAYED = f"""
_made = RankRunner.__init__

def made(self, place, spec):
    if "teacache" in spec.features:
        from diffusers import AutoencoderKLQwenImage as VAE

        decode, calls = VAE.decode, []

        def slow_decode(*arguments, **named):
            if calls:  # the first is the warm-up
                time.sleep({DELAY_S})
            calls.append(1)
            return decode(*arguments, **named)

        VAE.decode = slow_decode
    _made(self, place, spec)

RankRunner.__init__ = made
"""
"""Delays one phase of the engine that has a feature: a regression made to measure."""


def run(folder: Path, module: str, *arguments: str, **variables: str) -> Finished:
    """`python -m MODULE` in this folder."""
    return finished(module, arguments, folder, environment() | variables)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the sweep `before`, and with its teacache cell measured anew `again` and, slower, `delayed`."""
    folder = tmp_path_factory.mktemp("sweeps")
    done = run(folder, "sweep", *SWEEP, "hydra.sweep.dir=before")
    assert done.code == 0, done
    for name in ("again", "delayed"):
        shutil.copytree(folder / "before", folder / name)
        for cell in (folder / name).glob("teacache*"):
            shutil.rmtree(cell)
    done = run(folder, "sweep", *SWEEP, "hydra.sweep.dir=again")
    assert done.code == 0, done
    path = path_with({"sweep.engines.diffusers.engine": DELAYED}, folder / "patch", environment()["PYTHONPATH"])
    done = run(folder, "sweep", *SWEEP, "hydra.sweep.dir=delayed", PYTHONPATH=path)
    assert done.code == 0, done
    return folder


def test_the_same_cell_again_is_no_regression(folder: Path) -> None:
    done = run(folder, "sweep.compare", "before", "again", *OPTIONS)
    assert (done.code, done.err) == (0, ""), done
    assert RANDOM_WEIGHTS_NOTE in " ".join(done.out.split())


def test_a_delay_in_one_phase_fails_and_the_phase_is_named(folder: Path) -> None:
    done = run(folder, "sweep.compare", "before", "delayed", *OPTIONS, "--format", "json")
    assert done.code == 1, done
    found = json.loads(done.out)
    assert found["failed_on"] == ["regression"]
    (cell,) = [cell for cell in found["comparisons"][0]["cells"] if cell["failures"]]
    assert cell["cell"].startswith("teacache")
    (shift,) = cell["phases"]["shifts"]
    assert shift["phase"] == "vae_decode"
    assert "vae_decode +" in run(folder, "sweep.compare", "before", "delayed", *OPTIONS).out
