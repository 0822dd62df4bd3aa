"""Measurement: warm-up and measured turns of one cell, and their result.

A schedule says which requests are sent when, a driver sends them to a running engine, and every record that it hands
back is stored at once: what was measured before a failure is kept, whatever ends the sweep. Starts no engine.
"""

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from profiling import ranges
from profiling.evidence import RankEvidence
from profiling.phases import PhaseRecord
from profiling.telemetry.sampler import ProcessTreeSampler
from profiling.telemetry.samples import Span, TelemetrySample
from sweep.analysis import stage_overlap
from sweep.config.model import EDITS, TEXT
from sweep.engines import registry
from sweep.engines.process.failures import EngineFailure
from sweep.engines.process.host import EngineHost
from sweep.engines.protocol import Request
from sweep.engines.serving.settings import ServeSettings
from sweep.machine.gpu_neighbours import Before, disturbances
from sweep.plan.cells import Cell
from sweep.results.folder import SweepFolder
from sweep.results.records import DONE, ERROR, TOKEN_TIMES, BatchRow, LoadFacts, RequestRow, RunResult
from sweep.run import schedule, source_pictures, turn_taking
from sweep.run.baseline_engine import BaselineEngine
from sweep.run.drivers import Broken, Failed, OfflineDriver, Record, baseline_output, survived
from sweep.run.load_driver import LoadDriver, Lost
from sweep.run.result_rows import alone_rows, batch_row, broken_rows, failed_rows, lost_rows, request_rows
from sweep.run.schedule import Turn
from sweep.workload import arrivals
from sweep.workload.inputs import Inputs, read_inputs
from sweep.workload.mixes import mixed
from sweep.workload.requests import batches, build_requests
from sweep.workload.texts import text_requests

MOST_TO_WARM_UP_WITH = 8
"""Batches, or single requests, that a warm-up tries when the first one fails."""


class Measurement:
    """Warm-up and measured turns of one cell, gathered so that a failure keeps what was measured before it."""

    def __init__(self, cell: Cell, folder: SweepFolder) -> None:
        self.cell = cell
        self.run = cell.run_config
        self.folder = folder
        self.doing = "loading the engine"
        self.turns: tuple[Turn, ...] = ()
        self._places: dict[tuple[int, str], int] = {}  # repeat and request -> number of its turn
        self.records: list[Record] = []
        self.failed: Failed | None = None
        self.broken: list[Broken] = []
        self.lost: tuple[Lost, ...] = ()
        self.load_facts: LoadFacts | None = None
        self.start = 0.0
        self.foreign: tuple[str, ...] = ()
        self.throttled: tuple[str, ...] = ()
        self.telemetry_problem = ""
        self.prompts: tuple[str, ...] = ()
        self.wall_s: float | None = None
        self.stage_s: dict[str, float] = {}
        self.warm_up_evidence: tuple[tuple[RankEvidence, ...], ...] = ()
        self.telemetry: dict[str, float | None] = {}
        self.telemetry_samples: tuple[TelemetrySample, ...] = ()

    def warm_up(self, host: EngineHost, baseline: BaselineEngine | None = None) -> None:
        """Generate the first batch of each shape as often as the configuration says, unmeasured. Raises EngineFailure.

        The interleaved baseline warms up as well.
        """
        run = self.run
        inputs = self.cell.inputs or read_inputs(run.workload)
        self.prompts = inputs.prompts
        texts = run.workload.task == TEXT  # a load warms up for itself, and texts have nothing else
        asked = [] if texts else build_requests(run.workload, run.batch, run.seed, inputs)
        requests = self._with_input_images(asked, inputs)
        rounds = batches(requests, run.batch)
        self.turns = self._load(inputs) if self.cell.under_load else schedule.offline(rounds, run.workload.repeats)
        self._places = {
            (turn.repeat, one.request_id): number for number, turn in enumerate(self.turns) for one in turn.requests
        }
        self.folder.emit("cell", key=self.cell.key, state="warm-up")
        self.doing = "warming up"
        with self._timed("warm_up"):
            for first in turn_taking.first_of_each_shape(rounds) * run.engine.warmup:
                self._warm_up_with(first, rounds, host, baseline)

    def _warm_up_with(
        self,
        first: tuple[Request, ...],
        rounds: list[list[Request]],
        host: EngineHost,
        baseline: BaselineEngine | None,
    ) -> None:
        """Generate an unmeasured batch; if it fails in an engine that keeps running, another one, or a single request.

        Raises EngineFailure.
        """
        limit_s, failure = self.run.engine.warmup_timeout_s, None
        others = [tuple(one) for one in rounds if one[0].follows is None and tuple(one) != first]
        alone = [(request,) for request in first] if len(first) > 1 else []
        for requests in (first, *others, *alone)[:MOST_TO_WARM_UP_WITH]:
            try:
                baseline_output(baseline, requests, limit_s, self.doing)
                output = host.generate(requests, None, limit_s, self.doing)
            except EngineFailure as error:
                if not survived(error):
                    raise
                failure = failure or error
            else:
                self.warm_up_evidence += (output.evidence,)
                return
        if failure is not None:
            raise failure

    def measure(
        self, host: EngineHost, sampler: ProcessTreeSampler, before: Before, baseline: BaselineEngine | None = None
    ) -> None:
        """Have every turn driven, after `warm_up`. Raises EngineFailure.

        `sampler` watches the engine, `before` is what was on the GPUs before the engine was there. The interleaved
        baseline generates every batch as well, in turns before and after.
        """
        driver = self._driver(host, baseline, sampler)
        self.start = sampler.mark()
        if baseline is not None:
            baseline.watch()
        try:
            with self._timed("measure"), contextlib.closing(driver.drive(self._announced())) as records:
                for record in records:
                    self.records.append(record)
                    requests, batch = self._rows(len(self.records) - 1)
                    self.folder.append_record(self.cell, requests, batch)
            self._end_load(driver)
        finally:
            end = time.perf_counter()
            self.failed = driver.failed
            sampler.rest()
            self.wall_s = end - self.start
            window = sampler.window(-math.inf, math.inf, self._own_turns())
            self.telemetry = dataclasses.asdict(window.summary)
            self.telemetry_samples = tuple(dataclasses.replace(s, time_s=s.time_s - self.start) for s in window.samples)
            shared = disturbances(sampler.gpu_users(), sampler.tree_pids(), before)
            watched = ("a profiling tool was attached to the whole sweep",) if ranges.attached() else ()
            doubts = baseline.doubts(self.start, end) if baseline is not None else ()
            self.foreign = (*shared, *watched, *doubts)
            self.throttled = tuple(map(str, window.throttled))
            self.telemetry_problem = sampler.problem
        if self.broken:
            raise EngineFailure("exception", self._what_failed(), alive=True)

    def _broke(self, broken: Broken) -> None:
        """Keep the outcome of a turn that failed in an engine that keeps running."""
        self.broken.append(broken)
        if rows := self._alone_rows(broken):
            self.folder.append_record(self.cell, rows, None, alone=True)
        if broken.failed:
            self.folder.append_record(self.cell, self._broken_rows(broken), None)

    def _what_failed(self) -> str:
        """How many images are missing, and why the first of them is."""
        turns = [record.turn for record in self.records]
        turns += [record.turn for one in self.broken for record in one.alone]
        made = {(one.prompt_index, one.seed) for turn in turns for one in turn.requests}
        asked = {(one.prompt_index, one.seed) for turn in self.turns for one in turn.requests}
        first = next((reason for one in self.broken for _, reason in one.failed), self.broken[0].reason)
        if lost := len(asked - made):
            rest = f"and the other {len(asked) - lost} are there" if lost < len(asked) else "which is all"
            return f"{lost} of {len(asked)} images could not be generated, {rest}: {first}"
        batches = "1 batch" if len(self.broken) == 1 else f"{len(self.broken)} batches"
        return f"{batches} of {len(self.turns)} failed: {first}"

    def _driver(
        self, host: EngineHost, baseline: BaselineEngine | None, sampler: ProcessTreeSampler
    ) -> OfflineDriver | LoadDriver:
        path, run = self.pictures, self.run
        if not self.cell.under_load:
            limit_s = run.engine.request_timeout_s
            return OfflineDriver(host, baseline, path, limit_s, sampler.mark, self._broke, self._ready)
        settings = ServeSettings(run.model.name, run.batch, run.load.batch_wait_ms, run.load.queue)
        generates = registry.kind(run.engine.name).generates
        return LoadDriver(host, run.load, settings, path, run.engine.request_timeout_s, self._progress, generates)

    def _load(self, inputs: Inputs) -> tuple[Turn, ...]:
        """As many requests as the load has, when they are due: prompts repeat with further seeds."""
        run, asked = self.run, self.run.load
        due_s = None
        if asked.name == "open":
            due_s = (
                iter(arrivals.recorded(Path(asked.trace)))
                if asked.trace
                else arrivals.times(asked.arrivals, asked.request_rate or 1.0, run.seed, asked.burstiness, asked.burst)
            )
        count = asked.requests
        if due_s is not None and asked.ramp_s and not asked.trace:
            due_s = arrivals.ramped(due_s, asked.ramp_s)
        if due_s is not None and asked.duration_s is not None:
            times = list(itertools.takewhile(lambda due: due < (asked.duration_s or 0.0), due_s)) or [0.0]
            count, due_s = len(times), iter(times)
        if run.workload.task == TEXT:
            as_tokens = run.workload.prompt_ids
            if as_tokens is None:
                as_tokens = not registry.kind(run.engine.name).attaches
            return schedule.load(text_requests(run.workload, count, run.seed, inputs, as_tokens), due_s)
        work = dataclasses.replace(run.workload, num_prompts=count, seeds_per_prompt=1)
        requests = build_requests(work, 1, run.seed, inputs)
        if asked.mix.mixes:
            limits = (run.model.size_multiple, run.model.max_pixels)
            requests = mixed(requests, asked.mix, run.seed, inputs.instructions, len(inputs.prompts), *limits)
            self.prompts = (*inputs.prompts, *inputs.instructions)
        return schedule.load(self._with_input_images(requests, inputs), due_s)

    def _end_load(self, driver: OfflineDriver | LoadDriver) -> None:
        """Take over what only a load has. Raises EngineFailure when no request succeeded."""
        if not isinstance(driver, LoadDriver):
            return
        self.lost, ended = tuple(driver.lost), driver.ended
        if ended is not None:
            lags = (ended.loop_lag_s, ended.send_lag_s)
            self.load_facts = LoadFacts(ended.wall_s, ended.cpu_s, *lags, uncounted=driver.uncounted)
        if driver.server_metrics:
            self.folder.save_server_metrics(self.cell, driver.server_metrics)
        if self.lost:
            self.folder.append_record(self.cell, self._lost_rows(), None)
        if not any(requests for requests, _ in map(self._rows, range(len(self.records)))):
            why = self.lost[0].answer.error if self.lost else "there was none"
            raise EngineFailure("requests", f"none of {len(self.turns)} requests succeeded: {why}", alive=True)

    def _progress(self, done: int, total: int) -> None:
        self.folder.emit("cell", key=self.cell.key, state="running", done=done, total=total)

    def _own_turns(self) -> list[Span]:
        """When the cell's own engine was at work; the interleaved baseline's turns lie between them."""
        failed = [(self.failed.sent_s, self.failed.sent_s + self.failed.took_s)] if self.failed else []
        broken = [(one.sent_s, one.sent_s + one.took_s) for one in self.broken]
        return [record.span for record in self.records] + broken + failed

    def _announced(self) -> Iterator[Turn]:
        """The turns, each announced when the driver takes it; a load is announced as a whole."""
        if self.cell.under_load:
            self.doing = f"serving {len(self.turns)} requests"
            self._progress(0, len(self.turns))
            yield from self.turns
            return
        for number, turn in enumerate(self.turns):
            self.doing = turn.doing
            self._progress(number, len(self.turns))
            yield turn

    def _ready(self, turn: Turn) -> Turn:
        """A turn with the pictures that turns before it have made. Raises EngineFailure for one that is not there."""
        return turn_taking.with_made(turn, self.pictures, registry.kind(self.run.engine.name).generates)

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Keep how long the block took, also when it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stage_s[stage] = time.perf_counter() - began

    @property
    def pictures(self) -> Path:
        """Absolute path of the cell's folder, which its pictures are in."""
        return self.folder.cell_path(self.cell).resolve()

    def _with_input_images(self, requests: list[Request], inputs: Inputs) -> list[Request]:
        if inputs.edits:
            kept = {path: str(self.folder.kept_picture(path, sha256)) for path, sha256 in inputs.pictures}
            return [turn_taking.with_kept(request, kept) for request in requests]
        edits = self.run.workload.task == EDITS
        return [
            self._with_input_image(request) if edits or request.input_image is not None else request
            for request in requests
        ]

    def _with_input_image(self, request: Request) -> Request:
        kept = self.folder.input_image(self.cell)
        given = request.input_image if kept is None else str(kept)
        if not given:
            side = self.run.load.mix.upload if self.cell.under_load else None
            size = (side, side) if side else request.input_size or request.size
            usual = size == (self.run.workload.width, self.run.workload.height)
            image = self.folder.made_input(self.cell, request.seed, None if usual else size)
            if not image.exists():
                source_pictures.make(image, request.seed, size)
            given = str(image)
        return dataclasses.replace(request, input_image=given)

    @property
    def phases(self) -> list[PhaseRecord]:
        """Of all ranks and turns, counted from the cell's first request."""
        return [
            dataclasses.replace(
                phase,
                request_id=f"{record.output.request_ids[0]}.{record.turn.repeat}",
                start_s=phase.start_s - self._zero_s,
            )
            for record in self.records
            for phase in record.output.phases
        ]

    def result(self, load_s: float | None, started_at: str, failure: EngineFailure | None) -> RunResult:
        """What was measured, as it will be stored."""
        rows = [self._rows(number) for number in range(len(self.records))]
        failed = self._lost_rows() + tuple(row for one in self.broken for row in self._broken_rows(one))
        if failure and self.failed:
            began_s = self.start + (self._first_request_s() or 0.0)
            failed += failed_rows(self.failed, self._place(self.failed.turn), began_s, failure.reason)
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
            requests=tuple(row for requests, _ in rows for row in requests),
            batches=tuple(batch for _, batch in rows),
            prompts=self.prompts,
            telemetry=self.telemetry,
            failed=failed,
            alone=tuple(row for one in self.broken for row in self._alone_rows(one)),
            foreign=self.foreign,
            first_request_s=self._first_request_s(),
            throttled=self.throttled,
            telemetry_problem=self.telemetry_problem,
            stage_s=self.stage_s,
            warm_up=self.warm_up_evidence,
            load=self._load_facts(),
            token_times=TOKEN_TIMES,
        )

    def _load_facts(self) -> LoadFacts | None:
        if self.load_facts is None:
            return None
        both = stage_overlap.busy(phase for record in self.records for phase in record.output.phases)
        if both is None:
            return self.load_facts
        return structs.replace(self.load_facts, ar_s=both.ar_s, dit_s=both.dit_s, both_s=both.both_s)

    def _rows(self, number: int) -> tuple[tuple[RequestRow, ...], BatchRow]:
        """The rows of record `number`."""
        record, first_s = self.records[number], self._first_request_s()
        began_s = None if first_s is None else self.start + first_s
        place = number if self.cell.under_load else self._place(record.turn, number)
        return request_rows(record, place, self._zero_s, began_s), batch_row(record, place)

    def _place(self, turn: Turn, otherwise: int = 0) -> int:
        """The number of a turn, or of a part of it, which is that of its batch."""
        return self._places.get((turn.repeat, turn.requests[0].request_id), otherwise)

    def _alone_rows(self, broken: Broken) -> tuple[RequestRow, ...]:
        first_s, place = self._first_request_s(), self._place(broken.turn)
        began_s = None if first_s is None else self.start + first_s
        return alone_rows(broken, place, self._zero_s, began_s)

    def _broken_rows(self, broken: Broken) -> tuple[RequestRow, ...]:
        return broken_rows(broken, self._place(broken.turn), self.start + (self._first_request_s() or 0.0))

    def _lost_rows(self) -> tuple[RequestRow, ...]:
        return lost_rows(self.lost, self.start + (self._first_request_s() or 0.0))

    @property
    def _zero_s(self) -> float:
        """When the engine began with the first request, on the engine's own clock."""
        return self._first.output.start_s if self._first else 0.0

    @property
    def _first(self) -> Record | None:
        """The first turn that was generated, as a whole or in part."""
        own = [*self.records[:1], *(record for one in self.broken for record in one.alone)]
        return min(own, key=lambda record: record.output.start_s, default=None)

    def _first_request_s(self) -> float | None:
        """The same, counted from `start` as telemetry is; None where the engine does not say when its clock starts."""
        first = self._first.output if self._first else None
        if first is None or first.epoch_s is None:
            return None
        return first.epoch_s + first.start_s - self.start
