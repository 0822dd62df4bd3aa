"""Real vLLM-Omni on real GPUs, through the command line: `make test-gpu` on a host that has both.

Checkpoints are random weights at real widths and few layers, built once on the machine ($SWEEP_CACHE keeps them).
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sweep.machine.devices import cuda_device_count
from sweep.machine.gpu_neighbours import used_gb
from tests.conftest import environment
from tests.faults.conftest import Sweep, sweep

__all__ = ["sweep"]  # a fixture

QUICK = ("plots=false", "aa=0", "workload=image_1024", "workload.num_prompts=1", "workload.repeats=1")
TORCH_ALONE = ("test_measure",)
BUILD_S = 300
SWEEP_S = 550
SLACK_GB = 0.5


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a GPU, and all but TORCH_ALONE needs vLLM-Omni."""
    here = Path(__file__).parent
    gpus = cuda_device_count() > 0
    omni = importlib.util.find_spec("vllm_omni") is not None
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.gpu)
            if not gpus:
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))
            elif not omni and item.path.stem not in TORCH_ALONE:
                item.add_marker(pytest.mark.skip(reason="vllm_omni is not installed"))


@pytest.fixture(scope="session", autouse=True)
def shared_compile_cache() -> None:
    """Every test has a temporary folder of its own, where torch would compile everything anew."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / "sweep-inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(Path(tempfile.gettempdir()) / "sweep-triton"))


def built(*arguments: str) -> Path:
    """Folder of the checkpoint that `python -m sweep.checkpoints` builds from these arguments."""
    command = [sys.executable, "-m", "sweep.checkpoints", *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=BUILD_S)
    assert done.returncode == 0, done.stderr
    return Path(next(line for line in done.stdout.splitlines() if " GB, " in line).partition(":")[0])


@pytest.fixture(scope="session")
def qwen() -> Path:
    """Qwen-Image with 2 of 60 DiT blocks."""
    return built("qwen_image", "--layers", "2", "--text-layers", "2", "--vision-layers", "1")


@pytest.fixture(scope="session")
def glm() -> Path:
    """GLM-Image with 2 of 40 AR layers and 2 of 30 DiT blocks."""
    return built("glm_image", "--ar-layers", "2", "--layers", "2", "--vision-layers", "1")


@pytest.fixture(scope="session")
def bagel() -> Path:
    """BAGEL with 2 of 28 layers."""
    return built("bagel", "--layers", "2", "--vision-layers", "1")


@pytest.fixture
def gpu_memory() -> tuple[float, ...]:
    """GB in use on each GPU before the test."""
    return used_gb(tuple(range(cuda_device_count())))


def left_on_gpus(before_gb: tuple[float, ...]) -> list[float]:
    """GB in use now beyond `before_gb`, of GPUs where that is more than the driver's own."""
    now_gb = used_gb(tuple(range(cuda_device_count())))
    return [now - before for now, before in zip(now_gb, before_gb, strict=True) if now > before + SLACK_GB]


def run(one: Sweep, *arguments: str) -> tuple[int, str]:
    """A sweep on vLLM-Omni; its exit code and what it printed."""
    done = one.run("-m", "engine=vllm_omni", *QUICK, *arguments, timeout_s=SWEEP_S)
    return done.code, done.out + done.err
