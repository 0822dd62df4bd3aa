"""An engine recorded by Nsight Systems: its process runs under `nsys launch`, and collections start and stop here.

A session (`nsys launch`, then `nsys start` and `nsys stop` around what is recorded) needs no code in the engine,
sees every process that the engine spawns, and records cell after cell of one engine. The engine gets its pipe and its
log over a socket and not by inheritance, because nsys's own processes would keep them open when the engine is gone.
Knows nothing of cells or of what a trace contains.
"""

import array
import contextlib
import functools
import itertools
import os
import re
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from profiling import bounded, ranges
from profiling.child_environment import child_environment
from profiling.nsys.nsys_cli import Nsys, NsysError, end_agents, find, last_line, run
from sweep.engines.process import temp_folders

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 900.0  # writing the trace takes about a second for a thousand ranges, minutes for millions of kernels
CHECK_TIMEOUT_S = 60.0
SIGNALLED = 128
"""`nsys launch` ends with this plus the number of the signal that ended the engine."""

SESSION = "sweep-{pid}-{number}"
"""Name of an nsys session: the process that began it, and its number in that process."""

_NUMBERS = itertools.count(1)


class RecordingError(Exception):
    """Nothing was recorded, or the recording was lost; one line says why. The engine is unharmed."""


def traced(device: str) -> tuple[str, ...]:
    """What nsys traces. On GPUs, each kernel of a CUDA graph separately, to count for the phase that launched it.

    Not osrt, which on a CPU records 600,000 calls per image (22 MB for three images, 0.3 MB without) and slows them.
    """
    if device == "cuda":
        return "--trace=cuda,nvtx", "--cuda-graph-trace=node"
    return ("--trace=nvtx",)


@functools.cache
def usable() -> tuple[Nsys, str]:
    """The nsys of this machine, checked to launch a process, and a warning when it would see no range, else "".

    Raises RecordingError.
    """
    try:
        nsys = find()
    except NsysError as error:
        raise RecordingError(str(error)) from None
    name, folder = _new_session()
    command = _launch(nsys, name, traced("cpu"), [sys.executable, "-m", "profiling.ranges"])
    try:
        said = _run(command, CHECK_TIMEOUT_S, {**child_environment(), "TMPDIR": str(folder)})
    finally:
        end_agents(lambda session: session == name)
        shutil.rmtree(folder, ignore_errors=True)
    warning = ""
    if f"{ranges.SAID}none" in said:
        warning = f"no NVTX library works under nsys {nsys}, so traces may have NO phases; run pip install nvidia-nvtx"
    return nsys, warning


class Recorded:
    """The engine's process under nsys, with the few methods of subprocess.Popen that its host uses.

    Waits `start_timeout_s` until the engine has fetched its pipe and its log (`take_over`). Raises OSError.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        pipe: int,
        output: int,
        environment: Mapping[str, str],
        device: str,
        start_timeout_s: float,
    ) -> None:
        try:
            self._nsys, _ = usable()
        except RecordingError as error:
            raise OSError(str(error)) from error
        self.name, self._folder = _new_session()
        log_start = os.fstat(output).st_size
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            address = f"{self.name}-{secrets.token_hex(8)}"
            listener.bind(f"\0{address}")
            listener.listen(1)
            command = [sys.executable, "-m", "sweep.engines.process.child", address, *arguments]
            self._launcher = subprocess.Popen(
                _launch(self._nsys, self.name, traced(device), command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**environment, "TMPDIR": str(self._folder)},
            )
            try:
                self.pid = self._hand_over(listener, (pipe, output), start_timeout_s)
            except BaseException as error:
                self.end_tool()
                bounded.killed(self._launcher)
                if not isinstance(error, _LauncherEnded):
                    raise
                said = last_line(os.pread(output, 4096, log_start).decode(errors="replace"))
                raise OSError(f"nsys launch ended with code {self._launcher.returncode}: {said}") from error

    def _hand_over(self, listener: socket.socket, files: Sequence[int], timeout_s: float) -> int:
        """Give the engine its files; returns its process id."""
        deadline = time.monotonic() + timeout_s
        while not select.select([listener], [], [], 0.1)[0]:
            if self._launcher.poll() is not None:
                raise _LauncherEnded
            if time.monotonic() > deadline:
                raise TimeoutError(f"nsys did not start the engine within {timeout_s:g} s")
        connection, _ = listener.accept()
        with connection:
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            pid, user, _ = struct.unpack("3i", peer)
            if user != os.getuid():
                raise OSError("another user's process asked for the engine's pipe")
            temporary = os.environ.get("TMPDIR", "")
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
            connection.sendmsg([b"=" + os.fsencode(temporary)], rights)
        return int(pid)

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None until nsys reports it."""
        return _exit_code(self._launcher.poll())

    def wait(self, timeout: float | None = None) -> int:
        """Exit code once it has ended. Raises subprocess.TimeoutExpired."""
        code = _exit_code(self._launcher.wait(timeout))
        assert code is not None
        self.end_tool()
        return code

    def start(self, trace: Path) -> None:
        """Begin to record, into the file `trace` once it is stopped. Raises RecordingError."""
        options = ["--sample=none", "--cpuctxsw=none", "--force-overwrite=true", f"--output={trace}"]
        self._ask("start", *options, timeout_s=START_TIMEOUT_S)

    def stop(self, trace: Path) -> None:
        """End the recording and write its file. Raises RecordingError."""
        said = self._ask("stop", timeout_s=STOP_TIMEOUT_S)
        if not trace.is_file():  # nsys still exits with 0
            raise RecordingError(f"nsys stop wrote no trace: {_complaint(said)}")

    def end_tool(self) -> None:
        """Kill what is left of nsys's own processes. The agent goes first: it outlives a killed launcher."""
        end_agents(lambda session: session == self.name)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._launcher.poll() is None:
                os.killpg(self._launcher.pid, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, verb: str, *options: str, timeout_s: float) -> str:
        command = [str(self._nsys.path), verb, f"--session={self.name}", *options]
        return _run(command, timeout_s, {**os.environ, "TMPDIR": str(self._folder)})


class _LauncherEnded(Exception):
    """nsys ended before the engine asked for its files."""


def take_over(address: str) -> tuple[int, int]:
    """In the engine: receive its pipe and log from the process that started it, and set its own TMPDIR, not nsys's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(f"\0{address}")
        message, files, _, _ = socket.recv_fds(connection, 4096, 2)
    temporary = os.fsdecode(message[1:])
    os.environ.pop("TMPDIR", None)
    if temporary:
        os.environ["TMPDIR"] = temporary
    pipe, output = files
    return pipe, output


def _new_session() -> tuple[str, Path]:
    """A name that no other session has, and the folder of nsys's temporary files. Raises RecordingError, OSError."""
    return SESSION.format(pid=os.getpid(), number=next(_NUMBERS)), temp_folders.make(temp_folders.NSYS)


def end_recordings_of(pids: Collection[int]) -> None:
    """Kill what nsys left running in all sessions that these processes began."""
    begun = tuple(SESSION.format(pid=pid, number="") for pid in pids)
    end_agents(lambda name: name.startswith(begun))


def _launch(nsys: Nsys, session: str, options: Sequence[str], command: Sequence[str]) -> list[str]:
    return [str(nsys.path), "launch", f"--session-new={session}", "--wait=primary", *options, *command]


def _exit_code(reported: int | None) -> int | None:
    return SIGNALLED - reported if reported is not None and reported > SIGNALLED else reported


def _run(command: Sequence[str], timeout_s: float, environment: Mapping[str, str]) -> str:
    """The output of an nsys command. Raises RecordingError; if it ends early, so do its processes."""
    verb = f"nsys {command[1]}"
    try:
        done = run(command, timeout_s, environment, together=True)
    except subprocess.TimeoutExpired:
        raise RecordingError(f"{verb} did not finish within {timeout_s:g} s") from None
    if done.returncode:
        raise RecordingError(f"{verb} failed with code {done.returncode}: {_complaint(done.stdout)}")
    return done.stdout


def _complaint(said: str) -> str:
    """The failure that nsys reports, or its last line."""
    if "no active sessions" in said:  # all that an agent that could not write leaves behind
        return f"its session ended by itself; nsys writes to {tempfile.gettempdir()} first, so check that it has room"
    found = re.search(r"^Failed to .*", said, re.MULTILINE)
    return found[0].strip() if found else last_line(said)
