"""Shared by all tests: the real command line, in a folder of the test's own."""

import atexit
import gc
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweep.composing import compose_less
from sweep.engines.process.forkserver import SHARED_VARIABLE
from sweep.engines.process.host import can_fork
from tests import command_server, fork_server

ROOT = Path(__file__).resolve().parents[1]

# Test processes must not wait for each other's devices, nor for those of other runs and sweeps.
os.environ["SWEEP_LEASES"] = str(Path(tempfile.gettempdir()) / f"sweep-tests-leases-{os.getpid()}")
atexit.register(shutil.rmtree, os.environ["SWEEP_LEASES"], ignore_errors=True)

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every command would compile the framework anew
sys.dont_write_bytecode = False  # as would this process the tests, whose assertions pytest rewrites

LONGEST = (
    *("faults/test_engine.py", "test_loads_cli.py", "faults/test_loads.py", "test_sweep_cli.py"),
    *("compare/test_real.py", "faults/test_interrupts.py", "report/test_plots.py", "run/test_profiler.py"),
    *("test_cli_errors.py", "test_texts_cli.py", "test_notebook.py", "faults/test_files.py"),
    *("run/test_client.py", "engines/test_served_vllm_omni.py", "run/test_budget.py", "test_python.py"),
    *("plan/test_outlook.py", "test_load_report_cli.py", "faults/test_surroundings.py", "report/test_chromium.py"),
    *("test_endpoint_cli.py", "profiling/test_telemetry.py", "report/test_example.py", "engines/test_cache_dit.py"),
    *("faults/test_profiles.py", "predict/test_measure.py", "profiling/test_doctor.py", "test_recomputed.py"),
    *("faults/test_processes.py", "test_phases_from_outside.py", "engines/test_diffusers_engine.py", "test_slips.py"),
    *("faults/test_limits.py", "checkpoints/test_training.py", "plan/test_add_ons.py", "predict/test_counts.py"),
)
"""Files that take longest come first, the longest of them foremost: with several at a time, what is left for the end is
short, and no process runs the last file alone."""


def pytest_configure(config: pytest.Config) -> None:
    """Where there are several test processes, start what they all fork commands and engines from, before any starts."""
    if config.getoption("numprocesses", None):
        os.environ[command_server.SHARED_VARIABLE] = command_server.for_all()
        if can_fork("diffusers", "cpu"):
            os.environ[SHARED_VARIABLE] = fork_server.for_all()
    else:
        compose_less()  # as commands do


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Without garbage collection, and with none later of what was imported: there is much of it, and it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; tests of a file stay as they are."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@dataclass(frozen=True)
class Finished:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


def to_run(out: str) -> tuple[int, ...]:
    """Numbers of the line that says what is to run: cells, then those kept from before or those skipped, and so on."""
    line = next(line for line in out.splitlines() if "to run" in line)
    return tuple(int(number) for number in re.findall(r"\d+", line.partition(" (")[0]))


def sweep_command(*arguments: str) -> list[str]:
    """`python -m sweep …` with this interpreter."""
    return [sys.executable, "-m", "sweep", *arguments]


def environment() -> dict[str, str]:
    """The test's environment with this checkout importable from any folder, and engines forked from a shared server."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    server = {SHARED_VARIABLE: fork_server.shared()} if can_fork("diffusers", "cpu") else {}
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "160", **server}


def finished(
    module: str,
    arguments: Iterable[str],
    folder: Path,
    variables: Mapping[str, str] | None = None,
    timeout_s: float = 600,
) -> Finished:
    """Run `python -m MODULE …` in this folder. Raises subprocess.TimeoutExpired."""
    done = command_server.run(module, [*arguments], folder, variables or environment(), timeout_s)
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Finished]:
    """Run `python -m sweep` with these arguments in an empty folder."""

    def run(*arguments: str, timeout_s: float = 600, module: str = "sweep") -> Finished:
        return finished(module, arguments, tmp_path, timeout_s=timeout_s)

    return run
