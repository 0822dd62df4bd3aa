"""ProcessTreeSampler: a separate process watches a process tree and its GPUs.

Starting it does not delay the caller: it gets ready while the engine loads, and rests until the first `mark`. A sampler
that dies, hangs or cannot be started costs no measurement; there is just no telemetry, and `problem` says why. Knows
nothing of engines or cells.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from profiling.bounded import BoundedConnection, killed, pipe
from profiling.child_environment import child_environment
from profiling.telemetry import samples
from profiling.telemetry.samples import GpuUser, Span, TelemetrySample, TelemetryWindow, Watched
from profiling.telemetry.worker import MARK, REST

START_TIMEOUT_S = 60.0  # a driver that keeps no state between its users takes seconds per GPU to start
ANSWER_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 2.0


class ProcessTreeSampler:
    """Samples the tree of process `pid` every `interval_s` seconds, from a `mark` until `rest`.

    `gpu_indices` names the GPUs to read, by the driver's index: None for all, () for none (an engine on the CPU).
    """

    def __init__(self, pid: int, interval_s: float = 0.2, gpu_indices: Sequence[int] | None = None) -> None:
        gpus = "all" if gpu_indices is None else ",".join(map(str, gpu_indices))
        self._arguments = (str(os.getpid()), str(pid), str(interval_s), gpus)
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: BoundedConnection | None = None
        self._answered = 0  # number of the last command that was answered by this process
        self._asked = 0
        self._awake = False
        self._samples: list[TelemetrySample] = []
        self._watched = Watched()
        self.problem = ""  # why there is no telemetry since the first mark after a rest; "" when there is

    def start(self) -> None:
        """Start the process without waiting for it; safe to call again, and after the process was lost."""
        if self._process is not None:
            return
        ours, theirs = pipe()
        try:
            with theirs:
                os.set_inheritable(theirs.fileno(), True)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", f"{__package__}.worker", str(theirs.fileno()), *self._arguments],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is not meant for it
                    env=child_environment(),
                )
        except OSError as error:
            ours.close()
            self.problem = f"the sampler could not be started: {error}"
            return
        self._pipe, self._answered = ours, 0

    def mark(self) -> float:
        """Sample now and return the time, so that a window that begins or ends here has no partial interval.

        After a `rest`, this discards the earlier samples and restarts a lost process.
        """
        if not self._awake:
            self._samples, self._watched, self.problem = [], Watched(), ""
            self._awake = True
            self.start()
        self._ask(MARK)
        return time.perf_counter()

    def rest(self) -> None:
        """Sample once more, then pause until the next `mark`."""
        if self._awake:
            self._ask(REST)
        self._awake = False

    def window(self, start_s: float, end_s: float, turns: Sequence[Span] | None = None) -> TelemetryWindow:
        """What happened between two times of perf_counter, up to the last `mark` or `rest`; also after `stop`.

        `turns`: the parts of it that the summary covers.
        """
        return samples.window(self._samples, start_s, end_s, turns)

    def gpu_users(self) -> tuple[GpuUser, ...]:
        """Every process seen on the sampled GPUs since the first mark after a rest."""
        return self._watched.users

    def tree_pids(self) -> frozenset[int]:
        """Every process id in the tree since then, as this process sees it."""
        return self._watched.tree_pids

    def stop(self) -> None:
        """Rest, and end the process; safe to call twice, or without `start`."""
        self.rest()
        self._end(STOP_TIMEOUT_S)

    def _ask(self, command: str) -> None:
        """Have the process carry out a command, and take over what it saw."""
        if self._pipe is None:
            return
        self._asked += 1
        timeout_s = ANSWER_TIMEOUT_S if self._answered else START_TIMEOUT_S
        try:
            self._pipe.send_within((self._asked, command), timeout_s)
            number, answer = self._answer(timeout_s)
            while number is not None and number < self._asked:  # the answer to a command that an interrupt broke off
                self._take(answer)
                timeout_s = ANSWER_TIMEOUT_S
                number, answer = self._answer(timeout_s)
        except TimeoutError:
            self._lose(f"the sampler did not answer within {timeout_s:g} s")
        except (EOFError, OSError):
            self._lose(self._last_words())
        else:
            if number is None:
                self._lose(f"the sampler failed: {answer}")
            else:
                self._take(answer)

    def _answer(self, timeout_s: float) -> tuple[int | None, Watched]:
        assert self._pipe is not None
        number, answer = self._pipe.recv_within(timeout_s)
        self._answered = number or 0
        return number, answer

    def _last_words(self) -> str | None:
        """Why the process ended, if it reported that; the report may precede the last command."""
        with contextlib.suppress(EOFError, OSError):
            while self._pipe is not None and self._pipe.poll():
                number, answer = self._pipe.recv_within(ANSWER_TIMEOUT_S)
                if number is None:
                    return f"the sampler failed: {answer}"
        return None

    def _take(self, watched: Watched) -> None:
        self._samples += watched.samples
        self._watched = watched

    def _lose(self, problem: str | None) -> None:
        """Give up on the process, discard all samples: without its end, a window's energy and peak would be wrong."""
        code = self._end(STOP_TIMEOUT_S if problem is None else 0.0)
        if problem is None and code is not None and code < 0:
            problem = f"the sampler was killed by {signal.Signals(-code).name}"
        how = f"exited with code {code}" if code is not None else "could not be ended"
        self.problem = problem or f"the sampler {how}"
        self._samples, self._watched = [], Watched()

    def _end(self, timeout_s: float) -> int | None:
        """Close the pipe, which ends the process, or kill it if it does not end; returns its exit code."""
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout_s)
        return killed(process)
