"""Sweeps that go wrong on purpose, through the real command line.

A fault is a piece of code that runs in a real process of the sweep right after one of its modules was imported:
`sitecustomize` in a folder on PYTHONPATH, which engines inherit. Production code has no hooks for it.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweep.engines.process.forkserver import SHARED_VARIABLE
from sweep.machine.leases import LEASES_VARIABLE
from sweep.results.folder import SweepFolder
from tests.conftest import Finished, environment, finished

NOOP = ("engine=noop", "plots=false", "aa=0")
"""A sweep whose engine does nothing and starts at once; cells of one `engine.threads_per_rank` share an engine."""

LOADER = """
import importlib.abc, importlib.machinery, json, pathlib, sys

class After(importlib.abc.MetaPathFinder):
    faults = json.loads(pathlib.Path(__file__).with_name("faults.json").read_text())

    def find_spec(self, name, path=None, target=None):
        code = self.faults.pop(name, None)
        if code is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            exec(compile(code, f"<fault in {name}>", "exec"), module.__dict__)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, After())
for name in [name for name in After.faults if name in sys.modules]:  # forked from a process that has imported it
    exec(compile(After.faults.pop(name), f"<fault in {name}>", "exec"), sys.modules[name].__dict__)
"""


def path_with(faults: dict[str, str], folder: Path, path: str) -> str:
    """This PYTHONPATH with `folder` in front, which is made to run `faults` (code by module)."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(LOADER)
    (folder / "faults.json").write_text(json.dumps(faults))
    return os.pathsep.join([str(folder), path])


def hear_a_hang_up() -> None:
    """In a new process: SIGHUP does what it usually does, also where the tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Sweep:
    """A sweep's folder, and commands that run in it with faults."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.folder = base / "sweep"
        self.flag = base / "flag"  # for faults that signal the test, or happen once
        self.faults: dict[str, str] = {}
        (base / "tmp").mkdir()
        self.environment = {"TMPDIR": str(base / "tmp"), LEASES_VARIABLE: str(base / "leases")}
        self.processes: list[subprocess.Popen[str]] = []
        self.own_fork_server = False  # for tests of what happens to it

    def inject(self, module: str, code: str) -> None:
        """Run `code` in `module` once it is imported, in every process; `FLAG` is the flag's path."""
        self.own_fork_server |= module == "sweep.engines.process.forkserver"
        self.faults[module] = f"import pathlib\nFLAG = pathlib.Path({str(self.flag)!r})\n{code}"

    def command(self, module: str, arguments: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        """Arguments of `python -m MODULE …` in this folder, and its environment with the faults injected so far."""
        given = [*arguments]
        if module == "sweep" and not any(".dir=" in argument for argument in given):
            given.append(f"hydra.sweep.dir={self.folder}")
        variables = environment() | self.environment
        if self.own_fork_server:
            variables.pop(SHARED_VARIABLE, None)
        if self.faults:
            variables["PYTHONPATH"] = path_with(self.faults, self.base / "faults", variables["PYTHONPATH"])
        return given, variables

    def start(self, *arguments: str, module: str = "sweep", **options: Any) -> subprocess.Popen[str]:
        """Start `python -m sweep …` in a new interpreter."""
        given, variables = self.command(module, arguments)
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        streams["preexec_fn"] = hear_a_hang_up
        command = [sys.executable, "-m", module, *given]
        process = subprocess.Popen(command, cwd=self.base, env=variables, **streams | options)
        self.processes.append(process)
        return process

    def run(self, *arguments: str, module: str = "sweep", timeout_s: float = 240) -> Finished:
        """The same, until it ends."""
        given, variables = self.command(module, arguments)
        done = finished(module, given, self.base, variables, timeout_s)
        if module == "sweep":
            self.check_logs()
        return done

    def check_logs(self) -> None:
        """However a cell failed, its engine.log says what was started and how it ended."""
        for path in self.folder.glob("*/result.json"):
            result = json.loads(path.read_text(encoding="utf-8"))
            if result.get("state") == "error":
                log = (path.parent / "engine.log").read_text(encoding="utf-8", errors="replace")
                assert "[sweep] " in log, path
                assert result["reason"] in log, path

    def wait_until(self, process: "subprocess.Popen[str]", condition: Callable[[], Any]) -> Any:
        """The first true value of `condition()` while the sweep runs."""
        value = wait_for(lambda: condition() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        return value

    def rows(self) -> dict[str, dict[str, str]]:
        """summary.csv by cell label."""
        with (self.folder / "summary.csv").open() as handle:
            return {row["cell"]: row for row in csv.DictReader(handle)}

    def statuses(self) -> dict[str, tuple[str, str]]:
        """Status and code of the reason of every cell."""
        return {label: (row["status"], row["reason_code"]) for label, row in self.rows().items()}

    def reason(self, label: str) -> str:
        """The sentence that explains a cell's status to people: tests check its facts and not its words."""
        return self.rows()[label]["reason"]

    def _codes(self, label: str, kind: str) -> list[str]:
        report = json.loads((self.folder / "report.json").read_text())
        return [one["code"] for cell in report["cells"] if cell["cell"] == label for one in cell[kind]]

    def findings(self, label: str) -> list[str]:
        """Codes of everything that decides a cell's status."""
        return self._codes(label, "findings")

    def notes(self, label: str) -> list[str]:
        """Codes of a cell's notes."""
        return self._codes(label, "notes")

    def doubts(self, label: str) -> list[str]:
        """Codes of why a cell's numbers cannot be trusted."""
        return self._codes(label, "doubts")

    def stage(self, label: str) -> str:
        """What a cell was doing before it ended: loading, warm-up, running or analysing."""
        cells = json.loads((self.folder / "plan.json").read_text())["cells"]
        key = next(cell["key"] for cell in cells if cell["label"] == label)
        return [event["state"] for event in self.events("cell") if event["key"] == key][-2]

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_text())

    def events(self, name: str) -> list[dict[str, Any]]:
        """Events of one kind so far."""
        return [event for event in SweepFolder(self.folder).events()[0] if event["event"] == name]

    def engine_pids(self) -> list[int]:
        """Process ids of all engines that were started, in order."""
        return [event["pid"] for event in self.events("engine_start")]

    def cell_path(self, label: str) -> Path:
        """Folder of the cell with this label."""
        cells = json.loads((self.folder / "plan.json").read_text())["cells"]
        key = next(cell["key"] for cell in cells if cell["label"] == label)
        return next(path for path in self.folder.iterdir() if path.name.endswith(key[:8]))

    def requests(self, label: str) -> list[dict[str, str]]:
        """requests.csv of a cell."""
        with (self.cell_path(label) / "requests.csv").open() as handle:
            return list(csv.DictReader(handle))

    def is_running(self, label: str) -> bool:
        """Whether the cell with this label is generating measured batches."""
        plan = self.folder / "plan.json"
        cells = json.loads(plan.read_text())["cells"] if plan.exists() else []
        keys = [cell["key"] for cell in cells if cell["label"] == label]
        return any(e["key"] in keys and e["state"] == "running" for e in self.events("cell"))


def numbers(text: str) -> list[int]:
    """Whole numbers in a text, in order: which batch of how many, after how many seconds."""
    return [int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w.]*\w)", text)]


def wait_for(condition: Callable[[], Any], timeout_s: float = 240.0) -> Any:
    """The first true value of `condition()`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"nothing within {timeout_s} s")


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def group_alive(leader: int) -> list[int]:
    """Processes that still belong to the process group of `leader`."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == leader and alive(pid):
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


@pytest.fixture
def sweep(tmp_path: Path):
    """A sweep to break; what it leaves running is ended after the test."""
    one = Sweep(tmp_path)
    yield one
    for process in one.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for pid in one.engine_pids():
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
