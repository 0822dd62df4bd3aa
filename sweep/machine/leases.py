"""Leases of devices, so that two cells never share one.

A lease is one `flock` per device, all or nothing, in a fixed order, freed by the kernel when its process dies.
"""

import contextlib
import fcntl
import functools
import os
import platform
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from profiling.printing import complain
from sweep.machine.devices import Devices, visible_gpus
from sweep.machine.gpu_neighbours import nvml_indices

LEASES_VARIABLE = "SWEEP_LEASES"
"""Names another folder for leases, for sweeps that must not wait for each other."""


def lease_folder() -> Path:
    """Where all sweeps of this user on this machine keep their locks, regardless of their temporary folders.

    Any user can write to /tmp, so a folder there with our name may be another user's, or a link; then it is not used.
    Raises OSError when no place can be used.
    """
    if chosen := os.environ.get(LEASES_VARIABLE):
        folder = Path(chosen)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
    usual, other = _usual(), _other()
    if not (wrong := _wrong_with(usual)):
        return usual
    if wrong_too := _wrong_with(other):
        raise OSError(f"{usual} {wrong}, and {other} {wrong_too}; name a folder with {LEASES_VARIABLE}")
    _say(f"{usual} {wrong}, so devices are leased in {other}, where sweeps that use {usual} are not seen")
    return other


def _usual() -> Path:
    shared = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    return shared / f"sweep-leases-{os.getuid()}"


def _other() -> Path:
    """In the user's cache, which several machines may share."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "sweep" / f"leases-{platform.node()}"


def _wrong_with(folder: Path) -> str:
    """Why a folder cannot hold our locks; "" when it can. It is made, and closed to others, if needed."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        return "is no folder"
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    state = folder.lstat()
    if stat.S_ISLNK(state.st_mode):
        return "is a link"
    if state.st_uid != os.getuid():
        return "belongs to another user"
    if stat.S_IMODE(state.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        folder.chmod(0o700)
    return ""


@functools.cache
def _say(line: str) -> None:
    """Print a line once per process."""
    complain(f"sweep: {line}")


def open_lock(path: Path) -> int:
    """Open a lock file, made if needed, and never through a link. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


@contextlib.contextmanager
def lease(
    devices: Devices, count: int, waiting: Callable[[str], None], poll_s: float = 0.25
) -> Iterator[tuple[int, ...]]:
    """Hold `count` devices while the block runs; yields their numbers (of GPUs: within CUDA_VISIBLE_DEVICES).

    Takes all or none, always in rising order, so that two waiting groups cannot block each other.
    `waiting` is called once, with a message, when the devices are not free immediately.
    """
    said = False
    place = lease_folder()
    locks = [place / f"{_device_name(devices.kind, n)}.lock" for n in range(max(devices.count, count))]
    while True:
        held: list[tuple[int, int]] = []
        for number, lock in enumerate(locks):
            handle = open_lock(lock)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            held.append((number, handle))
            if len(held) == count:
                break
        if len(held) == count:
            break
        for _, handle in held:
            os.close(handle)
        if not said:
            waiting(f"waiting for {devices.describe(count)} that another cell or sweep is using")
            said = True
        time.sleep(poll_s)
    try:
        yield tuple(number for number, _ in held)
    finally:
        for _, handle in held:
            os.close(handle)


def _device_name(kind: str, number: int) -> str:
    """The same for every sweep that uses this device, regardless of which devices it sees."""
    if kind != "cuda":
        return f"{kind}{number}"
    visible = visible_gpus()
    found = nvml_indices((number,)) if not visible or number < len(visible) else ()
    return f"cuda{found[0]}" if found else re.sub(r"[^\w-]", "_", visible[number].name if visible else f"cuda{number}")
