"""EngineHost: the parent's side of an engine process, with a time limit on every command.

Starts `sweep.engines.process.child` as leader of its own process group, talks to it over a pipe, and turns every
way it can end (exception, kill, out of memory, hang) into an EngineFailure that names the cause. Knows nothing
of cells.
"""

import contextlib
import datetime
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

from profiling import bounded, ranges
from profiling.child_environment import child_environment
from sweep.engines import registry
from sweep.engines.process import forkserver, temp_folders
from sweep.engines.process.failures import (
    ERROR_LINE,
    OOM_SIGNS,
    RAN_OUT,
    SECOND_HAND,
    EngineFailure,
    cause_of,
    one_line,
    shortage,
)
from sweep.engines.process.nsys_session import Recorded
from sweep.engines.protocol import EngineError, EngineSpec, Output, Request
from sweep.engines.serving.settings import ServeSettings
from sweep.machine.devices import visible_as

CLOSE_TIMEOUT_S = 5.0

GPU_CLOSE_TIMEOUT_S = 20.0  # several processes have to free their memory

KILL_TIMEOUT_S = 10.0  # what is killed ends sooner, unless it sleeps uninterruptibly: in a driver, on a dead disk

NOT_ENDED = "not_ended"
"""Cause of a failure: the engine had to be killed, and is still there."""


class EngineHost:
    """One engine process. Use as a context manager: leaving it ends the process and all its ranks.

    A forked engine waits until the imports are done, for `start_timeout_s` at most. Raises EngineFailure.
    """

    def __init__(self, spec: EngineSpec, start_timeout_s: float) -> None:
        self.spec = spec
        self.load_parts: dict[str, float] = {}  # seconds of parts of the load, as far as the engine reports them
        self.process: subprocess.Popen[bytes] | forkserver.Forked | Recorded
        self.how = "started under nsys" if spec.profile == "nsys" else "forked" if forks(spec) else "spawned"
        self.started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._log_from = 0  # byte of the log where the output of the last command begins
        self._stuck = False  # it was killed, and is still there
        with _told_as_failure(), contextlib.ExitStack() as undo:
            # What the engine and its ranks print; closed with the host.
            self.log: BinaryIO = undo.enter_context(tempfile.TemporaryFile(prefix="sweep-engine-"))
            ours, theirs = bounded.pipe()
            self._pipe = undo.enter_context(ours)
            with theirs:
                start = _record if spec.profile == "nsys" else _fork if forks(spec) else _spawn
                self.process = start(spec, theirs, self.log.fileno(), start_timeout_s)
            undo.pop_all()
        temp_folders.note_engine(self.pid)

    def __enter__(self) -> "EngineHost":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the engine, which is also its process group."""
        return self.process.pid

    def load(self, timeout_s: float) -> float:
        """Load the engine; returns seconds taken. Raises EngineFailure."""
        start = time.perf_counter()
        self.load_parts = dict(self._ask("loading the engine", timeout_s, 0, "load", self.spec) or {})
        return time.perf_counter() - start

    def generate(self, requests: Sequence[Request], folder: Path | None, timeout_s: float, doing: str) -> Output:
        """Generate one batch. Raises EngineFailure."""
        (output,) = self.stream(requests, folder, timeout_s, doing)
        return output

    def stream(
        self, requests: Sequence[Request], folder: Path | None, timeout_s: float, doing: str
    ) -> Iterator[Output]:
        """Generate, and yield each output as it is handed over; `timeout_s` is for each. Raises EngineFailure."""
        self._send(doing, timeout_s, self.log_size(), "generate", list(requests), folder)
        while True:
            kind, value = self._answer(doing, timeout_s)
            if kind != "record":
                return
            yield value

    def serve(self, settings: ServeSettings, timeout_s: float) -> str:
        """Have the engine answer requests over HTTP; returns its URL. Raises EngineFailure."""
        url: str = self._ask("starting the server", timeout_s, self.log_size(), "serve", settings)
        return url

    def served(self, timeout_s: float | None) -> Iterator[Output]:
        """The result of each batch while it serves, until `stop_serving`. Raises EngineFailure.

        `timeout_s` is for the whole wait for one, so it is at least as long as the load is silent; None: no limit.
        """
        doing = "serving"
        while True:
            kind, value = self._answer(doing, timeout_s)
            if kind != "record":
                return
            yield value

    def stop_serving(self, timeout_s: float) -> None:
        """End the server, after the batch that it generates; `served` ends then. Raises EngineFailure."""
        self._send("stopping the server", timeout_s, self._log_from, "stop")  # what it printed while serving counts

    def trace(self, folder: Path | None, timeout_s: float) -> None:
        """Make the engine start recording itself into `folder`, or stop and write (None). Raises EngineFailure."""
        doing = "writing the profiler's trace" if folder is None else "starting the profiler"
        self._ask(doing, timeout_s, self.log_size(), "trace", folder)

    def log_size(self) -> int:
        """Bytes printed so far."""
        return os.fstat(self.log.fileno()).st_size

    def printed_last(self, size: int = 4096) -> list[str]:
        """Lines that it printed since its last command, of the last `size` bytes."""
        return self._last_lines(size)

    def close(self) -> None:
        """End the engine and forget its log."""
        self.end()
        self._pipe.close()
        self.log.close()

    def end(self) -> None:
        """Ask the engine to end, then kill the rest of its process group; safe to call twice."""
        if not self._stuck and self.process.poll() is None:
            try:
                self._pipe.send_within(("close",), CLOSE_TIMEOUT_S)
                self.process.wait(CLOSE_TIMEOUT_S if self.spec.device == "cpu" else GPU_CLOSE_TIMEOUT_S)
            except (OSError, subprocess.TimeoutExpired, ValueError):
                pass
        self.kill()

    def kill(self) -> bool:
        """Kill the whole process group; returns whether the engine ended within KILL_TIMEOUT_S."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                if self.process.poll() is None:  # it was forked just now and leads no group yet
                    os.kill(self.process.pid, signal.SIGKILL)
        if isinstance(self.process, Recorded):
            self.process.end_tool()
        try:
            self.process.wait(0.0 if self._stuck else KILL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            if not self._stuck:
                warning = f"an engine's process ({self.process.pid}) could not be ended and may still use its devices"
                print(f"sweep: {warning}", file=sys.stderr)
            self._stuck = True
            return False
        self._stuck = False
        temp_folders.forget_engine(self.process.pid)
        temp_folders.clear(self.process.pid)
        return True

    def _ended_for(self, cause: str, reason: str, then: str = "") -> EngineFailure:
        """Kill the engine for a reason; the failure says if it cannot be ended, else `then`."""
        if self.kill():
            return EngineFailure(cause, reason + then)
        return EngineFailure(NOT_ENDED, f"{reason}, and its process {self.process.pid} could not be ended")

    def _ask(self, doing: str, timeout_s: float, log_from: int, *command: Any) -> Any:
        self._send(doing, timeout_s, log_from, *command)
        return self._answer(doing, timeout_s)[1]

    def _send(self, doing: str, timeout_s: float, log_from: int, *command: Any) -> None:
        try:
            self._pipe.send_within(command, timeout_s)
        except TimeoutError:
            raise self._ended_for("timeout", _no_answer(doing, timeout_s), ": killed") from None
        except OSError as error:
            raise self._death(doing) from error
        self._log_from = log_from

    def _answer(self, doing: str, timeout_s: float | None) -> tuple[str, Any]:
        """The next "ok" or "record" with its value. Raises EngineFailure."""
        try:
            kind, value = self._pipe.recv_within(timeout_s)
        except TimeoutError:
            raise self._ended_for("timeout", _no_answer(doing, timeout_s or 0.0), ": killed") from None
        except (EOFError, OSError) as error:
            raise self._death(doing) from error
        if kind != "error":
            return kind, value
        assert isinstance(value, EngineError)
        text = self._root_cause(value)
        cause = cause_of(text)
        prefix = RAN_OUT.get(cause, "failed while")
        alive = cause == "exception" and value.alive
        if not alive:
            self.end()
        raise EngineFailure(cause, f"{prefix} {doing}: {one_line(text)}", alive)

    def _death(self, doing: str) -> EngineFailure:
        try:
            code = self.process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return self._ended_for("crash", f"the engine closed its pipe while {doing}")
        self.kill()
        sign = self._out_of_memory_line()
        if sign:
            return EngineFailure("oom", f"out of memory while {doing}: {sign}")
        if code == forkserver.UNKNOWN_EXIT:
            why = "how is unknown, because the process that it was forked from does not say"
            return EngineFailure("crash", f"the engine ended while {doing}; {why}")
        if code >= 0:
            return EngineFailure("crash", f"the engine exited with code {code} while {doing}")
        name = signal.Signals(-code).name
        hint = " (killed from outside, or by the kernel for lack of memory)" if -code == signal.SIGKILL else ""
        return EngineFailure("crash", f"the engine was ended by {name} while {doing}{hint}")

    def _root_cause(self, error: EngineError) -> str:
        """The error, or its cause in another process: vLLM-Omni reports only that a worker failed."""
        text = f"{error.kind}: {error.message}" if error.message else error.kind
        if error.message and not any(phrase in text for phrase in SECOND_HAND):
            return text
        found = [match.group(1) for line in self._last_lines(65_536) if (match := ERROR_LINE.search(line))]
        return next((line for line in found if not any(phrase in line for phrase in SECOND_HAND)), text)

    def _out_of_memory_line(self) -> str:
        """The last line about memory of a dead engine ("" if none): C++ ends the process without an exception."""
        lines = self._last_lines(4096)[-20:]
        return next((one_line(text) for text in reversed(lines) if any(s in text.lower() for s in OOM_SIGNS)), "")

    def _last_lines(self, size: int) -> list[str]:
        """Lines that the last command left within the last `size` bytes of the log; none when it cannot be read.

        The engine keeps printing at the position that its file shares with ours, so that position is not moved.
        """
        try:
            end = self.log_size()
            start = max(self._log_from, end - size)
            return os.pread(self.log.fileno(), end - start, start).decode(errors="replace").splitlines()
        except (OSError, ValueError):
            return []


def _no_answer(doing: str, timeout_s: float) -> str:
    return f"no answer within {timeout_s:g} s while {doing}"


def preimport(spec: EngineSpec) -> None:
    """Start importing what this engine's processes are forked from, without waiting, if they are forked (`forks`)."""
    environment = {**_environment(spec), forkserver.LOG_VARIABLE: str(_log_of_imports())}
    forkserver.start_server(registry.kind(spec.engine).preload[spec.device], environment)


def forget_imports() -> None:
    """The imports were interrupted, so what they printed is useless."""
    with contextlib.suppress(OSError):
        _log_of_imports().unlink(missing_ok=True)


def _log_of_imports() -> Path:
    """What the imports print; exists while they run and after they failed."""
    return Path(tempfile.gettempdir()) / f"sweep-preimport-{os.getpid()}.log"


def forks(spec: EngineSpec) -> bool:
    """Whether this engine's processes are forked from one that has imported everything."""
    possible = can_fork(spec.engine, spec.device) and not ranges.attached() and not forkserver.lost()
    return spec.fork and possible and spec.profile != "nsys"


def can_fork(engine: str, device: str) -> bool:
    """Whether they can be forked while no profiling tool is attached: none of them sees forked processes."""
    return device in registry.kind(engine).preload and sys.platform == "linux"


@contextlib.contextmanager
def _told_as_failure() -> Iterator[None]:
    """Turns the reason why a process could not be started into an EngineFailure."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if lacking := shortage(error):
            cause, what = lacking
            raise EngineFailure(cause, f"the engine's process could not be started: {what}") from error
        if not isinstance(error, OSError):
            raise
        reason = f"the engine's process could not be started: {error}"
        if isinstance(error, forkserver.ServerDied | TimeoutError):
            log = _log_of_imports()
            reason += f" (its imports are logged in {log})" if log.exists() else ""
            reason += "; engine.fork=false starts engines without it"
        raise EngineFailure("timeout" if isinstance(error, TimeoutError) else "load", reason) from error


def _fork(spec: EngineSpec, pipe: Connection, output: int, timeout_s: float) -> forkserver.Forked:
    from sweep.engines.process.child import main_forked

    preimport(spec)
    try:
        return forkserver.Forked(main_forked, (pipe, os.getpid()), _environment(spec), output, timeout_s)
    except TimeoutError:
        forkserver.lose()
        raise


def _spawn(spec: EngineSpec, pipe: Connection, output: int, timeout_s: float) -> "subprocess.Popen[bytes]":
    """`timeout_s` is not needed, because the imports are part of the load."""
    os.set_inheritable(pipe.fileno(), True)
    return subprocess.Popen(
        [sys.executable, "-m", "sweep.engines.process.child", str(pipe.fileno()), str(os.getpid())],
        pass_fds=(pipe.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=_environment(spec),
    )


def _record(spec: EngineSpec, pipe: Connection, output: int, timeout_s: float) -> Recorded:
    return Recorded([str(os.getpid())], pipe.fileno(), output, _environment(spec), spec.device, timeout_s)


def _environment(spec: EngineSpec) -> dict[str, str]:
    """For the engine's process: ours, its devices, and a PYTHONPATH that finds this package from any folder."""
    environment = child_environment()
    if spec.device == "cpu":
        environment |= {"OMP_NUM_THREADS": str(spec.threads_per_rank), "CUDA_VISIBLE_DEVICES": ""}
    elif spec.gpu_ids:
        environment["CUDA_VISIBLE_DEVICES"] = visible_as(spec.gpu_ids)
    return environment
