"""Processes forked from one that has imported everything, instead of importing it all again.

vLLM-Omni takes 15 to 20 s to import, torch and diffusers 5 s, and an engine is up to four processes that each import
them. Here one server process imports them once per sweep. Engines, their ranks, and the processes that vLLM-Omni itself
spawns are forked from it. This is built on the standard library's fork server, and adds what spawning provides: the
environment, the process group and the output of the requesting process.

The server must not touch CUDA, so that every fork can; it only imports. Linux only, like all fork servers.
"""

import contextlib
import functools
import gc
import importlib
import io
import multiprocessing
import multiprocessing.context
import multiprocessing.process
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing import connection, forkserver, popen_forkserver, reduction, resource_tracker, spawn, util
from pathlib import Path
from typing import Any

from sweep.engines.process import temp_folders

LOG_VARIABLE = "SWEEP_PREIMPORT_LOG"
"""Names the log file for what the server's imports print."""

SHARED_VARIABLE = "SWEEP_FORK_SERVER"
"""`PRELOAD:SOCKET` of a server that another process keeps: commands fork from it instead of each importing PRELOAD."""


UNKNOWN_EXIT = 256
"""Exit code of a process whose end the server did not report; no real one is as high."""

REPORT_S = 5.0
"""Seconds that the server has to report how a process ended; it takes milliseconds."""


class ServerDied(ConnectionError):
    """The server that processes are forked from has ended."""

    def __init__(self) -> None:
        super().__init__("the process that engines are forked from has ended")


class Inherited:
    """An open file, as an argument of a process that is about to be forked; unpickles to its number there."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _detach, (reduction.DupFd(self.fd),)


def _detach(duplicate: Any) -> int:
    return int(duplicate.detach())


@dataclass(frozen=True)
class Surroundings:
    """What a forked process takes over from the process that requested it."""

    environment: dict[str, str]
    group: int  # process group to join; 0: lead a new one
    output: Inherited  # becomes stdout and stderr


class Popen(popen_forkserver.Popen):
    """Forks from the server. The process's module `__main__` is not imported there: targets must be importable.

    Raises ServerDied, and TimeoutError when the server has not forked within the process's `start_timeout_s`. The
    kernel says when the process ends (a pidfd, where there are any), so that a stopped or dead server cannot hide it.
    """

    def _launch(self, process_obj: Any) -> None:
        self._server_there, self._ending = True, None
        surroundings = getattr(process_obj, "surroundings", None)
        if surroundings is None:
            surroundings = Surroundings(dict(os.environ), os.getpgid(0), Inherited(1))
        process_obj._target = functools.partial(_begin, surroundings, process_obj._target)
        process_obj.__dict__.pop("surroundings", None)
        timeout_s = process_obj.__dict__.pop("start_timeout_s", None)
        preparation = spawn.get_preparation_data(process_obj._name)
        for key in ("init_main_from_name", "init_main_from_path", "start_method"):  # a launcher has one of its own
            preparation.pop(key, None)
        buffer = io.BytesIO()
        multiprocessing.context.set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            multiprocessing.context.set_spawning_popen(None)
        try:
            self.sentinel, data = forkserver.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        except (ConnectionError, FileNotFoundError) as error:
            raise ServerDied from error
        files = (os.dup(data), self.sentinel)
        self.finalizer = util.Finalize(self, util.close_fds, files)  # type: ignore[attr-defined]
        try:
            with os.fdopen(data, "wb") as pipe:
                self.pid = _forked(self.sentinel, timeout_s)  # a pipe without a reader yet might not take all
                self._ending = _ending(self.pid)
                pipe.write(buffer.getbuffer())
        except BaseException:
            self.finalizer()  # a process that is forked later all the same finds nothing to do, and ends
            raise
        if self._ending is not None:
            util.Finalize(self, util.close_fds, (self._ending,))  # type: ignore[attr-defined]

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        return self.wait(0.0 if flag == os.WNOHANG else None)

    def wait(self, timeout: float | None = None) -> int | None:
        """Exit code once the process has ended, UNKNOWN_EXIT if the server does not report it; None after `timeout`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            watched = [self.sentinel] if self._server_there else []
            ready = connection.wait([*watched, *([] if self._ending is None else [self._ending])], left)
            if not ready:
                return None
            if self.sentinel in ready or (self._server_there and connection.wait([self.sentinel], REPORT_S)):
                self._read_report()
            else:
                if self._server_there:
                    lose()
                self.returncode = UNKNOWN_EXIT
        return self.returncode

    def _read_report(self) -> None:
        """What the server says of the process's end. If the server has ended, the process may still run."""
        try:
            self.returncode = forkserver.read_signed(self.sentinel)
        except (OSError, EOFError):
            self._server_there = False
            if self._ending is None:
                self.returncode = UNKNOWN_EXIT


def _forked(sentinel: int, timeout_s: float | None) -> int:
    """Process id of the requested process, once the server has imported and forked. See Popen for errors."""
    if not connection.wait([sentinel], timeout_s):
        raise TimeoutError(f"the process that engines are forked from has not answered within {timeout_s:g} s")
    try:
        return int(forkserver.read_signed(sentinel))
    except EOFError as error:
        raise ServerDied from error


def _ending(pid: int) -> int | None:
    """A file that can be read once the process has ended; None where the kernel has none, or it has ended already."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _begin(surroundings: Surroundings, target: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    os.environ.clear()
    os.environ.update(surroundings.environment)
    tempfile.tempdir = None  # the server's may differ
    output = int(surroundings.output)  # type: ignore[call-overload]  # unpickled to a number
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.setpgid(0, surroundings.group)
    fork_instead_of_spawning()
    target(*args, **kwargs)


class Process(multiprocessing.process.BaseProcess):
    """A process of this context."""

    _start_method = "forkserver"

    @staticmethod
    def _Popen(process_obj: Any) -> Popen:
        return Popen(process_obj)


class Context(multiprocessing.context.BaseContext):
    """multiprocessing's context whose processes are forked from the server."""

    _name = "forkserver"
    Process = Process


CONTEXT = Context()


class Forked:
    """The engine's process, with the few methods of subprocess.Popen that its host uses.

    `start_timeout_s` is for the server to answer, which it does once it has imported. Raises what `Popen` raises.
    """

    def __init__(
        self,
        target: Callable[..., None],
        args: tuple[Any, ...],
        environment: Mapping[str, str],
        output: int,
        start_timeout_s: float,
    ) -> None:
        process = CONTEXT.Process(target=target, args=args)
        process.surroundings = Surroundings(dict(environment), 0, Inherited(output))  # type: ignore[attr-defined]
        process.start_timeout_s = start_timeout_s  # type: ignore[attr-defined]
        process.start()
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]  # joined without limit at exit
        self._process = process
        assert process.pid is not None
        self.pid: int = process.pid

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Exit code once it has ended. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("engine", timeout or 0)
        return code


_STARTING, _STARTED = threading.Lock(), threading.Event()

LONGEST_FOLDER = 50
"""Bytes of a temporary folder's path that leave room for the paths of its sockets."""


def start_server(preload: str, environment: Mapping[str, str]) -> None:
    """Start the server, unless it runs already, and have it import module `preload`. Returns at once; forks wait.

    `environment` is set while the server starts (it is what the imports see). SHARED_VARIABLE may spare it.
    """
    with _STARTING:
        _STARTED.set()
        module, _, socket = os.environ.get(SHARED_VARIABLE, "").partition(":")
        if module == preload:
            _use(socket)
            return
        _own_socket_folder()
        before = dict(os.environ)
        os.environ.update(environment)
        quiet_tracker()
        try:
            forkserver.set_forkserver_preload([preload])
            forkserver.ensure_running()
            _start_no_other_server()
        finally:
            os.environ.clear()
            os.environ.update(before)


def address() -> str:
    """Socket of the server that this process has started, for SHARED_VARIABLE."""
    return str(forkserver._forkserver._forkserver_address)  # type: ignore[attr-defined]


def _use(address: str) -> None:
    """Fork from the server at `address`, which outlives this process."""
    server: Any = forkserver._forkserver
    if server._forkserver_address is None:
        quiet_tracker()
        server._forkserver_address = address
        server._forkserver_alive_fd = os.pipe()[1]  # a server of our own would end when this closes
        _start_no_other_server()


def server_started() -> bool:
    """Whether this process has started the server, even if it has ended since."""
    return _STARTED.is_set()


_LOST = threading.Event()


def lost() -> bool:
    """Whether the server was given up, so that nothing can be forked any more."""
    return _LOST.is_set()


def lose() -> None:
    """Give up on a server that does not answer: running processes continue, but nothing is forked. Ours is killed."""
    if _LOST.is_set():
        return
    _LOST.set()
    if (pid := getattr(forkserver._forkserver, "_forkserver_pid", None)) is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)  # a stopped one would keep what it has forked from being reaped
    said = "the process that engines are forked from does not answer; engines now start without it"
    print(f"sweep: {said}", file=sys.stderr)


def await_imports(timeout_s: float) -> None:
    """Wait until the started server has done its imports. Raises ServerDied and TimeoutError."""
    with Path(os.devnull).open("wb") as nowhere, contextlib.suppress(subprocess.TimeoutExpired):
        Forked(_nothing, (), os.environ, nowhere.fileno(), timeout_s).wait(timeout_s)


def _nothing() -> None:
    """Target of a process that is forked only to check that forking works."""


def quiet_tracker() -> None:
    """Make multiprocessing's tracker, once it starts, silently remove what killed engines leave behind."""
    rule = "ignore::UserWarning:multiprocessing.resource_tracker"
    rules = os.environ.get("PYTHONWARNINGS", "")
    if rule not in rules.split(","):
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [rules, rule]))


def _own_socket_folder() -> None:
    """Have multiprocessing put its sockets into a folder that is named after us, and removed when we exit.

    A socket's path holds about 100 bytes, which a long TMPDIR exceeds; the folder is then in /tmp.
    """
    config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
    if config.get("tempdir") is not None:
        return
    long = len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER and Path("/tmp").is_dir()
    folder = temp_folders.make(temp_folders.SERVER, "/tmp" if long else None)
    util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)
    config["tempdir"] = str(folder)


def fork_instead_of_spawning() -> None:
    """Make everything that this process, itself forked from the server, spawns through multiprocessing fork as well."""
    _start_no_other_server()
    contexts: Any = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    contexts["spawn"] = CONTEXT
    multiprocessing.set_start_method("spawn", force=True)


def _start_no_other_server() -> None:
    """Keep the standard library from starting a server when a process is to be forked.

    It would do so in a forked process, although that process knows the address of our server. It would also do so after
    our server has died, without the environment that `start_server` sets.
    """
    server: Any = forkserver._forkserver
    server.ensure_running = resource_tracker.ensure_running


def import_all(modules: Iterable[str]) -> None:
    """In the server: import `modules` and log the seconds of each. A module that cannot be imported is left out.

    The log is removed when all of them were imported.
    """
    log = _redirect()
    failed = False
    gc.disable()  # none of it is garbage, and passes over it take a sixth of the time
    for name in modules:
        start = time.perf_counter()
        try:
            importlib.import_module(name)
        except Exception:
            failed = True
            traceback.print_exc()
        print(f"preload: {name} {time.perf_counter() - start:.2f} s", file=sys.stderr, flush=True)
    gc.enable()
    gc.collect()
    gc.freeze()  # imported objects stay: no collection in a fork scans them, or copies their memory
    if not failed:
        log.unlink(missing_ok=True)


def _redirect() -> Path:
    """Send what imports print to the server's log, never to the terminal; returns its path."""
    log = Path(os.environ[LOG_VARIABLE])
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    return log
