"""What processes forked in tests do; in a module of its own because they must be importable there."""

import multiprocessing
import os
import sys
import time
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from typing import Any


def tell(pipe: Connection, level: int = 0) -> None:
    """Send what this process took over; at level 1 also what one that it spawns took over, and so on."""
    print(f"level {level} speaks", flush=True)
    record = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgid(0),
        "mark": os.environ.get("SWEEP_TEST_MARK"),
        "preloaded": "colorsys" in sys.modules,
    }
    if level:
        os.environ["SWEEP_TEST_MARK"] = f"set at level {level}"
        multiprocessing.set_start_method("spawn", force=True)  # as vLLM-Omni does
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=tell, args=(theirs, level - 1), daemon=False)
        process.start()
        record["child"] = ours.recv()
        process.join()
        record["child_exit"] = process.exitcode
    pipe.send(record)


def linger(pipe: Connection) -> None:
    """Report that we run, and stay."""
    pipe.send(os.getpid())
    time.sleep(600)


class SlowToRead:
    """An argument that a process takes ten minutes to read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return time.sleep, (600,)


def hold_shared_memory(pipe: Connection) -> None:
    """Make a block of shared memory, say what it is called, and stay."""
    block = shared_memory.SharedMemory(create=True, size=4096)
    pipe.send(block.name)
    time.sleep(600)
