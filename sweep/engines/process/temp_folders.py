"""What processes of a sweep leave on the machine when they are killed: folders and semaphores, named after them.

Whatever kills a process can clean up after it, and the next sweep after all that died with their sweep. A process id
means the same process only on one boot of one machine and in one namespace (container), so names have that as well.
Linux only: elsewhere nothing is known to be dead.
"""

import contextlib
import functools
import hashlib
import multiprocessing
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

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
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # only for whoever cleans up after us
            stack.callback(shutil.rmtree, make(SWEEP), ignore_errors=True)
        yield


def name_semaphores() -> None:
    """Name multiprocessing's semaphores of this process, and of those that it starts, after it."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    config["semprefix"] = f"/mp-sweep-{_place()}-{os.getpid()}"


def clear(pid: int) -> None:
    """Remove the folders that an ended process has left."""
    for _, owner, folder in _folders():
        if owner == pid:
            shutil.rmtree(folder, ignore_errors=True)


def clear_dead() -> None:
    """Remove folders and semaphores of this user's processes that are gone."""
    sweeps = set()
    for kind, pid, folder in _folders():
        if not _exists(pid):
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
    """Whether it is no link, of this kind, and of this user."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return is_kind(state.st_mode) and state.st_uid == os.getuid()


def _exists(pid: int) -> bool:
    return not Path("/proc/self").exists() or Path(f"/proc/{pid}").exists()


@functools.cache
def _place() -> str:
    """Six hex digits of this boot of this machine and of our namespace of processes."""
    told = []
    with contextlib.suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        told.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("".join(told).encode()).hexdigest()[:6]
