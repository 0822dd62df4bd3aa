"""torch.profiler around the next request of a process when a trace is requested: for machines without nsys.

To request traces, write the name of a folder to the file TRACE in the plugin's folder. Each process that runs a model
then leaves `trace-<name>.json.gz` there, or explains in `lost-<name>.txt`, next to TRACE, why it could not. A request
is recorded in the thread that runs it; another thread writes it. An error here costs only the trace.
"""

import contextlib
import threading
from pathlib import Path

from profiling.atomic_write import write_atomic
from profiling.torch_trace import TRACE_FILE, TorchTrace
from profiling.vllm_plugin.record_files import Place, traced_to

WRITING = f".{TRACE_FILE}"
"""Name of the trace from the end of the recording until the file is complete."""


class Tracing:
    """The recordings of one process; `name` is part of the names of its traces."""

    def __init__(self, place: Place, name: str) -> None:
        self.name = name
        self._place = place
        self._trace: TorchTrace | None = None
        self._last: Path | None = None  # the folder of the last trace: one request each

    @property
    def active(self) -> bool:
        """Whether a request is being recorded."""
        return self._trace is not None

    def begin(self) -> None:
        """A request begins: record it if a trace is requested. Never raises."""
        try:
            folder = traced_to(self._place.folder)
            if folder is None or folder == self._last:
                return
            self._last = folder
            self._trace = TorchTrace(folder / WRITING.format(name=self.name))
        except Exception as error:
            self._lost(error)

    def end(self) -> None:
        """The recorded request is over, if one was recorded. Never raises."""
        trace, self._trace = self._trace, None
        if trace is None:
            return
        try:
            trace.pause()
            trace.path.touch()
            threading.Thread(target=self._write, args=(trace,), name="sweep-trace").start()
        except Exception as error:
            self._lost(error)

    def _write(self, trace: TorchTrace) -> None:
        try:
            trace.write()
            trace.path.replace(trace.path.with_name(TRACE_FILE.format(name=self.name)))
        except Exception as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        with contextlib.suppress(Exception):
            write_atomic(self._place.folder / f"lost-{self.name}.txt", f"{type(error).__name__}: {error}")
