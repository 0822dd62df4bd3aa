"""torch.profiler around requests of one process: a Chrome trace with our phases as ranges. For machines without nsys.

Imports torch when it starts. Knows nothing of pipelines or ranks.
"""

from pathlib import Path
from typing import Any

from profiling import ranges

TRACE_FILE = "trace-{name}.json.gz"
"""Name of a process's recording in a cell's folder."""


class RecordedRanges:
    """Ranges of `profiling.ranges` as `record_function` of torch, which keeps no index."""

    name = "torch.profiler"

    def __init__(self) -> None:
        self._open: list[Any] = []

    def push(self, name: str, index: int) -> None:
        """Open a range called `name`; `index` is lost."""
        from torch.profiler import record_function

        opened = record_function(name)
        opened.__enter__()
        self._open.append(opened)

    def pop(self) -> None:
        """Close the innermost open range; one that was opened before recording began is not ours."""
        if self._open:
            self._open.pop().__exit__(None, None, None)


class TorchTrace:
    """One recording. While it runs, phases go to it and not to an NVTX tool.

    A request has 100,000 to 200,000 events, so record few requests: 12 requests of the embedded model gave a file of
    56 MB (a gigabyte unpacked, which no viewer opens) that took 90 s to write.
    """

    def __init__(self, path: Path) -> None:
        """Start recording; `path` ends in .json or .json.gz."""
        import torch

        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.path = path
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.start()
        self._running = True
        ranges.use(RecordedRanges())

    def pause(self) -> None:
        """Stop recording; safe to call twice."""
        if self._running:
            self._running = False
            ranges.use(None)
            self._profiler.stop()

    def write(self) -> None:
        """Write the file. Raises RuntimeError and OSError when it cannot be written."""
        self.pause()
        self._profiler.export_chrome_trace(str(self.path))
        if not self.path.is_file():
            raise RuntimeError(f"torch.profiler wrote no {self.path.name}: is the disk full?")
