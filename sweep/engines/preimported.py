"""Processes forked from one that has imported everything, instead of importing it all again.

vLLM-Omni takes 15 to 20 s to import, and an engine is two to four processes that import it one after the
other. Here one server process imports it once a sweep; engines, and the processes that vLLM-Omni itself spawns in
them, are forked from it. Built on the standard library's fork server, to which it adds what
spawning gives: the environment, the process group and the output of the process that asks.

The server must not touch CUDA, so that every fork can: it only imports. Linux, as fork servers are.
"""

import functools
import io
import multiprocessing
import multiprocessing.context
import multiprocessing.process
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver, popen_forkserver, reduction, resource_tracker, spawn, util
from typing import Any

LOG_VARIABLE = "SWEEP_PREIMPORT_LOG"
"""Names the file that takes what the server's imports print."""


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
    """What a forked process takes over from the one that asked for it."""

    environment: dict[str, str]
    group: int  # process group to join; 0: lead a new one
    output: Inherited  # becomes stdout and stderr


class Popen(popen_forkserver.Popen):
    """Forks from the server. The process's module `__main__` is not imported there: targets must be importable."""

    def _launch(self, process_obj: Any) -> None:
        surroundings = getattr(process_obj, "surroundings", None)
        if surroundings is None:
            surroundings = Surroundings(dict(os.environ), os.getpgid(0), Inherited(1))
        process_obj._target = functools.partial(_begin, surroundings, process_obj._target)
        process_obj.__dict__.pop("surroundings", None)
        preparation = spawn.get_preparation_data(process_obj._name)
        for key in ("init_main_from_name", "init_main_from_path"):
            preparation.pop(key, None)
        buffer = io.BytesIO()
        multiprocessing.context.set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            multiprocessing.context.set_spawning_popen(None)
        self.sentinel, data = forkserver.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        files = (os.dup(data), self.sentinel)
        self.finalizer = util.Finalize(self, util.close_fds, files)  # type: ignore[attr-defined]
        with os.fdopen(data, "wb") as pipe:
            pipe.write(buffer.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


AFTER_FORK: list[Callable[[], None]] = []
"""Called in every fork once it has its environment, for what read the environment when it was imported."""


def _begin(surroundings: Surroundings, target: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    os.environ.clear()
    os.environ.update(surroundings.environment)
    output = int(surroundings.output)  # type: ignore[call-overload]  # unpickled to a number
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.setpgid(0, surroundings.group)
    fork_instead_of_spawning()
    for function in AFTER_FORK:
        function()
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
    """The engine's process, with the few methods of subprocess.Popen that its host uses."""

    def __init__(
        self, target: Callable[..., None], args: tuple[Any, ...], environment: Mapping[str, str], output: int
    ) -> None:
        process = CONTEXT.Process(target=target, args=args)
        process.surroundings = Surroundings(dict(environment), 0, Inherited(output))  # type: ignore[attr-defined]
        process.start()
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


_STARTING = threading.Lock()

QUIET_TRACKER = "ignore::UserWarning:multiprocessing.resource_tracker"
"""The tracker of shared memory and semaphores clears away what killed engines leave, and need not say so."""


def start_server(preload: str, environment: Mapping[str, str]) -> None:
    """Start the server, unless it runs, importing module `preload`; returns at once, forks wait for the import.

    `environment` is set while the server starts (it is what the imports see).
    """
    with _STARTING:
        before = dict(os.environ)
        os.environ.update(environment)
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), QUIET_TRACKER]))
        try:
            forkserver.set_forkserver_preload([preload])
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)


def fork_instead_of_spawning() -> None:
    """Have all that this process, itself forked from the server, spawns through multiprocessing forked as well."""
    server: Any = forkserver._forkserver
    # The standard library would start another server here, although it knows the address of ours.
    server.ensure_running = resource_tracker.ensure_running
    contexts: Any = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    contexts["spawn"] = CONTEXT
    multiprocessing.set_start_method("spawn", force=True)
