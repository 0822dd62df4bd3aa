"""run_group: one engine, its cells one after another; every cell ends with a result on disk.

Effects only: leases devices, starts the engine process, has cells measured, stores. `EngineFailure` says
what a failure means; nothing here raises for a cell that went wrong. docs/faults.md lists what can.
"""

import contextlib
import dataclasses
import datetime
import errno
import time
import traceback
from collections.abc import Callable, Mapping

from profiling import ranges
from profiling.telemetry.sampler import ProcessTreeSampler
from sweep.analysis import load_search
from sweep.engines.process.failures import EngineFailure, one_line, shortage
from sweep.engines.process.forkserver import await_imports, server_started
from sweep.engines.process.host import EngineHost, forks, preimport
from sweep.engines.protocol import EngineSpec
from sweep.machine import load_measure_lock
from sweep.machine.devices import discover
from sweep.machine.gpu_neighbours import Before
from sweep.machine.leases import lease, lease_folder
from sweep.plan.cells import Cell
from sweep.plan.engine_spec import engine_spec
from sweep.plan.plans import Plan
from sweep.results.folder import SweepFolder
from sweep.results.records import DONE, ERROR, RunResult
from sweep.run import last_words
from sweep.run.baseline_engine import BaselineEngine, BaselineEngines
from sweep.run.measurement import Measurement
from sweep.run.profiler import Profile
from sweep.run.provenance import measured_with

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
"""Errors of writing a file that are not our fault."""


class GroupRunner:
    """Runs the cells of one group in one engine; starts the engine again after it died."""

    def __init__(
        self,
        folder: SweepFolder,
        cells: list[Cell],
        gpu_ids: tuple[int, ...],
        baselines: BaselineEngines,
        numbers: Mapping[str, int],
        group: list[Cell] | None = None,
    ) -> None:
        self.folder = folder
        self.cells = cells
        self.group = group or list(cells)  # all of its cells, finished ones too
        self.gpu_ids = gpu_ids
        self.baselines = baselines
        self.numbers = numbers  # of the cells within the plan, by key: for NVTX ranges
        self.host: EngineHost | None = None
        self.sampler: ProcessTreeSampler | None = None  # of that engine
        self.load_s: float | None = None
        self.load_failure: EngineFailure | None = None
        self.load_failed_in = ""  # folder of the cell whose log says why
        self.before = Before()

    def run(self) -> None:
        """Run every cell that has no result yet."""
        try:
            cells = self.cells
            while cells:
                for cell in cells:
                    self._run_cell(cell)
                cells = self._further()
            if self.host is not None and self.baselines.keep(self.cells[0].engine_key, self.host):
                self.host = None
        finally:
            self._stop()

    def _further(self) -> list[Cell]:
        """Loads that a search adds and that have no result yet, for the engine that is loaded."""
        if self.load_failure is not None or not load_search.searches(self.group):
            return []
        results = {cell.key: self.folder.load_result(cell) for cell in self.group}
        added = load_search.proposed(self.group, results)
        for cell in added:
            self.folder.emit("added", root=cell.root, level=load_search.level_of(cell))
        self.group += added
        missing = [cell for cell in added if not is_finished(self.folder, cell)]
        return missing or (self._further() if added else [])

    def _run_cell(self, cell: Cell) -> None:
        number = self.numbers.get(cell.key, len(self.numbers))
        log_start = self.host.log_size() if self.host else 0
        started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        measurement = Measurement(cell, self.folder)
        profile = Profile(cell.profile, self.folder.cell_path(cell))
        failure: EngineFailure | None = None
        baseline: BaselineEngine | None = None
        interrupt: KeyboardInterrupt | None = None
        try:
            self.folder.start_cell(cell)
            self._note_begin(cell)
            with self._turn(cell, load_measure_lock.LOADING):
                with ranges.marked("engine_load", number):
                    host, sampler = self._ensure_engine(cell)
                    self._note_begin(cell)
                    baseline = self.baselines.get(cell, self._baseline_spec, cell.run_config.engine.load_timeout_s)
                with ranges.marked("warm_up", number):
                    measurement.warm_up(host, baseline)
            with self._turn(cell, load_measure_lock.MEASURING), profile.around(host), ranges.marked("measure", number):
                measurement.measure(host, sampler, self.before, baseline)
            if profile.found.trace:
                measurement.doing = "analysing the trace"
                self._state(cell, "analysing")
                profile.analyse(host.spec.device)
        except EngineFailure as error:
            failure = error
        except KeyboardInterrupt as error:
            failure, interrupt = EngineFailure("interrupted", f"interrupted while {measurement.doing}"), error
            if self.host is not None:
                self.host.kill()  # it is busy: asking it to end would only cost time
        except Exception as error:  # all of the engine's failures are EngineFailure
            failure = _our_failure(error, measurement.doing)
        result = dataclasses.replace(
            measurement.result(self.load_s, started_at, failure),
            profile=profile.kind,
            trace=profile.found.trace,
            profile_note=profile.found.note,
            measured_with=measured_with(),
        )
        self._save_log(cell, log_start, failure, baseline)
        if failure and not failure.alive:
            self._stop()
        self._store(cell, result, measurement, log_start)
        if interrupt is not None:
            raise interrupt

    def _note_begin(self, cell: Cell) -> None:
        with contextlib.suppress(OSError):
            self.folder.save_log(cell, None, 0, last_words.begun(self.host))

    def _save_log(self, cell: Cell, start: int, failure: EngineFailure | None, baseline: BaselineEngine | None) -> None:
        """What the engine printed during the cell; where that failed, also how the engine ended."""
        host, words = self.host, ""
        if failure is not None:
            by_baseline = baseline if isinstance(failure.__cause__, EngineFailure) and host is not None else None
            printed = host is not None and host.log_size() > start
            other = by_baseline.host if by_baseline else None
            words = last_words.of(failure, host, printed, other, self.load_failed_in if host is None else "")
        if host is not None or words:
            with contextlib.suppress(OSError):
                self.folder.save_log(cell, host.log if host else None, start, words)
        if self.load_failure is not None:
            self.load_failed_in = self.load_failed_in or cell.folder

    def _turn(self, cell: Cell, kind: str) -> contextlib.AbstractContextManager[None]:
        """On GPUs, where groups run side by side, loading and measuring exclude each other."""
        if cell.device != "cuda":
            return contextlib.nullcontext()
        return load_measure_lock.turn(
            kind, lease_folder(), lambda message: self._state(cell, "waiting", reason=message)
        )

    def _store(self, cell: Cell, result: RunResult, measurement: Measurement, log_start: int) -> None:
        problem = None
        try:
            self.folder.save_result(cell, result, measurement.phases, measurement.telemetry_samples)
        except (OSError, MemoryError) as error:
            problem = shortage(error) or ("disk", getattr(error, "strerror", ""))
        if problem is not None:  # what the failed attempt held is free by now
            cause, what = problem
            reason = result.reason or f"result could not be written: {what}"
            result = dataclasses.replace(
                result, state=ERROR, cause=result.cause or cause, reason=reason, requests=(), batches=(), failed=()
            )
            with contextlib.suppress(OSError, MemoryError):  # a short file may still fit; else the event says it
                self.folder.save_result(cell, result)
            self._save_log(cell, log_start, EngineFailure(result.cause, reason), None)
        self._state(cell, result.state, reason=result.reason)

    def _ensure_engine(self, cell: Cell) -> tuple[EngineHost, ProcessTreeSampler]:
        """The loaded engine, and what watches it.

        Loading that failed once is not tried again: it takes minutes and would fail again.
        """
        if self.load_failure is not None:
            reason = f"{self.load_failure.reason} (tried once for all cells of this engine)"
            raise EngineFailure(self.load_failure.cause, reason)
        if self.host is None:
            try:
                self._load(cell)
            except EngineFailure as error:
                self.load_failure = EngineFailure(error.cause, error.reason)
                raise self.load_failure from error
        assert self.host is not None
        assert self.sampler is not None
        return self.host, self.sampler

    def _baseline_spec(self, baseline: Cell) -> EngineSpec:
        """The interleaved baseline's engine; on GPUs it has those of the lease that ours does not use."""
        run = baseline.run_config
        devices = discover(run.engine, run.model, run.hardware)
        return engine_spec(run, devices, baseline.gpus, self.gpu_ids[self.cells[0].gpus :])

    def _load(self, cell: Cell) -> None:
        run = cell.run_config
        devices = discover(run.engine, run.model, run.hardware)
        self._state(cell, "loading")
        spec = engine_spec(run, devices, cell.gpus, self.gpu_ids[: cell.gpus])
        self.load_s = None
        self.before = Before.now(spec.gpu_ids) if spec.device == "cuda" else Before()
        self.host = EngineHost(spec, run.engine.load_timeout_s)
        self.sampler = ProcessTreeSampler(self.host.pid, gpu_indices=self.before.indices)
        self.sampler.start()  # gets ready while the engine loads
        self.folder.emit("engine_start", key=cell.key, engine_key=cell.engine_key, pid=self.host.pid)
        self.load_s = self.host.load(run.engine.load_timeout_s)
        parts = {name: round(seconds, 3) for name, seconds in self.host.load_parts.items()}
        self.folder.emit("engine_loaded", key=cell.key, engine_key=cell.engine_key, load_s=self.load_s, parts=parts)

    def _stop(self) -> None:
        """End the engine and wait until its GPUs hold no more memory than before it, for half a minute at most."""
        if self.sampler is not None:
            self.sampler.stop()
            self.sampler = None
        if self.host is None:
            return
        device, engine_key = self.host.spec.device, self.cells[0].engine_key
        began = time.perf_counter()
        self.host.close()
        self.host = None
        if device == "cuda":
            left = self.before.left()
            took_s = round(time.perf_counter() - began, 3)
            self.folder.emit("engine_end", engine_key=engine_key, took_s=took_s, memory_left=left)

    def _state(self, cell: Cell, state: str, **values: object) -> None:
        self.folder.emit("cell", key=cell.key, state=state, **values)


def _our_failure(error: Exception, doing: str) -> EngineFailure:
    """A failure on the parent's side. Running out of something there is not a bug, and the engine is unharmed."""
    if lacking := shortage(error):
        cause, what = lacking
        return EngineFailure(cause, f"{what} while {doing}", alive=True)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return EngineFailure("disk", f"files could not be written: {error.strerror}", alive=True)
    traceback.print_exception(error)
    return EngineFailure("internal", f"internal error: {one_line(f'{type(error).__name__}: {error}')}")


def run_group(folder: SweepFolder, plan: Plan, number: int) -> None:
    """Run the missing cells of group `number` of the plan in one engine. Never raises for a cell's failure."""
    group = plan.groups[number]
    cells = [plan.cell(key) for key in group.cells]
    missing = [cell for cell in cells if not is_finished(folder, cell)]
    if not missing:
        return
    run = missing[0].run_config
    devices = discover(run.engine, run.model, run.hardware)

    def waiting(message: str) -> None:
        for cell in missing:
            folder.emit("cell", key=cell.key, state="waiting", reason=message)

    _preimport(engine_spec(run, devices, group.gpus, ()), run.engine.load_timeout_s, waiting)
    with contextlib.ExitStack() as stack:
        try:
            gpu_ids = stack.enter_context(lease(devices, group.gpus, waiting))
        except OSError as error:
            cause, what = shortage(error) or ("lease", str(error))
            for cell in missing:
                _store_failure(folder, cell, EngineFailure(cause, f"devices could not be leased: {what}"))
            return
        baselines = BaselineEngines.shared() or stack.enter_context(BaselineEngines(folder, plan, [number]))
        baselines.start_group(number)
        try:
            numbers = {cell.key: place for place, cell in enumerate(plan.cells)}
            GroupRunner(folder, missing, gpu_ids, baselines, numbers, cells).run()
        finally:
            baselines.end_group()


def _store_failure(folder: SweepFolder, cell: Cell, failure: EngineFailure) -> None:
    """The result of a cell that could not begin."""
    result = RunResult(cell.key, cell.label, ERROR, failure.cause, failure.reason, cell.device)
    with contextlib.suppress(OSError):  # else the event says it
        folder.start_cell(cell)
        folder.save_log(cell, None, 0, last_words.of(failure, None, printed=False))
        folder.save_result(cell, dataclasses.replace(result, measured_with=measured_with()))
    folder.emit("cell", key=cell.key, state=ERROR, reason=failure.reason)


def _preimport(spec: EngineSpec, timeout_s: float, waiting: Callable[[str], None]) -> None:
    """Have what the engine is forked from imported before it holds devices; on GPUs while nothing is measured."""
    if not forks(spec):
        return
    with contextlib.suppress(OSError):  # reported when the engine is started
        if spec.device != "cuda":
            preimport(spec)
        elif not server_started():  # else we have waited for its imports already, even if in vain
            with load_measure_lock.turn(load_measure_lock.LOADING, lease_folder(), waiting):
                waiting("importing, once for all engines")
                preimport(spec)
                await_imports(timeout_s)


def is_finished(folder: SweepFolder, cell: Cell) -> bool:
    """Whether a cell has a result that a rerun keeps: not one that ended in ERROR or whose images are damaged."""
    return kept_result(folder, cell)[0] is not None


def kept_result(folder: SweepFolder, cell: Cell) -> tuple[RunResult | None, str]:
    """That result, None when the cell has to run; and which stored file makes a finished cell run again, else ""."""
    result, problem = folder.read_result(cell)
    if result is None or result.state != DONE:
        return None, problem
    damaged = folder.damaged_image(cell, result, pixels=True)
    return (None, damaged) if damaged else (result, "")


Launch = Callable[[list[int]], None]
"""Runs the groups with these numbers, by whatever launcher."""
