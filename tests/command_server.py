"""Commands forked from a process that has imported what they need: 0.7 s less, hundreds of times.

A command runs as `python -m MODULE …` does in a new interpreter: with its own folder, environment, arguments, streams
and process id. Where PYTHONPATH names more than this checkout, as for faults (tests/faults) and for a module in the
place of another, only libraries are imported beforehand, nothing of this project, so that they act as they would there;
unless all those faults are in what engines alone import.
Tests of what an interpreter reads when it starts, of signals and of terminals start real ones; so does `run` where
variables differ that are read at the start.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("hydra.main", "hydra._internal.utils", "hydra._internal.hydra", "hydra.core.override_parser.overrides_parser"),
    *("numpy", "scipy.special.cython_special", "PIL.Image", "PIL.PngImagePlugin", "msgspec", "psutil", "nvtx"),
    *("rich.console", "rich.live", "rich.table", "rich.progress", "jinja2", "pandas", "seaborn", "skimage.metrics"),
    *("matplotlib.pyplot", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
    *("asyncio", "email.message", "logging.config", "multiprocessing.forkserver", "sqlite3"),
)
"""What commands import sooner or later, except what tests replace."""

PROJECT = (
    *("sweep.cli", "sweep.cli_errors", "sweep.launch", "sweep.run.session", "sweep.report.build"),
    *("sweep.report.plan_table", "sweep.report.plots.draw", "sweep.report.plots.pictures", "sweep.compare.load"),
)
"""What most commands import from the project."""

IN_ENGINES = ("sweep.engines.noop.engine", "sweep.engines.diffusers.")
"""Modules that engines import and commands do not: faults in them find nothing that was imported beforehand."""

ROOT = str(Path(__file__).resolve().parents[1])

SHARED_VARIABLE = "SWEEP_TEST_COMMANDS"
"""Names the socket of a server that another process keeps: what commands need is imported once for all."""

START_S = 120.0
"""Longest wait until a new server listens, seconds; it takes two."""

READ_AT_START = ("PYTHON", "LC_", "LANG", "MPL", "OMP_", "MKL_", "OPENBLAS_")
"""Prefixes of variables that an interpreter reads when it starts, or a library when it is imported."""


class Server:
    """Forks commands, and ends with the process that made it."""

    def __init__(self, path: str = "") -> None:
        """That of another process at `path`; without one, a new one, which need not listen yet."""
        self.variables = dict(os.environ)
        self.places = [ROOT, *_places(self.variables)]
        self.process: subprocess.Popen[bytes] | None = None  # None: that of another process
        self.used_s = 0.0  # processor time of the commands that ended, and of what they waited for
        self.path = path or self._start()

    def _start(self) -> str:
        path = str(Path(tempfile.mkdtemp(prefix="sweep-tests-")) / "commands")
        self.lifeline, theirs = socket.socketpair()  # the server notices when it is closed
        with theirs:
            command = [sys.executable, str(Path(__file__)), path]
            self.process = subprocess.Popen(command, stdin=theirs.fileno(), start_new_session=True)
        atexit.register(self.close)
        return path

    def close(self) -> None:
        """End it."""
        self.lifeline.close()
        if self.process:
            self.process.wait(timeout=60)

    def serves(self, variables: Mapping[str, str]) -> bool:
        """Whether a fork has what a new interpreter with these variables would have read when it started."""
        return _at_start(variables) == _at_start(self.variables)

    def _as_it_is(self, places: list[str]) -> bool:
        """Whether a command finds all that it imports of the project unchanged."""
        if places[1:] != self.places:
            return places == self.places
        faults = Path(places[0]) / "faults.json"
        return faults.is_file() and all(name.startswith(IN_ENGINES) for name in json.loads(faults.read_text()))

    def run(
        self, module: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str], timeout_s: float
    ) -> "subprocess.CompletedProcess[str]":
        """As subprocess.run of `python -m module` with text and captured output. Raises TimeoutExpired."""
        command = [sys.executable, "-m", module, *arguments]
        request = {"command": command, "folder": str(folder), "variables": dict(variables)}
        data = json.dumps(request).encode()
        path = _with_project(self.path) if self._as_it_is(_places(variables)) else self.path
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, self._connected(path) as link:
            socket.send_fds(link, [len(data).to_bytes(8, "little")], [out.fileno(), err.fileno()])
            link.sendall(data)
            with link.makefile("r") as answers:
                pid = int(answers.readline())
                if not select.select([link], [], [], timeout_s)[0]:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(command, timeout_s)
                code, used_s = answers.readline().split()
                self.used_s += float(used_s)
            texts = [_text(file) for file in (out, err)]
        return subprocess.CompletedProcess(command, int(code), *texts)

    def _connected(self, path: str) -> socket.socket:
        """A connection to the server at `path`, once it listens. Raises OSError, at once when it has ended."""
        until = time.monotonic() + START_S
        while True:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.connect(path)
                return link
            except (FileNotFoundError, ConnectionRefusedError):
                link.close()
                if time.monotonic() > until or (self.process and self.process.poll() is not None):
                    raise
                time.sleep(0.02)


@functools.cache
def server() -> Server:
    """That of all test processes, or of this one alone, started at the first call."""
    return Server(os.environ.get(SHARED_VARIABLE, ""))


def for_all() -> str:
    """SHARED_VARIABLE for test processes that are to use one server, which is started, and ends with this process."""
    return Server().path


def run(
    module: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str], timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """`python -m module` with text and captured output, forked where that is the same. Raises TimeoutExpired."""
    if server().serves(variables):
        return server().run(module, arguments, folder, variables, timeout_s)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command, cwd=folder, env=dict(variables), capture_output=True, text=True, timeout=timeout_s, check=False
    )


def _at_start(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(READ_AT_START) and name != "PYTHONPATH"}


def _places(variables: Mapping[str, str]) -> list[str]:
    return [place for place in variables.get("PYTHONPATH", "").split(os.pathsep) if place]


def _with_project(path: str) -> str:
    """Socket of the forks of a server at `path` that have imported the project too."""
    return f"{path}-with-project"


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode("utf-8"))


def _serve(path: str) -> socket.socket:
    """Fork for each connection. Returns only in the forks, with their connection. Two processes do it: see PROJECT."""
    gc.disable()  # nothing that is imported is garbage
    for name in LIBRARIES:
        importlib.import_module(name)
    _warm_up_parsers()
    if os.fork() == 0:
        path = _with_project(path)
        _import_project()
    gc.enable()
    gc.collect()
    gc.freeze()  # forks need not walk through it, nor copy it
    lifeline = socket.socket(fileno=0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for the forks
        while True:
            ready, _, _ = select.select([listener, lifeline], [], [])
            if lifeline in ready:
                Path(path).unlink()
                with contextlib.suppress(OSError):  # the last one removes it
                    Path(path).parent.rmdir()
                raise SystemExit(0)
            link, _ = listener.accept()
            if os.fork() == 0:
                break
            link.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, lifeline.detach())
    os.close(nowhere)
    return link


def _warm_up_parsers() -> None:
    """They keep what they find out about their grammars."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    OverridesParser.create().parse_overrides(["a=[b,c]", "d.e=0.3", "+f=1,2", "hydra.run.dir='/a/b c'"])
    OmegaConf.to_container(OmegaConf.create({"a": "x/${b.c}", "b": {"c": "${oc.env:d,e}"}}), resolve=True)


def _import_project() -> None:
    sys.path.insert(0, ROOT)
    try:
        for name in PROJECT:
            importlib.import_module(name)
    except Exception:
        traceback.print_exc()  # commands will say it too
    else:
        _warm_up()
    sys.path.remove(ROOT)


def _warm_up() -> None:
    """Let Hydra find its plugins, prepare the page's template, and read and merge the files that most commands name.

    They are those of this checkout, which tests leave as they are. Commands that look for files in further places read
    all of them.
    """
    from hydra import compose, initialize_config_dir

    from sweep import composing
    from sweep.config.run import CONF
    from sweep.report.templates import template

    read: dict[tuple[str, ...], bytes] = {}
    merged: dict[tuple[str, ...], composing.Merged] = {}
    made = composing.ReadOnce.__init__

    def begin_with_these(self: Any, config_search_path: Any) -> None:
        made(self, config_search_path)
        self.read, self.merged = read, merged

    composing.ReadOnce.__init__ = begin_with_these  # type: ignore[method-assign]
    composing.compose_less()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for chosen in ([], ["engine=noop"], ["model=tiny_qwen_image"], ["model=tiny_glm_image_random"]):
            for features in ("[]", "teacache", "cache_dit", "cfg_parallel", "vae_slicing"):
                compose("config", [*chosen, f"feature={features}"])
    template("sweep.report.page", "report.html.j2")


def _command_of(link: socket.socket) -> dict[str, Any]:
    """Fork once more: here, wait for the command and report its exit code; there, return what is asked for."""
    head, files, _, _ = socket.recv_fds(link, 8, 2)
    data = b""
    while len(data) < int.from_bytes(head, "little"):
        data += link.recv(1 << 16)
    if pid := os.fork():
        for file in files:
            os.close(file)
        link.sendall(f"{pid}\n".encode())
        _, status, used = os.wait4(pid, 0)
        with contextlib.suppress(OSError):
            link.sendall(f"{os.waitstatus_to_exitcode(status)} {used.ru_utime + used.ru_stime}\n".encode())
        os._exit(0)
    link.close()
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
        os.close(file)
    request: dict[str, Any] = json.loads(data)
    return request


def _become(command: Sequence[str], folder: str, variables: Mapping[str, str]) -> str:
    """Give this process what a new interpreter has. Returns the module to run."""
    _, _, module, *arguments = command
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    tempfile.tempdir = None  # chosen anew
    sys.argv = ["-m", *arguments]
    sys.orig_argv[:] = command
    places = _places(variables)
    sys.path[:] = [folder, *places, *sys.path[1:]]  # the first is this file's folder
    sites = (Path(place) / "sitecustomize.py" for place in places)
    if site := next((site for site in sites if site.is_file()), None):
        runpy.run_path(str(site))
    return module


def _run(module: str) -> None:
    """Run the module and end with its exit code, in the interpreter's own way unless all that is left is to exit.

    Unloading all the libraries that the server has imported takes 0.15 s a command. What a command may rely on comes
    first: its threads end, its exit handlers are called, and its streams are flushed.
    """
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        raise SystemExit(code) from None  # the interpreter says what it could not write
    os._exit(code & 0xFF)


if __name__ == "__main__":
    _run(_become(**_command_of(_serve(sys.argv[1]))))
