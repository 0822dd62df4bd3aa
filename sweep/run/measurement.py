"""Measurement: warm-up and measured batches of one cell, and the result that comes of them.

Asks a running engine for batches and times the whole; what was measured before a failure is kept, and the
failing batch's requests are kept as failed. Starts no engine, writes nothing but a made-up input image.
"""

import dataclasses
import time
from pathlib import Path

from profiling import ranges
from profiling.phases import PhaseRecord
from profiling.telemetry.sampler import ProcessTreeSampler
from profiling.telemetry.samples import TelemetrySample
from sweep.engines.process.failures import EngineFailure
from sweep.engines.process.host import EngineHost
from sweep.engines.protocol import Output, Request
from sweep.machine.gpu_neighbours import Before, disturbances
from sweep.plan.cells import Cell
from sweep.results.folder import SweepFolder
from sweep.results.records import DONE, ERROR, BatchRow, RequestRow, RunResult
from sweep.run.baseline_engine import Reference, beside
from sweep.run.result_rows import batch_row, request_row, token_times
from sweep.workload.prompts import load_prompts
from sweep.workload.requests import batches, build_requests, make_input_image


class Measurement:
    """Warm-up and measured batches of one cell, gathered so that a failure keeps what was measured before it."""

    def __init__(self, cell: Cell, folder: SweepFolder) -> None:
        self.cell = cell
        self.run = cell.run_config
        self.folder = folder
        self.doing = "loading the engine"
        self.rounds: list[list[Request]] = []
        self.outputs: list[tuple[int, list[Request], Output]] = []
        self.reference_s: list[float | None] = []  # of the baseline beside it, one for each output
        self.failed: list[tuple[int, list[Request], float, float]] = []  # repeat, requests, sent at, seconds taken
        self.start = 0.0
        self.foreign: tuple[str, ...] = ()
        self.throttled: tuple[str, ...] = ()
        self.telemetry_problem = ""
        self.phases: list[PhaseRecord] = []
        self.prompts: tuple[str, ...] = ()
        self.wall_s: float | None = None
        self.telemetry: dict[str, float | None] = {}
        self.telemetry_samples: tuple[TelemetrySample, ...] = ()

    def warm_up(self, host: EngineHost, reference: Reference | None = None) -> None:
        """Generate the first batch as often as the configuration says, unmeasured. Raises EngineFailure.

        `reference` is the engine of the baseline, which warms up as well.
        """
        run = self.run
        requests = build_requests(run.workload, run.batch, run.seed)
        self.prompts = tuple(load_prompts(run.workload))
        if run.workload.task == "image_edit":
            path = self.folder.cell_path(self.cell)
            requests = [self._with_input_image(r, path) for r in requests]
        self.rounds = batches(requests, run.batch)
        self.folder.emit("cell", key=self.cell.key, state="warm-up")
        self.doing = "warming up"
        for _ in range(run.engine.warmup):
            self._beside(reference, self.rounds[0], run.engine.warmup_timeout_s)
            host.generate(self.rounds[0], None, run.engine.warmup_timeout_s, self.doing)

    def measure(
        self, host: EngineHost, sampler: ProcessTreeSampler, before: Before, reference: Reference | None = None
    ) -> None:
        """Measure every batch `repeats` times, after `warm_up`. Raises EngineFailure.

        `sampler` watches the engine, `before` is what was on the GPUs before the engine was there. `reference` is
        the engine of the baseline: it generates every batch as well, in turns before and after.
        """
        run, rounds = self.run, self.rounds
        path = self.folder.cell_path(self.cell)
        self.start = sampler.mark()
        if reference is not None:
            reference.watch()
        try:
            for repeat in range(run.workload.repeats):
                for index, batch in enumerate(rounds):
                    self.doing = f"generating batch {index + 1} of {len(rounds)}, repeat {repeat + 1}"
                    first = (repeat + index) % 2 == 0
                    reference_s = self._beside(reference, batch, run.engine.request_timeout_s) if first else None
                    self._measure_batch(host, repeat, batch, len(rounds), path if repeat == 0 else None)
                    if not first:
                        reference_s = self._beside(reference, batch, run.engine.request_timeout_s)
                    self.reference_s.append(reference_s)
        finally:
            end = time.perf_counter()
            sampler.rest()
            self.wall_s = end - self.start
            window = sampler.window(self.start, end)
            self.telemetry = dataclasses.asdict(window.summary)
            self.telemetry_samples = tuple(dataclasses.replace(s, time_s=s.time_s - self.start) for s in window.samples)
            shared = disturbances(sampler.gpu_users(), sampler.tree_pids(), before)
            watched = ("a profiling tool watched the whole sweep",) if ranges.attached() else ()
            doubts = reference.doubts(self.start, end) if reference is not None else ()
            self.foreign = (*shared, *watched, *doubts)
            self.throttled = tuple(map(str, window.throttled))
            self.telemetry_problem = sampler.problem

    def _measure_batch(
        self, host: EngineHost, repeat: int, batch: list[Request], rounds: int, keep: Path | None
    ) -> None:
        total = rounds * self.run.workload.repeats
        self.folder.emit("cell", key=self.cell.key, state="running", done=len(self.outputs), total=total)
        sent = time.perf_counter()
        try:
            output = host.generate(batch, keep, self.run.engine.request_timeout_s, self.doing)
        except BaseException:
            self.failed.append((repeat, batch, sent, time.perf_counter() - sent))
            raise
        self.outputs.append((repeat, batch, output))

    def _beside(self, reference: Reference | None, batch: list[Request], timeout_s: float) -> float | None:
        """Seconds that the baseline takes for the same batch; None without one."""
        if reference is None:
            return None
        try:
            return reference.host.generate(batch, None, timeout_s, self.doing).latency_s
        except EngineFailure as error:
            raise beside(error) from error

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
            times = token_times(output)
            reference_s = self.reference_s[number] if number < len(self.reference_s) else None
            batch_rows.append(dataclasses.replace(batch_row(number, repeat, output), reference_s=reference_s))
            for position, request in enumerate(batch):
                row = request_row(request, repeat, number, output.start_s - zero_s, output.latency_s)
                rows.append(
                    dataclasses.replace(
                        row,
                        ttft_s=times[position][0],
                        tpot_s=times[position][1],
                        output_tokens=output.output_tokens,
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
            device=self.cell.device,
            started_at=started_at,
            load_s=load_s,
            wall_s=self.wall_s,
            requests=tuple(rows),
            batches=tuple(batch_rows),
            prompts=self.prompts,
            telemetry=self.telemetry,
            failed=self._failed_rows(failure) if failure else (),
            foreign=self.foreign,
            first_request_s=self._first_request_s(),
            throttled=self.throttled,
            telemetry_problem=self.telemetry_problem,
        )

    def _first_request_s(self) -> float | None:
        """When the first batch began in the engine, counted from `start` as telemetry is; None where not told."""
        first = self.outputs[0][2] if self.outputs else None
        if first is None or first.epoch_s is None:
            return None
        return first.epoch_s + first.start_s - self.start

    def _failed_rows(self, failure: EngineFailure) -> tuple[RequestRow, ...]:
        """The requests of the batch that failed: no image, and the error in place of one."""
        zero_s = self.start + (self._first_request_s() or 0.0)
        return tuple(
            dataclasses.replace(
                request_row(request, repeat, len(self.outputs), sent - zero_s, took_s),
                exit_code=1,
                error=failure.reason,
            )
            for repeat, batch, sent, took_s in self.failed
            for request in batch
        )
