"""Memory for replies, touched before a load begins.

A picture of 1024² arrives faster than it decodes, so most replies of a burst wait. Each takes fresh pages from the
kernel, about 1 ms for 2 MB (Linux 6.18 in a virtual machine), which is as long as everything else that a sender does
for it, and which delays the sends after it. Pages that the allocator already has cost a tenth of that.
"""

import contextlib
import ctypes
from pathlib import Path

import psutil

from sweep.run.client.lookers import HELD
from sweep.run.client.messages import Job

PICTURE = 4
"""Bytes a pixel of a reply can have: 3 of a PNG that does not compress, in base64."""

PER_S = 1_000
"""Pictures that a sender receives in a second, at most: about 1 GB of pictures of 1 MB."""

LEAST = 16_000_000
"""Bytes below which fresh pages cost nothing that can be measured."""

SHARE = 0.25
"""The largest share of the available memory that is taken."""

_GROUP = Path("/sys/fs/cgroup")
"""Limits of a container, if it has any (Linux, "Control Group v2")."""

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of mallopt (glibc, malloc.h)


def wanted(job: Job, held: int = HELD) -> int:
    """Bytes of replies that wait, `held` at most, or are under way at one time; 0 if that is little or none."""
    if job.streams or not job.pictures or not job.decoders or not job.requests:
        return 0
    sizes = [PICTURE * width * height for width, height in (one.size for one in job.requests)]
    every = int(PER_S * job.duration_s * max(sizes)) if job.duration_s else sum(sizes)
    found = min(held, every) + min(job.concurrency or 1, len(sizes)) * max(sizes)
    return found if found >= LEAST else 0


def make_ready(size: int) -> bool:
    """Have the allocator hold `size` bytes of touched memory, and keep what is freed, for the rest of this process.

    Takes no more than SHARE of what is available. False where that cannot be done (no glibc, no memory): then pages are
    fresh, and nothing else changes.
    """
    size = min(size, int(SHARE * _available()))
    try:
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
        kept = libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, -1)
    except (OSError, AttributeError):
        return False
    if not kept or not (block := libc.malloc(size)):
        return False
    ctypes.memset(block, 1, size)
    libc.free(block)
    return True


def _available() -> int:
    """Bytes that this process may still take."""
    free: int = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        most, used = (int((_GROUP / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
        free = min(free, most - used)
    return max(0, free)
