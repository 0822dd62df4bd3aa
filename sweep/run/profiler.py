"""What `profile=` does around the measured requests of one cell: record them, then say what the recording says.

A profile that fails costs no cell: its measurements stay, and a note says what failed. Knows neither nsys's sessions
(`engines/recording.py`) nor how a trace is read (`python -m profiling analyze`, run as a process of its own).
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiling.child_environment import child_environment
from profiling.nsys import nsys_cli
from profiling.nsys.nsys_cli import last_line
from profiling.torch_trace import TRACE_FILE
from sweep.engines.process.failures import EngineFailure
from sweep.engines.process.host import EngineHost
from sweep.engines.process.nsys_session import Recorded, RecordingError

NSYS_TRACE = nsys_cli.TRACE

TORCH_TRACE = TRACE_FILE.format(name="rank0")

ANALYSIS_TIMEOUT_S = 1800.0

TORCH_TIMEOUT_S = 900.0  # to write its traces


@dataclass(frozen=True)
class Found:
    """The outcome of a profile: the trace's file in the cell's folder ("" when there is none), and what went wrong."""

    trace: str = ""
    note: str = ""


class Profile:
    """The profile of one cell's measured requests. `kind` as in the configuration; "" records nothing."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.path = path
        self.found = Found()

    @contextlib.contextmanager
    def around(self, host: EngineHost) -> Iterator[None]:
        """Record the block, whose own errors pass. What was recorded before an error is kept if the engine lives."""
        recording = False
        try:
            if self.kind:
                self._start(host)
                recording = True
        except (RecordingError, OSError) as error:
            self.found = Found(note=f"{self.kind} recorded nothing: {error}")
        except EngineFailure as error:
            if not error.alive:
                raise
            self.found = Found(note=f"{self.kind} recorded nothing: {error}")
        try:
            yield
        except EngineFailure as error:
            recording = recording and error.alive
            raise
        except KeyboardInterrupt:
            recording = False  # the engine is about to be killed
            raise
        finally:
            if recording:
                self._stop(host)

    def _start(self, host: EngineHost) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if isinstance(host.process, Recorded):
            host.process.start(self.path / NSYS_TRACE)
        else:
            host.trace(self.path, TORCH_TIMEOUT_S)

    def _stop(self, host: EngineHost) -> None:
        try:
            if isinstance(host.process, Recorded):
                host.process.stop(self.path / NSYS_TRACE)
                self.found = Found(NSYS_TRACE)
            else:
                host.trace(None, TORCH_TIMEOUT_S)
                self.found = Found(TORCH_TRACE)
        except RecordingError as error:
            self.found = Found(note=f"{self.kind}: the trace was lost: {error}")
        except EngineFailure as error:
            if not error.alive:
                raise
            self.found = Found(note=f"{self.kind}: the trace was lost: {error}")

    def analyse(self, device: str) -> None:
        """Write what the trace says next to it: nsys_phases.csv and kernels.csv. A trace of torch is for viewers."""
        if self.found.trace != NSYS_TRACE:
            return
        trace = str(self.path / NSYS_TRACE)
        command = [sys.executable, "-m", "profiling", "analyze", trace]
        command += [*(["--host-only"] if device == "cpu" else []), "--save", str(self.path), "--format", "json"]
        try:
            done = nsys_cli.run(command, ANALYSIS_TIMEOUT_S, child_environment())
        except subprocess.TimeoutExpired:
            why = f"no answer within {ANALYSIS_TIMEOUT_S:g} s"
        except OSError as error:
            why = str(error)
        else:
            why = last_line(done.stderr) if done.returncode else ""
        if why:
            self.found = Found(NSYS_TRACE, f"nsys: the trace could not be analysed: {why}")
        else:
            self._note_left_out(json.loads(done.stdout))

    def _note_left_out(self, analysis: Mapping[str, Any]) -> None:
        """Note what the analysis, as JSON, left out of the trace."""
        from profiling.nsys.plausible import LeftOut  # imports numpy

        if said := [line for trace in analysis["traces"] for line in LeftOut(**trace.get("left_out", {})).said()]:
            self.found = Found(NSYS_TRACE, f"nsys: {'; '.join(said)}")
