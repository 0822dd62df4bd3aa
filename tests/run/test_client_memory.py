"""Memory for replies: how much a load wants, and that its pages are there before it begins."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip("msgspec")

from sweep.run.client.memory import wanted
from sweep.run.client.messages import Due, Job

REPLY = 4 * 1024 * 1024  # of 1024 × 1024 pixels

FAULTS = """
import resource, sys
from sweep.run.client import memory
if len(sys.argv) > 1:
    memory._available = lambda: int(sys.argv[1])
ready = memory.make_ready(64_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    replies = [bytes(2_000_000) for _ in range(24)]
    del replies
print(ready, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def job(count: int, **more: object) -> Job:
    due = [Due(f"r{number}", {}, (1024, 1024)) for number in range(count)]
    return Job("http://127.0.0.1:1", "/", due, 1.0, **more)  # type: ignore[arg-type]


def test_a_load_wants_room_for_its_replies_and_for_those_under_way() -> None:
    assert wanted(job(10, concurrency=4)) == 14 * REPLY
    assert wanted(job(2, concurrency=4)) == 4 * REPLY, "no more are under way than there are"
    assert wanted(job(10)) == 11 * REPLY
    assert wanted(job(10, concurrency=4), held=3 * REPLY) == 7 * REPLY, "more never wait"
    assert wanted(job(1, duration_s=60.0), held=5 * REPLY) == 6 * REPLY, "a request that comes again and again"


def test_small_pictures_want_little_room_however_long_the_load_lasts() -> None:
    small = [Due("r0", {}, (32, 32))]
    assert wanted(Job("http://127.0.0.1:1", "/", small, 1.0)) == 0
    assert wanted(Job("http://127.0.0.1:1", "/", small, 1.0, duration_s=60.0)) == 60_001 * 4 * 32 * 32


@pytest.mark.parametrize("more", [{"streams": True}, {"pictures": False}, {"decoders": 0}])
def test_a_load_that_keeps_no_picture_wants_none(more: dict[str, object]) -> None:
    assert wanted(job(10, **more)) == 0
    assert wanted(job(0)) == 0


def faults(*available: str) -> tuple[bool, int]:
    """Whether memory was made ready, and the pages that 48 MB of replies, twice, took fresh from the kernel."""
    done = subprocess.run([sys.executable, "-c", FAULTS, *available], capture_output=True, text=True, check=True)
    ready, fresh = done.stdout.split()
    return ready == "True", int(fresh)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an allocator of another kind")
def test_replies_take_no_fresh_pages_once_memory_is_ready() -> None:
    ready, fresh = faults()
    assert ready
    assert fresh < 1_000
    _, fresh = faults("4000000")  # a quarter of it is all that may be taken
    assert fresh > 10_000
