"""Leases of devices, so that two cells never share one.

A lease is one `flock` per device, all or nothing, in a fixed order, freed by the kernel when its process dies.
"""

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sweep.machine.devices import Devices, visible_devices
from sweep.machine.gpu_neighbours import nvml_indices

LEASES_VARIABLE = "SWEEP_LEASES"
"""Names another folder for leases, for sweeps that must not wait for each other."""


def lease_folder() -> Path:
    """Where all sweeps of this user on this machine keep their locks, whatever their temporary folders are."""
    shared = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(os.environ.get(LEASES_VARIABLE) or shared / f"sweep-leases-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def lease(
    devices: Devices, count: int, waiting: Callable[[str], None], poll_s: float = 0.25
) -> Iterator[tuple[int, ...]]:
    """Hold `count` devices while the block runs; yields their numbers (of GPUs: within CUDA_VISIBLE_DEVICES).

    Takes all or none, always in rising order, so that two waiting groups cannot block each other.
    `waiting` is called once, with a message, when the devices are not free immediately.
    """
    said = False
    locks = [lease_folder() / f"{_device_name(devices.kind, n)}.lock" for n in range(max(devices.count, count))]
    while True:
        held: list[tuple[int, int]] = []
        for number, lock in enumerate(locks):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
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
    """The same for every sweep that uses this device, whatever part of the machine it sees."""
    if kind != "cuda":
        return f"{kind}{number}"
    visible = visible_devices()
    found = nvml_indices((number,)) if not visible or number < len(visible) else ()
    return f"cuda{found[0]}" if found else re.sub(r"[^\w-]", "_", visible[number] if visible else f"cuda{number}")
