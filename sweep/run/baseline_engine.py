"""Interleaved baselines: engines that generate every batch of a cell as well, right before or after it.

The speed of a shared machine drifts by more than features gain; a baseline measured in the same seconds drifts
along, and the drift cancels (the idea of duet benchmarking, Bulej et al. 2020). On a CPU the engine of the
baseline's own group stays loaded for it, so nothing starts twice; on GPUs, where it needs a device of its own,
and in a launcher's workers, it lives as long as the group. Effects only.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from profiling.telemetry.sampler import ProcessTreeSampler
from sweep.engines.process.failures import EngineFailure
from sweep.engines.process.host import EngineHost
from sweep.engines.protocol import EngineSpec
from sweep.machine.gpu_neighbours import Before, disturbances
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from sweep.results.folder import SweepFolder


@dataclass(frozen=True)
class BaselineEngine:
    """A baseline's engine. On GPUs, which the cell's own sampler does not see, one of its own watches them."""

    host: EngineHost
    before: Before = field(default_factory=Before)
    sampler: ProcessTreeSampler | None = None

    def watch(self) -> None:
        """A measurement begins."""
        if self.sampler is not None:
            self.sampler.mark()

    def doubts(self, start_s: float, end_s: float) -> tuple[str, ...]:
        """The measurement is over: why its times between these two cannot be trusted, a sentence each."""
        if self.sampler is None:
            return ()
        self.sampler.rest()
        throttled = map(str, self.sampler.window(start_s, end_s).throttled)
        shared = disturbances(self.sampler.gpu_users(), self.sampler.tree_pids(), self.before)
        return tuple(f"interleaved baseline: {said}" for said in (*shared, *throttled))

    def close(self, kill: bool = False) -> None:
        """End the engine; with `kill` at once, because it may be busy and asking it to end would only cost time."""
        if self.sampler is not None:
            self.sampler.stop()
        if kill:
            self.host.kill()
        self.host.close()
        if self.host.spec.device == "cuda" and not kill:
            self.before.left()


_SHARED: "ContextVar[BaselineEngines | None]" = ContextVar("shared", default=None)


class BaselineEngines:
    """Loaded baseline engines by engine key. Use as a context manager: leaving it ends them all."""

    def __init__(self, folder: SweepFolder, plan: Plan, numbers: list[int]) -> None:
        self.folder = folder
        self.plan = plan
        self.waiting = list(numbers)
        self._loaded: dict[str, BaselineEngine] = {}
        self._unloadable: set[str] = set()

    @staticmethod
    def shared() -> "BaselineEngines | None":
        """Those that the sweep of this process shares among its groups; None in the workers of a launcher."""
        return _SHARED.get()

    @contextlib.contextmanager
    def shared_by_groups(self) -> Iterator[None]:
        """While the block runs, groups that run in this process use these. Leaving it ends them all."""
        token = _SHARED.set(self)
        try:
            with self:
                yield
        finally:
            _SHARED.reset(token)

    def __enter__(self) -> "BaselineEngines":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for key in list(self._loaded):
            self._loaded.pop(key).close(kill=kind is not None)

    def start_group(self, number: int) -> None:
        """Group `number` begins: engines that neither it nor a later one needs are ended."""
        self.waiting = [n for n in self.waiting if n >= number]
        needed = {self._baseline(c).engine_key for n in self.waiting for c in self._cells(n) if c.interleaved}
        for key in set(self._loaded) - needed:
            self._loaded.pop(key).close()

    def end_group(self) -> None:
        """A group is over: engines give their GPUs back, those on a CPU stay."""
        for key, engine in list(self._loaded.items()):
            if engine.host.spec.device == "cuda":
                self._loaded.pop(key).close()

    def keep(self, engine_key: str, host: EngineHost) -> bool:
        """Take over the engine of a finished group; False when no later group needs it."""
        later = [cell for number in self.waiting for cell in self._cells(number) if cell.interleaved]
        wanted = any(self._baseline(cell).engine_key == engine_key for cell in later)
        if not wanted or host.spec.device != "cpu" or host.process.poll() is not None or engine_key in self._loaded:
            return False
        self._loaded[engine_key] = BaselineEngine(host)
        return True

    def get(self, cell: Cell, spec: Callable[[Cell], EngineSpec], load_timeout_s: float) -> BaselineEngine | None:
        """The loaded engine of the baseline interleaved with `cell`; None when there is none.

        A baseline that cannot be loaded is tried once; its own cells say why, and others are measured without it.
        """
        if not cell.interleaved:
            return None
        baseline = self._baseline(cell)
        if baseline.engine_key in self._unloadable:
            return None
        engine = self._loaded.get(baseline.engine_key)
        if engine is not None and engine.host.process.poll() is None:
            return engine
        if engine is not None:  # it died
            self._loaded.pop(baseline.engine_key).close()
        asked = spec(baseline)
        before = Before.now(asked.gpu_ids) if asked.device == "cuda" else Before()
        try:
            host = EngineHost(asked, load_timeout_s)
        except EngineFailure:
            self._unloadable.add(baseline.engine_key)
            return None
        sampler = ProcessTreeSampler(host.pid, gpu_indices=before.indices) if before.indices else None
        engine = self._loaded[baseline.engine_key] = BaselineEngine(host, before, sampler)
        self.folder.emit("engine_start", key=baseline.key, engine_key=baseline.engine_key, pid=host.pid)
        try:
            if sampler is not None:
                sampler.start()  # gets ready while the engine loads
            host.load(load_timeout_s)
        except EngineFailure:
            self._loaded.pop(baseline.engine_key).close()
            self._unloadable.add(baseline.engine_key)
            return None
        return engine

    def _baseline(self, cell: Cell) -> Cell:
        return self.plan.cell(cell.interleaved)

    def _cells(self, number: int) -> list[Cell]:
        return [self.plan.cell(key) for key in self.plan.groups[number].cells]


def failure_of_baseline(error: EngineFailure) -> EngineFailure:
    """The failure of a baseline, as the failure of its cell, whose own engine is unharmed."""
    return EngineFailure(error.cause, f"the interleaved baseline failed: {error.reason}", alive=True)
