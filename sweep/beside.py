"""Baseline engines that run beside the cells they are compared with, batch by batch.

The speed of a shared machine drifts by more than features gain; a baseline measured in the same seconds drifts
along, and the drift cancels (the idea of duet benchmarking, Bulej et al. 2020). On a CPU the engine of the
baseline's own group stays loaded for it, so nothing starts twice; on GPUs, where it needs a device of its own,
and in a launcher's workers, it lives as long as the group. Effects only.
"""

from collections.abc import Callable

from sweep.engines.base import EngineSpec
from sweep.engines.host import EngineFailure, EngineHost
from sweep.gpus import Before
from sweep.plan import Cell, Plan
from sweep.results import SweepFolder


class References:
    """Loaded baseline engines by engine key. Use as a context manager: leaving it ends them all."""

    def __init__(self, folder: SweepFolder, plan: Plan, numbers: list[int]) -> None:
        self.folder = folder
        self.plan = plan
        self.waiting = list(numbers)
        self._hosts: dict[str, EngineHost] = {}
        self._before: dict[str, Before] = {}  # of those on GPUs
        self._unloadable: set[str] = set()

    def __enter__(self) -> "References":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for host in self._hosts.values():
            if kind is not None:
                host.kill()  # it may be busy: asking it to end would only cost time
            host.close()
        self._hosts.clear()

    def start_group(self, number: int) -> None:
        """Group `number` begins: engines that neither it nor a later one needs are ended."""
        self.waiting = [n for n in self.waiting if n >= number]
        needed = {self._baseline(c).engine_key for n in self.waiting for c in self._cells(n) if c.beside}
        for key in set(self._hosts) - needed:
            self._hosts.pop(key).close()

    def end_group(self) -> None:
        """A group is over: engines give their GPUs back, those on a CPU stay."""
        for key, host in list(self._hosts.items()):
            if host.spec.device == "cuda":
                self._hosts.pop(key).close()
                self._before.pop(key, Before()).left()

    def keep(self, engine_key: str, host: EngineHost) -> bool:
        """Take over the engine of a finished group; False when nobody will need it."""
        later = [cell for number in self.waiting for cell in self._cells(number) if cell.beside]
        wanted = any(self._baseline(cell).engine_key == engine_key for cell in later)
        if not wanted or host.spec.device != "cpu" or host.process.poll() is not None or engine_key in self._hosts:
            return False
        self._hosts[engine_key] = host
        return True

    def get(self, cell: Cell, spec: Callable[[Cell], EngineSpec], load_timeout_s: float) -> EngineHost | None:
        """The loaded baseline engine that runs beside `cell`; None when none does.

        A baseline that cannot be loaded is tried once; its own cells say why, and others are measured without it.
        """
        if not cell.beside:
            return None
        baseline = self._baseline(cell)
        if baseline.engine_key in self._unloadable:
            return None
        host = self._hosts.get(baseline.engine_key)
        if host is not None and host.process.poll() is None:
            return host
        if host is not None:
            self._hosts.pop(baseline.engine_key).close()
        asked = spec(baseline)
        self._before[baseline.engine_key] = Before.now(asked.gpu_ids)
        try:
            host = EngineHost(asked, load_timeout_s)
            self._hosts[baseline.engine_key] = host
            self.folder.emit("engine_start", key=baseline.key, engine_key=baseline.engine_key, pid=host.pid)
            host.load(load_timeout_s)
        except EngineFailure:
            if baseline.engine_key in self._hosts:
                self._hosts.pop(baseline.engine_key).close()
            self._unloadable.add(baseline.engine_key)
            return None
        return host

    def _baseline(self, cell: Cell) -> Cell:
        return self.plan.cell(cell.beside)

    def _cells(self, number: int) -> list[Cell]:
        return [self.plan.cell(key) for key in self.plan.groups[number].cells]


def beside(error: EngineFailure) -> EngineFailure:
    """The failure of a baseline, as the failure of the cell beside it, whose own engine is unharmed."""
    return EngineFailure(error.cause, f"the baseline beside it failed: {error.reason}", alive=True)
