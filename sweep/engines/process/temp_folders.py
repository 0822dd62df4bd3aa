"""What processes of a sweep leave on the machine when they are killed: folders, semaphores, engines that hang.

All are named after their process. The one that kills it can clean up after it, and the next sweep after all that died
with their sweep. A process id means the same process only on one boot of one machine and in one namespace (container),
so names have that as well.
Linux only: elsewhere nothing is known to be dead.
"""

import atexit
import contextlib
import functools
import hashlib
import multiprocessing
import os
import re
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from profiling.printing import complain

ENGINE, NSYS, SERVER, SWEEP = "engine", "nsys", "server", "main"
"""Kinds of folders: an engine's files, nsys's temporary files, sockets of what engines are forked from, a sweep's."""

SEMAPHORES = Path("/dev/shm")


def make(kind: str = ENGINE, within: str | None = None) -> Path:
    """A new folder of this process, in the temporary folder or `within` another."""
    return Path(tempfile.mkdtemp(prefix=f"sweep-{kind}-{_place()}-{os.getpid()}-", dir=within))


@contextlib.contextmanager
def sweep_here() -> Iterator[None]:
    """This process is a sweep while the block runs; semaphores that it and its processes make are named after it."""
    name_semaphores()
    with contextlib.suppress(OSError):  # only needed to clean up after us
        _own_folder()
    try:
        yield
    finally:
        clear(os.getpid(), SWEEP)
        _own_folder.cache_clear()


@functools.cache
def _own_folder() -> Path:
    """The folder of this process as a sweep or a launcher's worker. Raises OSError."""
    folder = make(SWEEP)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def note_engine(pid: int) -> None:
    """This process started an engine, the leader of its process group: if we are killed, the next sweep may end it."""
    with contextlib.suppress(OSError):
        (_own_folder() / str(pid)).write_text(_started(pid), encoding="ascii")


def forget_engine(pid: int) -> None:
    """This engine has ended, so the next sweep need not end it."""
    with contextlib.suppress(OSError):
        (_own_folder() / str(pid)).unlink(missing_ok=True)


def name_semaphores() -> None:
    """Name multiprocessing's semaphores of this process, and of those that it starts, after it."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    config["semprefix"] = f"/mp-sweep-{_place()}-{os.getpid()}"


def clear(pid: int, kind: str = "") -> None:
    """Remove the folders that an ended process has left; `kind`: only these."""
    for found, owner, folder in _folders():
        if owner == pid and kind in ("", found):
            shutil.rmtree(folder, ignore_errors=True)


def clear_dead() -> None:
    """Remove folders and semaphores of this user's processes that are gone, and end engines whose sweep is.

    An engine ends itself when its sweep is gone, unless it is stopped or hangs in a call of the driver.
    """
    sweeps = set()
    for kind, pid, folder in _folders():
        if not _exists(pid):
            if kind == SWEEP:
                _end_engines(folder)
            shutil.rmtree(folder, ignore_errors=True)
            sweeps |= {pid} if kind == SWEEP else set()
    ours = re.compile(rf"sem\.mp-sweep-{_place()}-(?P<pid>\d+)-\w+")
    launchers = re.compile(r"sem\.loky-(?P<pid>\d+)-\w+")  # joblib's: ours if its process was a sweep
    for path in _listed(SEMAPHORES):
        mine, theirs = ours.fullmatch(path.name), launchers.fullmatch(path.name)
        gone = (mine and not _exists(int(mine["pid"]))) or (theirs and int(theirs["pid"]) in sweeps)
        if gone and _is_own(path, stat.S_ISREG):
            with contextlib.suppress(OSError):
                path.unlink()


def _end_engines(folder: Path) -> None:
    """Kill the engines that a sweep noted in its folder, with their process groups."""
    for path in _listed(folder):
        if not path.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            pid, started = int(path.name), path.read_text(encoding="ascii")
            if started and started == _started(pid):  # and no later process with its id
                os.killpg(pid, signal.SIGKILL)
                complain(f"sweep: ended an engine that a killed sweep had left (process {pid})")


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; "" when it is gone or the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = text[text.rindex(")") + 2 :].split()
    return "" if state == "Z" else fields[18]


def _folders() -> Iterator[tuple[str, int, Path]]:
    """(kind, process id, folder) of all that this user's processes made on this boot and in this namespace."""
    named = re.compile(rf"sweep-({'|'.join((ENGINE, NSYS, SERVER, SWEEP))})-{_place()}-(\d+)-\w+")
    for path in (path for where in {tempfile.gettempdir(), "/tmp"} for path in _listed(Path(where))):
        found = named.fullmatch(path.name)
        if found and _is_own(path, stat.S_ISDIR):
            yield found[1], int(found[2]), path


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is of this kind and user, and not a link."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return is_kind(state.st_mode) and state.st_uid == os.getuid()


def _exists(pid: int) -> bool:
    """Whether it runs, as far as known. A dead process whose parent never asks for it (a container's first) is gone."""
    return not Path("/proc/self").exists() or bool(_started(pid))


@functools.cache
def _place() -> str:
    """Six hex digits of this boot of this machine and of our namespace of processes."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:6]
