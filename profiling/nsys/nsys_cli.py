"""Finds Nsight Systems on this machine and runs it. Knows nothing of what a trace contains."""

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiling.bounded import killed

NSYS_VARIABLE = "NSYS"
TRACE = "trace.nsys-rep"
"""Name of a cell's recording in the cell's folder."""

PHASES_TABLE, KERNELS_TABLE = "nsys_phases.csv", "kernels.csv"
"""Names of the tables of its analysis, in the same folder."""

PLACES = (
    "/opt/nvidia/nsight-systems/*/target-linux-*/nsys",
    "/opt/nvidia/nsight-systems/*/bin/nsys",
    "/opt/nvidia/nsight-systems-cli/*/target-linux-*/nsys",
    "/opt/nvidia/nsight-compute/*/host/target-linux-*/nsys",  # Nsight Compute includes one
    "/usr/local/cuda*/bin/nsys",
    "/usr/lib/nsight-systems/bin/nsys",
)
EXPORT_TIMEOUT_S = 1800.0
INSTALL = f"install Nsight Systems, or set {NSYS_VARIABLE}=/path/to/nsys"
VERSION = re.compile(r"version (\d{4})\.(\d+)\.(\d+)")


class NsysError(Exception):
    """nsys is missing or failed: one line with the file, if any, the problem, and what to do, if anything."""

    def __init__(self, problem: str, file: Path | None = None, remedy: str = "") -> None:
        super().__init__(f"{f'{file}: ' if file else ''}{problem}{f'; {remedy}' if remedy else ''}")
        self.problem = problem


@dataclass(frozen=True)
class Nsys:
    """A working nsys. `version` is (year, release, patch)."""

    path: Path
    version: tuple[int, int, int]

    def export(self, recording: Path, to: Path, timeout_s: float = EXPORT_TIMEOUT_S) -> None:
        """Write the SQLite export of a .nsys-rep. Raises NsysError with the last line that nsys printed."""
        command = [str(self.path), "export", "-t", "sqlite", "--force-overwrite=true", "-o", str(to), str(recording)]
        try:
            done = run(command, timeout_s)
        except subprocess.TimeoutExpired as error:
            raise NsysError(f"nsys {self} did not export it within {timeout_s:g} s", recording) from error
        except OSError as error:
            raise NsysError(f"nsys could not export it: {error}", recording) from error
        if done.returncode or not to.exists():
            said = last_line(done.stdout + done.stderr)
            raise NsysError(f"nsys {self} could not export it: {said}", recording)

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


def run(
    command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None, together: bool = False
) -> "subprocess.CompletedProcess[str]":
    """Run to the end; if it ends early, so does what it started. Raises OSError, TimeoutExpired.

    Runs in its own session, so the caller handles Ctrl-C. `together`: errors go to stdout too, in order.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if together else subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        env=None if environment is None else dict(environment),
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except BaseException:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        killed(process)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def last_line(text: str) -> str:
    """The last line that is not blank."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def candidates() -> list[Path]:
    """Where nsys may be: only $NSYS if it is set; else the PATH, then where NVIDIA installs it, newest first."""
    if asked := os.environ.get(NSYS_VARIABLE):
        return [Path(asked)]
    on_path = shutil.which("nsys")
    installed = [path for pattern in PLACES for path in sorted(Path("/").glob(pattern[1:]), reverse=True)]
    return [*([Path(on_path)] if on_path else []), *installed]


@functools.cache
def find() -> Nsys:
    """The first nsys that prints its version. Raises NsysError."""
    said = []
    for path in candidates():
        try:
            done = run([str(path), "--version"], 30)
        except (OSError, subprocess.TimeoutExpired) as error:
            said.append(f"{path}: {error}")
            continue
        if found := VERSION.search(done.stdout):
            year, release, patch = map(int, found.groups())
            return Nsys(path, (year, release, patch))
        said.append(f"{path}: {last_line(done.stdout + done.stderr)}")
    tried = f" (tried {'; '.join(said)})" if said else ""
    raise NsysError(f"nsys was not found{tried}", remedy=INSTALL)


def end_agents(mine: Callable[[str], bool]) -> None:
    """Kill the agents of all sessions for whose name `mine` returns true.

    An agent is not a child of any of our processes, and it outlives a killed launcher.
    """
    import psutil

    mark = "--session-name="
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            named = [word.removeprefix(mark) for word in process.cmdline() if word.startswith(mark)]
            if named and mine(named[0]):
                process.kill()
                process.wait(5)
