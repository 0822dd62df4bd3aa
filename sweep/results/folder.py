"""The files of a sweep: the only reader and writer of a sweep's folder.

Raw values are stored (`result.json`, `requests.csv`, `phases.csv`, `telemetry.csv`); every statistic can be
computed from them again. Writes are atomic. Knows file formats, no definitions of metrics.
"""

import contextlib
import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from profiling.atomic_write import write_atomic
from profiling.errors import Refusal
from profiling.measured_cell import NoPhases, RecordedCell, read_cell
from profiling.nsys.nsys_cli import KERNELS_TABLE, PHASES_TABLE
from profiling.phases import PhaseRecord
from profiling.telemetry.samples import TelemetrySample
from sweep.config import ConfigError, require
from sweep.plan.cells import Cell, Plan, outdated
from sweep.results.records import CUT_OFF, ERROR, BatchRow, RequestRow, RunResult
from sweep.workload.inputs import Inputs, image_bytes

RECORDS = "records.jsonl"
"""What is known of a cell while it is being measured, one line per turn."""


@dataclass(frozen=True)
class _Record:
    requests: tuple[RequestRow, ...]
    batch: BatchRow


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV text; None becomes an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


class SweepFolder:
    """One sweep on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lost_events = False

    # -- the sweep as a whole

    def prepare(self) -> None:
        """Create the folder and check that it can be written. Raises ConfigError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".writable-{os.getpid()}"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"output folder {self.path} cannot be written ({error.strerror}); "
                "choose another with hydra.sweep.dir=DIR"
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one sweep. Raises ConfigError when another sweep holds it."""
        with (self.path / ".lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"another sweep is running in {self.path}; wait for it or choose another folder"
                ) from None
            yield

    def save_plan(self, plan: Plan) -> list[Cell]:
        """Write plan.json, keeping the cells that another command put into this folder; returns those.

        Cells that are `outdated` leave the plan; their folders stay.
        """
        keys = {cell.key for cell in plan.cells}
        before = self.load_plan() if self.has_plan else Plan((), ())
        keys |= {cell.key for cell in outdated(before, plan)}
        earlier = [cell for cell in before.cells if cell.key not in keys]
        merged = Plan(plan.cells + tuple(earlier), plan.groups)
        write_atomic(self.path / "plan.json", json.dumps(merged.to_json(), indent=1, ensure_ascii=False))
        return [cell for cell in earlier if cell.origin not in keys]

    def keep_inputs(self, plan: Plan) -> None:
        """Copy the images that the plan's cells edit, so that all cells edit the same. Raises ConfigError, OSError."""
        for inputs in {cell.inputs for cell in plan.cells if cell.inputs and cell.inputs.image and not cell.skip}:
            kept = self._kept_image(inputs)
            if kept.is_file() and hashlib.sha256(kept.read_bytes()).hexdigest() == inputs.image_sha256:
                continue
            data = image_bytes(inputs.image, inputs.image)
            require(
                hashlib.sha256(data).hexdigest() == inputs.image_sha256,
                f"workload.input_image={inputs.image}: the file changed while the sweep was planned; start it again",
            )
            write_atomic(kept, data)

    def input_image(self, cell: Cell) -> Path | None:
        """The copy of the image that a cell edits; None when it has none."""
        return self._kept_image(cell.inputs) if cell.inputs and cell.inputs.image else None

    def _kept_image(self, inputs: Inputs) -> Path:
        """An absolute path, because an engine may run in another folder."""
        return self.path.resolve() / "inputs" / f"{inputs.image_sha256[:16]}{Path(inputs.image).suffix.lower()}"

    @property
    def has_plan(self) -> bool:
        """Whether plan.json is there."""
        return (self.path / "plan.json").is_file()

    def load_plan(self) -> Plan:
        """plan.json. Raises ConfigError when the folder is not a sweep."""
        try:
            return Plan.from_json(json.loads((self.path / "plan.json").read_text()))
        except FileNotFoundError:
            raise ConfigError(f"{self.path} is not a sweep folder: it has no plan.json") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path / 'plan.json'} cannot be read: {error}") from error

    def save_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write manifest.json."""
        write_atomic(self.path / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))

    def load_manifest(self) -> dict[str, Any]:
        """manifest.json, or {} when there is none that can be read."""
        try:
            return json.loads((self.path / "manifest.json").read_text())
        except (OSError, ValueError):
            return {}

    def save_summary(self, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write summary.csv."""
        path = self.path / "summary.csv"
        write_atomic(path, to_csv(columns, ([row.get(column) for column in columns] for row in rows)))
        return path

    def save_report(self, report: Mapping[str, Any]) -> Path:
        """Write report.json as one line, because it can hold thousands of cells."""
        path = self.path / "report.json"
        import msgspec

        write_atomic(path, msgspec.json.encode(report))
        return path

    # -- events: how running groups report to the terminal what they do, whatever the launcher

    def emit(self, event: str, **values: Any) -> None:
        """Append one line to events.jsonl; one write call, so lines of two processes never mix.

        `t` is for the reader; durations come from `clock_s`, which changes of the wall clock do not affect. An event
        that cannot be written does not fail its cell: it is left out, with one message for all of them.
        """
        stamps = {"t": time.time(), "clock_s": time.perf_counter()}
        line = json.dumps({**stamps, "event": event, **values}, ensure_ascii=False) + "\n"
        try:
            with (self.path / "events.jsonl").open("ab", buffering=0) as handle:
                handle.write(line.encode())
        except OSError as error:
            if not self._lost_events:
                print(f"sweep: events.jsonl is incomplete: {error.strerror}", file=sys.stderr)
            self._lost_events = True

    def events(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Events from byte `offset` on, and the offset to continue from."""
        try:
            with (self.path / "events.jsonl").open("rb") as handle:
                handle.seek(offset)
                data = handle.read()
        except FileNotFoundError:
            return [], 0
        complete = data[: data.rfind(b"\n") + 1]
        return list(_parse_events(complete)), offset + len(complete)

    def last_states(self) -> dict[str, dict[str, Any]]:
        """The last event of every cell, by its key."""
        return {event["key"]: event for event in self.events()[0] if event["event"] == "cell"}

    # -- one cell

    def cell_path(self, cell: Cell) -> Path:
        """The cell's folder; may not exist yet."""
        return self.path / cell.folder

    def start_cell(self, cell: Cell) -> Path:
        """Create the cell's folder and write its resolved configuration and the overrides that led to it.

        First removes what an earlier attempt left there (a failed result, half-written files).
        """
        import yaml

        path = self.cell_path(cell)
        for stored in ("result.json", RECORDS):
            (path / stored).unlink(missing_ok=True)
        halves = (*path.glob(".*.tmp"), *path.glob("images/.*"), *path.glob(".trace*"))
        recorded = (*path.glob("trace*"), *path.glob("timeline.*"), path / PHASES_TABLE, path / KERNELS_TABLE)
        for leftover in (*halves, *recorded):
            leftover.unlink(missing_ok=True)
        hydra = path / ".hydra"
        write_atomic(hydra / "config.yaml", yaml.safe_dump(cell.config, sort_keys=False, allow_unicode=True))
        write_atomic(hydra / "overrides.yaml", yaml.safe_dump(list(cell.overrides), allow_unicode=True))
        return path

    def save_log(self, cell: Cell, log: BinaryIO, start: int) -> None:
        """Copy what the engine printed during this cell (from byte `start` of its log) to engine.log.

        The engine may be printing at the position in the log, so that position is not moved.
        """
        size = os.fstat(log.fileno()).st_size
        write_atomic(self.cell_path(cell) / "engine.log", os.pread(log.fileno(), size - start, start))

    def save_result(
        self,
        cell: Cell,
        result: RunResult,
        phases: Sequence[PhaseRecord] = (),
        telemetry: Sequence[TelemetrySample] = (),
    ) -> None:
        """Write a cell's CSV files, then result.json, so that a reader who sees result.json sees everything."""
        path = self.cell_path(cell)
        write_atomic(path / "requests.csv", _rows_csv(RequestRow, result.requests + result.failed))
        write_atomic(
            path / "phases.csv",
            to_csv(
                ("request_id", "rank", "phase", "index", "start_s", "gpu_ms", "host_ms"),
                ((p.request_id, p.rank, p.phase, p.index, p.start_s, p.gpu_ms, p.host_ms) for p in phases),
            ),
        )
        write_atomic(path / "telemetry.csv", _rows_csv(TelemetrySample, telemetry))
        write_atomic(path / "result.json", result.to_bytes())
        (path / RECORDS).unlink(missing_ok=True)

    def append_record(self, cell: Cell, requests: Sequence[RequestRow], batch: BatchRow) -> None:
        """Keep the result of a turn while the cell is still being measured; `save_result` replaces it."""
        import msgspec

        line = msgspec.json.encode({"requests": requests, "batch": batch}) + b"\n"
        path = self.cell_path(cell)
        path.mkdir(parents=True, exist_ok=True)
        with (path / RECORDS).open("ab", buffering=0) as handle:
            handle.write(line)

    def _cut_off(self, cell: Cell) -> RunResult | None:
        """What `append_record` kept of a cell whose sweep ended before its result was stored, or None."""
        import msgspec

        requests: list[RequestRow] = []
        batches: list[BatchRow] = []
        try:
            lines = (self.cell_path(cell) / RECORDS).read_bytes().splitlines()
        except OSError:
            return None
        for line in lines:
            with contextlib.suppress(msgspec.MsgspecError):  # the last one may be cut
                record = msgspec.json.decode(line, type=_Record)
                requests += record.requests
                batches.append(record.batch)
        if not batches:
            return None
        count = "1 batch was" if len(batches) == 1 else f"{len(batches)} batches were"
        reason = f"the sweep ended while the cell was running; {count} kept"
        rows = tuple(requests), tuple(batches)
        return RunResult(cell.key, cell.label, ERROR, CUT_OFF, reason, cell.device, requests=rows[0], batches=rows[1])

    def load_result(self, cell: Cell) -> RunResult | None:
        """A cell's result; None when there is none or it cannot be read (it then counts as missing)."""
        return self.read_result(cell)[0]

    def read_result(self, cell: Cell) -> tuple[RunResult | None, str]:
        """A cell's result, or None and why it cannot be read; None and "" when there is none.

        For a cell that was cut off, the result is an ERROR with what was measured by then.
        """
        try:
            result = RunResult.from_bytes((self.cell_path(cell) / "result.json").read_bytes())
        except FileNotFoundError:
            return self._cut_off(cell), ""
        except (OSError, ValueError) as error:
            return None, f"result.json cannot be read: {error}"
        if result.key != cell.key:
            return None, f"result.json cannot be read: it belongs to cell {result.key}"
        if result.state != ERROR and not result.batches:
            return None, "result.json cannot be read: it holds no measured batch"
        return result, ""

    def load_results(self, plan: Plan) -> dict[str, tuple[RunResult | None, str]]:
        """`read_result` of every cell that runs, by its key."""
        return {cell.key: self.read_result(cell) for cell in plan.cells if not cell.skip}

    def damaged_image(self, cell: Cell, result: RunResult, missing: bool = True) -> str:
        """The first image that is not a complete PNG, for example after a power loss; "" when all are complete.

        `missing` says whether a missing image counts.
        """
        path = self.cell_path(cell)
        images = (request.image for request in result.requests if request.image)
        return next((n for n in images if not _is_whole_png(path / n) and (missing or (path / n).exists())), "")

    def load_recorded_phases(self, cell: Cell) -> list[dict[str, str]]:
        """Rows of nsys_phases.csv: what the trace says about each phase and process; [] when there are none."""
        try:
            with (self.cell_path(cell) / PHASES_TABLE).open(newline="") as handle:
                return list(csv.DictReader(handle))
        except (OSError, ValueError, csv.Error):
            return []

    def recorded(self, cell: Cell) -> tuple[RecordedCell | None, str]:
        """Phases of a cell's first batch with its telemetry; or None and why they cannot be read; or None and "" when
        there are none."""
        path = self.cell_path(cell)
        try:
            return read_cell(path, first_batch=True), ""
        except NoPhases:
            return None, ""
        except Refusal as refusal:
            return None, str(refusal).replace(f"{path}{os.sep}", "")

    def load_quality(self, cell: Cell) -> dict[str, Any]:
        """Image differences computed earlier, by pair of image hashes; {} when there are none."""
        try:
            return json.loads((self.cell_path(cell) / "quality.json").read_text())
        except (OSError, ValueError):
            return {}

    def save_quality(self, cell: Cell, quality: Mapping[str, Any]) -> None:
        """Store image differences: they are slow to compute and depend only on the two images."""
        with contextlib.suppress(OSError):
            write_atomic(self.cell_path(cell) / "quality.json", json.dumps(quality))


def _parse_events(lines: bytes) -> Iterator[dict[str, Any]]:
    """Events, without lines that a full disk cut short."""
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                yield event


def _is_whole_png(path: Path) -> bool:
    """Whether the file has a PNG's first and last bytes; the pixels between are checked when they are compared."""
    try:
        with path.open("rb") as handle:
            first = handle.read(8)
            handle.seek(-8, os.SEEK_END)
            return first == b"\x89PNG\r\n\x1a\n" and handle.read()[:4] == b"IEND"
    except OSError:
        return False


def _rows_csv(kind: type, rows: Sequence[Any]) -> str:
    columns = [f.name for f in dataclasses.fields(kind)]
    return to_csv(columns, ([getattr(row, column) for column in columns] for row in rows))
