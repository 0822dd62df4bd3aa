"""The sampling process: `python -m profiling.telemetry.worker FD PARENT PID INTERVAL_S GPUS`.

A separate process, so that it neither waits for the interpreter of the process that plans, draws and stores, nor makes
that process wait. Imports only psutil and the driver's library. Samples at every command and, once woken, at a fixed
interval between commands. Ends when its pipe is closed or its parent is gone, however the parent died.
"""

import os
import sys
import threading
import time
from multiprocessing.connection import Connection

from profiling.child_signals import leave_to_parent

MARK, REST = "mark", "rest"
"""Commands. MARK: sample now, and regularly from now on. REST: sample now, then not until the next MARK."""


def end_with(parent: int, interval_s: float = 0.5) -> None:
    """End this process once `parent` is gone, even while it waits for a driver that hangs."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval_s)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def serve(pipe: Connection, pid: int, interval_s: float, gpu_indices: tuple[int, ...] | None) -> None:
    """Answer commands until the pipe is closed, each (number, command) with (number, Watched)."""
    from profiling.telemetry.gpus import open_reader
    from profiling.telemetry.processes import ProcessTreeReader
    from profiling.telemetry.samples import GpuUser, TelemetrySample, Watched

    gpus = open_reader(gpu_indices)
    processes = ProcessTreeReader(pid)
    samples: list[TelemetrySample] = []
    users: dict[tuple[int, int], GpuUser] = {}

    def sample() -> None:
        seen = processes.read()
        if seen is None:
            return
        rss_gb, cpu_pct, now = seen
        for user in gpus.users():
            before = users.get((user.gpu_index, user.pid))
            if before is None or (user.memory_gb or 0) >= (before.memory_gb or 0):
                users[user.gpu_index, user.pid] = user
        samples.extend(
            [
                TelemetrySample(
                    now, rss_gb, cpu_pct, gpu.index, gpu.memory_gb, gpu.util_pct, gpu.power_w, gpu.energy_j,
                    gpu.sm_clock_mhz, gpu.memory_clock_mhz, gpu.throttle_reasons,
                )
                for gpu in gpus.read()
            ] or [TelemetrySample(now, rss_gb, cpu_pct)]
        )  # fmt: skip

    awake, due_s = False, 0.0
    while True:
        if not pipe.poll(max(0.0, due_s - time.perf_counter()) if awake else None):
            sample()
            due_s = max(due_s + interval_s, time.perf_counter())
            continue
        try:
            number, command = pipe.recv()
        except EOFError:
            return
        if not awake:
            users.clear()
            processes.pids.clear()
        sample()
        pipe.send((number, Watched(tuple(samples), tuple(users.values()), frozenset(processes.pids))))
        samples.clear()
        awake, due_s = command == MARK, time.perf_counter() + interval_s


def main(arguments: list[str]) -> None:
    """Serve, then end at once; an error is the last message through the pipe."""
    leave_to_parent()
    fd, parent, pid, interval_s, gpus = arguments
    end_with(int(parent))
    pipe = Connection(int(fd))
    try:
        indices = None if gpus == "all" else tuple(int(index) for index in gpus.split(",") if index)
        serve(pipe, int(pid), float(interval_s), indices)
    except (BrokenPipeError, ConnectionResetError):  # the parent is gone
        pass
    except Exception as error:
        pipe.send((None, f"{type(error).__name__}: {error}"))
    os._exit(0)  # nothing is left to save, and a driver's library may be slow to exit


if __name__ == "__main__":
    main(sys.argv[1:])
