"""run_group: one engine, its cells one after another; every cell ends with a result on disk.

Effects only: leases devices, starts the engine process, warms up, measures, stores. What a failure means is
`EngineFailure`'s to say; nothing here raises for a cell that went wrong.
"""

import contextlib
import dataclasses
import datetime
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from profiling.phases import PhaseRecord
from profiling.telemetry import ProcessTreeSampler, TelemetrySample
from sweep import features as feature_rules
from sweep import gpus, metrics
from sweep.config import RunConfig
from sweep.engines.base import EngineSpec, Output, Request
from sweep.engines.host import EngineFailure, EngineHost, one_line
from sweep.plan import Cell, Plan
from sweep.results import DONE, ERROR, BatchRow, RequestRow, RunResult, SweepFolder
from sweep.workload.prompts import load_prompts
from sweep.workload.requests import batches, build_requests, make_input_image


def engine_spec(run: RunConfig, devices: gpus.Devices, ranks: int, gpu_ids: tuple[int, ...]) -> EngineSpec:
    """What the child needs to load this cell's engine."""
    dtype = run.engine.dtype
    if dtype == "auto":
        dtype = "float32" if devices.kind == "cpu" else "bfloat16"
    chosen = feature_rules.parse_features(run.feature)
    return EngineSpec(
        engine=run.engine.name,
        family=run.model.family,
        model=run.model.name,
        checkpoint=run.model.path or "",
        embedded=run.model.embedded,
        device=devices.kind,
        dtype=dtype,
        ranks=ranks,
        threads_per_rank=run.engine.threads_per_rank,
        features=feature_rules.engine_arguments(chosen, run.engine.name),
        collective_timeout_s=run.engine.collective_timeout_s,
        gpu_ids=gpu_ids,
    )


class GroupRunner:
    """Runs the cells of one group in one engine; starts the engine again after it died."""

    def __init__(
        self, folder: SweepFolder, cells: list[Cell], gpu_ids: tuple[int, ...], standby: "Standby | None"
    ) -> None:
        self.folder = folder
        self.cells = cells
        self.gpu_ids = gpu_ids
        self.standby = standby
        self.host: EngineHost | None = None
        self.load_s: float | None = None

    def run(self) -> None:
        """Run every cell that has no result yet."""
        try:
            for cell in self.cells:
                self._run_cell(cell)
        finally:
            self._stop()

    def _run_cell(self, cell: Cell) -> None:
        log_start = self.host.log.seek(0, 2) if self.host else 0
        started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.folder.start_cell(cell)
        measurement = Measurement(cell, self.folder)
        failure: EngineFailure | None = None
        try:
            host = self._ensure_engine(cell)
            measurement.measure(host)
        except EngineFailure as error:
            failure = error
        except Exception as error:  # our own fault; the cell says so and the sweep goes on
            traceback.print_exc()
            failure = EngineFailure("internal", f"internal error: {one_line(f'{type(error).__name__}: {error}')}")
        result = measurement.result(self.load_s, started_at, failure)
        if self.host is not None:
            with contextlib.suppress(OSError):
                self.folder.save_log(cell, self.host.log, log_start)
        if failure and not failure.alive:
            self._stop()
        try:
            self.folder.save_result(cell, result, measurement.phases, measurement.telemetry_samples)
        except OSError as error:
            self._state(cell, "error", reason=f"result could not be written: {error.strerror}")
            return
        self._state(cell, result.state, reason=result.reason)

    def _ensure_engine(self, cell: Cell) -> EngineHost:
        if self.host is not None:
            return self.host
        run = cell.run_config
        devices = gpus.discover(run.engine, run.model, run.hardware)
        self._state(cell, "loading")
        spec = engine_spec(run, devices, cell.gpus, self.gpu_ids)
        self.host = (self.standby.take(spec) if self.standby else None) or EngineHost(spec)
        self.folder.emit("engine_start", key=cell.key, engine_key=cell.engine_key, pid=self.host.pid)
        if self.standby:
            self.standby.prepare_next()
        try:
            self.load_s = self.host.load(spec, run.engine.load_timeout_s)
        except EngineFailure as error:
            raise EngineFailure(error.cause, error.reason, alive=False) from error
        if self.standby:
            self.standby.settle(run.engine.load_timeout_s)  # nothing may run beside a measurement
        return self.host

    def _stop(self) -> None:
        if self.host is not None:
            self.host.close()
            self.host = None

    def _state(self, cell: Cell, state: str, **values: object) -> None:
        self.folder.emit("cell", key=cell.key, state=state, **values)


class Measurement:
    """Warm-up and measured batches of one cell, gathered so that a failure keeps what was measured before it."""

    def __init__(self, cell: Cell, folder: SweepFolder) -> None:
        self.cell = cell
        self.run = cell.run_config
        self.folder = folder
        self.outputs: list[tuple[int, list[Request], Output]] = []
        self.phases: list[PhaseRecord] = []
        self.prompts: tuple[str, ...] = ()
        self.wall_s: float | None = None
        self.telemetry: dict[str, float | None] = {}
        self.telemetry_samples: tuple[TelemetrySample, ...] = ()

    def measure(self, host: EngineHost) -> None:
        """Warm up, then measure every batch `repeats` times. Raises EngineFailure."""
        run = self.run
        path = self.folder.cell_path(self.cell)
        requests = build_requests(run.workload, run.batch, run.seed)
        self.prompts = tuple(load_prompts(run.workload))
        if run.workload.task == "image_edit":
            requests = [self._with_input_image(r, path) for r in requests]
        rounds = batches(requests, run.batch)
        self.folder.emit("cell", key=self.cell.key, state="warm-up")
        for _ in range(run.engine.warmup):
            host.generate(rounds[0], None, run.engine.warmup_timeout_s, "warming up")
        total = len(rounds) * run.workload.repeats
        sampler = ProcessTreeSampler(host.pid, gpu_indices=host.spec.gpu_ids if host.spec.device == "cuda" else ())
        sampler.start()
        start = time.perf_counter()
        try:
            for repeat in range(run.workload.repeats):
                for index, batch in enumerate(rounds):
                    self.folder.emit("cell", key=self.cell.key, state="running", done=len(self.outputs), total=total)
                    doing = f"generating batch {index + 1} of {len(rounds)}, repeat {repeat + 1}"
                    keep = path if repeat == 0 else None
                    output = host.generate(batch, keep, run.engine.request_timeout_s, doing)
                    self.outputs.append((repeat, batch, output))
        finally:
            end = time.perf_counter()
            sampler.stop()
            self.wall_s = end - start
            window = sampler.window(start, end)
            self.telemetry = dataclasses.asdict(window.summary)
            self.telemetry_samples = tuple(dataclasses.replace(s, time_s=s.time_s - start) for s in window.samples)

    def _with_input_image(self, request: Request, path: Path) -> Request:
        given = self.run.workload.input_image
        if given is None:
            image = path / "inputs" / f"seed_{request.seed}.png"
            if not image.exists():
                make_input_image(image, request.seed, (request.width, request.height))
            given = str(image)
        return dataclasses.replace(request, input_image=given)

    def result(self, load_s: float | None, started_at: str, failure: EngineFailure | None) -> RunResult:
        """What was measured, as it will be stored."""
        rows: list[RequestRow] = []
        batch_rows: list[BatchRow] = []
        self.phases = []
        zero_s = self.outputs[0][2].start_s if self.outputs else 0.0
        for number, (repeat, batch, output) in enumerate(self.outputs):
            name = f"{output.request_ids[0]}.{repeat}"
            self.phases += [dataclasses.replace(p, request_id=name, start_s=p.start_s - zero_s) for p in output.phases]
            batch_row, ttft_s = _batch_row(number, repeat, output)
            batch_rows.append(batch_row)
            for position, request in enumerate(batch):
                rows.append(
                    RequestRow(
                        request_id=f"{request.request_id}.{repeat}",
                        prompt_index=request.prompt_index,
                        seed=request.seed,
                        width=request.width,
                        height=request.height,
                        steps=request.steps,
                        start_s=output.start_s - zero_s,
                        queue_s=0.0,
                        ttft_s=ttft_s,
                        e2e_s=output.latency_s,
                        output_tokens=output.output_tokens,
                        exit_code=0,
                        error="",
                        repeat=repeat,
                        batch_index=number,
                        prompt_tokens=output.prompt_tokens[position],
                        image=output.image_paths[position],
                        image_hash=output.image_hashes[position],
                    )
                )
        return RunResult(
            key=self.cell.key,
            label=self.cell.label,
            state=ERROR if failure else DONE,
            cause=failure.cause if failure else "",
            reason=failure.reason if failure else "",
            device=self.run.engine.device,
            started_at=started_at,
            load_s=load_s,
            wall_s=self.wall_s,
            requests=tuple(rows),
            batches=tuple(batch_rows),
            prompts=self.prompts,
            telemetry=self.telemetry,
        )


def _batch_row(number: int, repeat: int, output: Output) -> tuple[BatchRow, float | None]:
    """Phase totals of rank 0, and the time to the first AR token (None without an AR stage)."""
    totals: dict[str, float] = {}
    counts: dict[str, int] = {}
    ttft_s = None
    own = [p for p in output.phases if p.rank == 0]
    request = next((p for p in own if p.phase == "request"), None)
    for phase in own:
        totals[phase.phase] = totals.get(phase.phase, 0.0) + (
            phase.gpu_ms if phase.gpu_ms is not None else phase.host_ms
        )
        counts[phase.phase] = counts.get(phase.phase, 0) + 1
        if phase.phase == "ar_prefill" and request is not None and ttft_s is None:
            ttft_s = phase.start_s - request.start_s + phase.host_ms / 1000
    decodes = [p.host_ms / 1000 for p in own if p.phase == "ar_decode"]
    tpot_s = metrics.tpot(sum(decodes), 0.0, len(decodes) + 1)  # of the AR stage, counted from its first token
    return BatchRow(number, repeat, output.latency_s, totals, counts, output.evidence, tpot_s), ttft_s


class Standby:
    """The process of the next engine, importing its libraries while this one loads, idle before it measures.

    Saves the seconds that every process needs to import its libraries; each engine still is a process of its
    own. Only where groups run one after another in one process, and on CPUs: a GPU's process must know its
    devices when it starts. Use as a context manager: leaving it ends a process that nobody took.
    """

    def __init__(self, folder: SweepFolder, plan: Plan, numbers: list[int]) -> None:
        self.folder = folder
        self.plan = plan
        self.waiting = list(numbers)
        self._host: EngineHost | None = None

    def __enter__(self) -> "Standby":
        return self

    def __exit__(self, *_: object) -> None:
        if self._host is not None:
            self._host.kill()
            self._host.close()

    def start_group(self, number: int) -> None:
        """Group `number` begins: it is no longer a next one."""
        self.waiting = [n for n in self.waiting if n > number]

    def take(self, spec: EngineSpec) -> EngineHost | None:
        """The prepared process, if there is one that suits `spec`."""
        host, self._host = self._host, None
        if host is None:
            return None
        suits = all(getattr(host.spec, f) == getattr(spec, f) for f in ("engine", "device", "threads_per_rank"))
        if suits and host.process.poll() is None:
            return host
        host.close()
        return None

    def prepare_next(self) -> None:
        """Start the process of the next group that has something to run."""
        if self._host is not None:
            return
        for number in self.waiting:
            group = self.plan.groups[number]
            missing = [c for key in group.cells if not is_finished(self.folder, c := self.plan.cell(key))]
            if not missing:
                continue
            run = missing[0].run_config
            devices = gpus.discover(run.engine, run.model, run.hardware)
            if devices.kind == "cpu" and run.engine.name != "noop":
                self._host = EngineHost(engine_spec(run, devices, group.gpus, ()))
                self._host.prepare()
            return

    def settle(self, timeout_s: float) -> None:
        """Wait until the prepared process is idle; give it up when it failed, its group then starts its own."""
        if self._host is None:
            return
        try:
            self._host.finish_preparing(timeout_s)
        except EngineFailure:
            self._host.close()
            self._host = None


STANDBY: Standby | None = None
"""Set by the session while groups run in its own process; None in the workers of a launcher."""


def run_group(folder: SweepFolder, plan: Plan, number: int) -> None:
    """Run group `number` of the plan: what is missing of it, in one engine. Never raises for a cell's failure."""
    if STANDBY is not None:
        STANDBY.start_group(number)
    group = plan.groups[number]
    missing = [cell for key in group.cells if (cell := plan.cell(key)) and not is_finished(folder, cell)]
    if not missing:
        return
    run = missing[0].run_config
    devices = gpus.discover(run.engine, run.model, run.hardware)

    def waiting(message: str) -> None:
        for cell in missing:
            folder.emit("cell", key=cell.key, state="waiting", reason=message)

    with contextlib.ExitStack() as stack:
        gpu_ids = stack.enter_context(gpus.lease(devices, group.gpus, waiting))
        GroupRunner(folder, missing, gpu_ids, STANDBY).run()


def is_finished(folder: SweepFolder, cell: Cell) -> bool:
    """Whether a cell has a result that a rerun keeps; one that ended in ERROR is measured again."""
    result = folder.load_result(cell)
    return result is not None and result.state == DONE


Launch = Callable[[list[int]], None]
"""Runs the groups with these numbers, by whatever launcher."""
