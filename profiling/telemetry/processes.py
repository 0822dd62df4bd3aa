"""Memory and processor time of a process tree, through psutil. Knows nothing of GPUs."""

import os
import time

import psutil

from profiling.telemetry.samples import GB


class ProcessTreeReader:
    """Memory and processor time of a process tree and its group; processes that vanish meanwhile are left out."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.pids: set[int] = set()  # all that were ever read
        self._cpu_s: dict[tuple[int, float], float] = {}  # (pid, creation time), since numbers are reused
        self._read_at: float | None = None

    def read(self) -> tuple[float, float, float] | None:
        """(resident GB, per cent of a core since the last reading, time); None when the tree is gone.

        The first reading's per cent is the mean since the process began.
        """
        try:
            root = psutil.Process(self._pid)
            tree = list(
                {process.pid: process for process in (root, *root.children(recursive=True), *self._group())}.values()
            )
        except psutil.Error:
            return None
        rss_bytes, spent_s = 0, 0.0
        cpu_s: dict[tuple[int, float], float] = {}
        self.pids.update(process.pid for process in tree)
        for process in tree:
            try:
                with process.oneshot():
                    memory, times = process.memory_info().rss, process.cpu_times()
                    key = (process.pid, process.create_time())
            except psutil.Error:
                continue
            rss_bytes += memory
            cpu_s[key] = times.user + times.system
            spent_s += cpu_s[key] - self._cpu_s.get(key, 0.0)
        now = time.perf_counter()
        # The start time uses the wall clock. If that was set meanwhile, the time may come out too short.
        elapsed_s = time.time() - root.create_time() if self._read_at is None else now - self._read_at
        elapsed_s = max(elapsed_s, spent_s / (psutil.cpu_count() or 1))
        self._cpu_s, self._read_at = cpu_s, now
        return (rss_bytes / GB, 100.0 * spent_s / max(elapsed_s, 1e-3), now) if cpu_s else None

    def _group(self) -> list[psutil.Process]:
        """Processes of the root's process group; those that another process forked for it are not its children."""
        found = []
        for pid in psutil.pids():
            try:
                if os.getpgid(pid) == self._pid:
                    found.append(psutil.Process(pid))
            except (OSError, psutil.Error):
                continue
        return found
