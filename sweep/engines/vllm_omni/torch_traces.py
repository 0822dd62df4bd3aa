"""torch.profiler's traces of vLLM-Omni's workers, requested and awaited through the plugin's folder.

Knows nothing of what a trace contains (`profiling/vllm_plugin/tracing.py` makes it).
"""

import time
from pathlib import Path

from profiling.atomic_write import write_atomic
from profiling.torch_trace import TRACE_FILE
from profiling.vllm_plugin.record_files import TRACE
from profiling.vllm_plugin.tracing import WRITING

BEGIN_TIMEOUT_S = 60.0  # from the end of a batch until each rank has begun to write
WRITE_TIMEOUT_S = 800.0
POLL_S = 0.05


class Traces:
    """The traces of one batch. `plugin` is the plugin's folder."""

    def __init__(self, plugin: Path, ranks: int) -> None:
        self._plugin = plugin
        self._ranks = ranks
        self._folder: Path | None = None

    def ask(self, folder: Path) -> None:
        """Request that the next batch is recorded into `folder`."""
        for lost in self._plugin.glob("lost-*.txt"):
            lost.unlink()
        self._folder = folder.absolute()
        write_atomic(self._plugin / TRACE, str(self._folder))

    def wait(self) -> None:
        """Wait until every rank has written its trace. Raises RuntimeError when one is lost."""
        if self._folder is None:
            raise RuntimeError("no trace was requested")
        folder, self._folder = self._folder, None
        (self._plugin / TRACE).unlink(missing_ok=True)
        began = time.monotonic()
        while True:
            lost = sorted(self._plugin.glob("lost-*.txt"))
            if lost:
                why = lost[0].read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"the trace of {lost[0].stem.removeprefix('lost-')} was lost: {why}")
            writing = list(folder.glob(WRITING.format(name="*")))
            ranks = range(self._ranks)
            missing = [rank for rank in ranks if not (folder / TRACE_FILE.format(name=f"rank{rank}")).is_file()]
            if not missing and not writing:
                return
            waited = time.monotonic() - began
            if waited > (WRITE_TIMEOUT_S if writing else BEGIN_TIMEOUT_S):
                who = f"rank {', '.join(map(str, missing))}" if missing else "the AR stage"
                raise RuntimeError(f"{who} wrote no trace within {waited:.0f} s")
            time.sleep(POLL_S)
