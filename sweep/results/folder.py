"""The files of a sweep: the only reader and writer of a sweep's folder.

Raw values are stored (`result.json`, `requests.csv`, `phases.csv`, `telemetry.csv`); every statistic can be
computed from them again. Writes are atomic. Knows file formats, no definitions of metrics.
"""

import contextlib
import csv
import dataclasses
import fcntl
import functools
import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from profiling.atomic_write import replaced
from profiling.errors import Refusal
from profiling.measured_cell import NoPhases, RecordedCell, read_cell
from profiling.nsys.nsys_cli import KERNELS_TABLE, PHASES_TABLE
from profiling.phases import PhaseRecord
from profiling.printing import clean, complain, for_spreadsheets
from profiling.telemetry.samples import TelemetrySample
from sweep.masking import masked, restored, secrets_of
from sweep.plan.cells import Cell, at_level
from sweep.plan.plans import Plan, build_plan, outdated
from sweep.plan.stored import check_plan
from sweep.refusals import ConfigError, require
from sweep.results import engine_log, side_files, stored_events, stored_images
from sweep.results.files import ContainedFiles, Unfit, encoded, parsed, unusable
from sweep.results.records import CUT_OFF, ERROR, BatchRow, RequestRow, RunResult, implausible
from sweep.workload.inputs import image_bytes

SECRETS = ".secrets.json"
"""What is masked in plan.json, while the sweep runs."""

RECORDS = "records.jsonl"
"""What is known of a cell while it is being measured, one line per turn."""

BENCH = "bench.json"
"""A cell under load in the field names of vLLM's serving benchmark."""

SERVER_METRICS = "server_metrics.txt"
"""What the server showed at /metrics when a load ended."""


@dataclass(frozen=True)
class _Record:
    requests: tuple[RequestRow, ...]
    batch: BatchRow | None
    alone: bool = False


def to_csv(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """CSV text; None becomes an empty field, a tuple its values with spaces between.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay as they are.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        [
            _text(value) if isinstance(value, str) else _spaced(value) if isinstance(value, tuple) else value
            for value in row
        ]
        for row in rows
    )
    return buffer.getvalue()


def _spaced(values: tuple[Any, ...]) -> str:
    return " ".join(map(str, values))


@functools.lru_cache(maxsize=4096)
def _text(value: str) -> str:
    """A text as written in a CSV file; cached, because rows share most of theirs."""
    return for_spreadsheets(clean(value))


class SweepFolder:
    """One sweep on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = ContainedFiles(path)
        self._lost_events = False

    # -- the sweep as a whole

    def prepare(self) -> None:
        """Create the folder and check that it can be written. Raises ConfigError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".writable-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
            for name in (".lock", "events.jsonl"):  # written in place
                if (path := self.path / name).is_symlink() or (path.exists() and not path.is_file()):
                    raise ConfigError(f"{path} is not a regular file; remove it or choose another folder")
        except OSError as error:
            raise ConfigError(f"{unusable(self.path, error)}; choose another with hydra.sweep.dir=DIR") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one sweep. Raises ConfigError when another sweep holds it."""
        with (self.path / ".lock").open("ab") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"another sweep is running in {self.path}; wait for it or choose another folder"
                ) from None
            yield

    def save_plan(self, plan: Plan) -> list[Cell]:
        """Write plan.json, keeping the cells that another command put into this folder; returns those.

        Cells that are `outdated` leave the plan; their folders stay. Secrets are masked in it. Those of this plan are
        kept apart until `forget_secrets`. Raises ConfigError when a cell's folder is not in this one.
        """
        keys = {cell.key for cell in plan.cells}
        before = self.load_plan() if self.has_plan else Plan((), ())
        keys |= {cell.key for cell in outdated(before, plan)}
        earlier = [cell for cell in before.cells if cell.key not in keys]
        merged = Plan(plan.cells + tuple(earlier), plan.groups)
        for cell in merged.cells:
            try:
                self.files.check(self.cell_path(cell) / "result.json")
            except Unfit:
                path = self.cell_path(cell)
                raise ConfigError(f"{path} leads out of the sweep's folder; remove it or choose another") from None
        data = merged.to_json()
        secrets = {}
        for one in data["cells"]:
            shown = masked(one["config"])
            if found := secrets_of(one["config"], shown):
                secrets[one["key"]] = found
            one["config"] = shown
        self._keep_secrets(secrets)
        self._write("plan.json", json.dumps(data, indent=1, ensure_ascii=False))
        return [cell for cell in earlier if cell.origin not in keys and cell.root not in keys]

    def keep_inputs(self, plan: Plan) -> None:
        """Copy the images that the plan's cells edit, so that all cells edit the same. Raises ConfigError, OSError."""
        wanted = {cell.inputs for cell in plan.cells if cell.inputs and not cell.skip}
        for path, sha256, field in {(*one, inputs.field) for inputs in wanted for one in inputs.pictures}:
            kept = self.kept_picture(path, sha256)
            if kept.is_file() and hashlib.sha256(kept.read_bytes()).hexdigest() == sha256:
                continue
            data = image_bytes(path, path, field)
            require(
                hashlib.sha256(data).hexdigest() == sha256,
                f"workload.{field}={path}: the file changed while the sweep was planned; start it again",
            )
            self.files.write(self.path / "inputs" / kept.name, data)

    def made_input(self, cell: Cell, seed: int, size: tuple[int, int] | None = None) -> Path:
        """The image that a cell edits with this seed when none was given; `size` where it is not the cell's own."""
        sized = f"_{size[0]}x{size[1]}" if size else ""
        return self.cell_path(cell) / "inputs" / f"seed_{seed}{sized}.png"

    def input_image(self, cell: Cell) -> Path | None:
        """The copy of the image that a cell edits; None when it has none."""
        inputs = cell.inputs
        return self.kept_picture(inputs.image, inputs.image_sha256) if inputs and inputs.image else None

    def kept_picture(self, file: str, sha256: str) -> Path:
        """The copy of a picture that cells edit: an absolute path, because an engine may run in another folder."""
        return self.path.resolve() / "inputs" / f"{sha256[:16]}{Path(file).suffix.lower()}"

    @property
    def has_plan(self) -> bool:
        """Whether plan.json is there."""
        return (self.path / "plan.json").is_file()

    def _keep_secrets(self, secrets: Mapping[str, Any]) -> None:
        """Store them by cell key for jobs in other processes, which read the plan. Only the owner can read the file."""
        path = self.path / SECRETS
        path.unlink(missing_ok=True)
        if secrets:
            with replaced(path) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_text(json.dumps(secrets), encoding="utf-8")

    def forget_secrets(self) -> None:
        """Remove the file of secrets, once nothing runs any more."""
        with contextlib.suppress(OSError):
            (self.path / SECRETS).unlink(missing_ok=True)

    def load_plan(self, secrets: bool = False) -> Plan:
        """plan.json, with `secrets` as its sweep runs it. Raises ConfigError when the folder is not a sweep."""
        try:
            values = parsed(self.files.read(self.path / "plan.json"))
            check_plan(values)
            if secrets and (self.path / SECRETS).is_file():
                kept = parsed(self.files.read(self.path / SECRETS))
                for cell in values["cells"]:
                    restored(cell["config"], kept.get(cell["key"], ()))
            return Plan.from_json(values)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{self.path} is not a sweep folder: it has no plan.json") from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self.path / 'plan.json'} cannot be read: {_why(error)}") from error

    def grown_plan(self) -> Plan:
        """plan.json with the loads that searches have added since: a sweep that was cut short has not written them.

        Raises ConfigError as load_plan.
        """
        plan = self.load_plan()
        roots = {cell.key: cell for cell in plan.cells if cell.under_load}
        added: dict[str, Cell] = {}
        for event in self.events()[0] if roots else ():
            if event["event"] == "added" and event["root"] in roots:
                cell = at_level(roots[event["root"]], event["level"])
                if cell.key not in plan.by_key:
                    added[cell.key] = cell
        return build_plan([*plan.cells, *added.values()]) if added else plan

    def save_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write manifest.json."""
        self._write("manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))

    def load_manifest(self) -> dict[str, Any]:
        """manifest.json without what is not of the type that was written; {} when there is none that can be read."""
        try:
            return side_files.of_manifest(parsed(self.files.read(self.path / "manifest.json")))
        except (OSError, ValueError):
            return {}

    def save_summary(self, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write summary.csv."""
        return self._write("summary.csv", to_csv(columns, (map(row.get, columns) for row in rows)))

    def load_summary(self) -> list[dict[str, str]]:
        """The rows of summary.csv, as text. Raises ConfigError when there is none that can be read."""
        path = self.path / "summary.csv"
        try:
            return list(csv.DictReader(io.StringIO(self.files.read(path).decode("utf-8"), newline="")))
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{self.path} is not a sweep folder: it has neither plan.json nor summary.csv") from None
        except (OSError, ValueError, csv.Error) as error:
            raise ConfigError(f"{path} cannot be read: {_why(error)}") from error

    def save_report(self, report: Mapping[str, Any]) -> Path:
        """Write report.json as one line, because it can hold thousands of cells."""
        return self._write("report.json", encoded(report))

    def save_page(self, page: str) -> Path:
        """Write report.html."""
        return self._write("report.html", page)

    def save_dashboard(self, page: str) -> Path:
        """Write dashboard.html."""
        return self._write("dashboard.html", page)

    def plots_path(self) -> Path:
        """The folder of the plots; may not exist yet. Raises ConfigError when it leads out of the sweep's."""
        try:
            return self.files.check(self.path / "plots" / "any").parent
        except Unfit:
            raise ConfigError(f"{self.path / 'plots'} leads out of the sweep's folder; remove it") from None

    def _write(self, name: str, content: str | bytes) -> Path:
        path = self.path / name
        self.files.write(path, content)
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
                handle.write(line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if not self._lost_events:
                complain(f"sweep: events.jsonl is incomplete: {error.strerror}")
            self._lost_events = True

    def events(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Events from byte `offset` on, and the offset to continue from."""
        path = self.path / "events.jsonl"
        try:
            if path.exists() and not self.files.check(path).is_file():
                return [], offset
            with path.open("rb") as handle:
                handle.seek(offset)
                data = handle.read()
        except FileNotFoundError:
            return [], 0
        except (OSError, Unfit):
            return [], offset
        complete = data[: data.rfind(b"\n") + 1]
        return list(stored_events.parse(complete)), offset + len(complete)

    def last_states(self) -> dict[str, dict[str, Any]]:
        """The last event of every cell, by its key."""
        return {event["key"]: event for event in self.events()[0] if event["event"] == "cell"}

    # -- one cell

    def cell_path(self, cell: Cell) -> Path:
        """The cell's folder; may not exist yet. Its name is UTF-8 on disk, whatever the locale."""
        return self.path / os.fsdecode(cell.folder.encode("utf-8", "surrogateescape"))

    def image_path(self, cell: Cell, name: str) -> Path:
        """An image of the cell. Raises Unfit when it is outside the sweep's folder."""
        return self.files.check(self.cell_path(cell) / name)

    def start_cell(self, cell: Cell) -> Path:
        """Create the cell's folder and write its resolved configuration and the overrides that led to it.

        First removes what an earlier attempt left there (a failed result, half-written files, pictures, which a later
        turn of an edit could take for those of this attempt).
        """
        import yaml

        path = self.cell_path(cell)
        for stored in ("result.json", RECORDS, BENCH, SERVER_METRICS):
            (path / stored).unlink(missing_ok=True)
        linked = (path / "images").is_symlink()  # perhaps to a user's pictures
        images = [] if linked else [*path.glob("images/.*"), *path.glob("images/*.png")]
        halves = (*path.glob(".*.tmp"), *images, *path.glob(".trace*"))
        recorded = (*path.glob("trace*"), *path.glob("timeline.*"), path / PHASES_TABLE, path / KERNELS_TABLE)
        for leftover in (*halves, *recorded):
            leftover.unlink(missing_ok=True)
        hydra = path / ".hydra"
        self.files.write(
            hydra / "config.yaml", yaml.safe_dump(masked(cell.config), sort_keys=False, allow_unicode=True)
        )
        self.files.write(hydra / "overrides.yaml", yaml.safe_dump(list(cell.overrides), allow_unicode=True))
        return path

    def save_log(self, cell: Cell, log: BinaryIO | None, start: int, ending: str = "") -> None:
        """Copy what the engine printed during this cell (from byte `start` of its log) to engine.log, then `ending`.

        The engine may be printing at the position in the log, so that position is not moved.
        """
        engine_log.copy(log, start, self.files.check(self.cell_path(cell) / "engine.log"), ending)

    def save_result(
        self,
        cell: Cell,
        result: RunResult,
        phases: Sequence[PhaseRecord] = (),
        telemetry: Sequence[TelemetrySample] = (),
    ) -> None:
        """Write a cell's CSV files, then result.json, so that a reader who sees result.json sees everything."""
        path = self.cell_path(cell)
        self.files.write(
            path / "requests.csv",
            _rows_csv(RequestRow.__struct_fields__, result.requests + result.alone + result.failed),
        )
        self.files.write(
            path / "phases.csv",
            to_csv(
                ("request_id", "rank", "phase", "index", "start_s", "gpu_ms", "host_ms"),
                ((p.request_id, p.rank, p.phase, p.index, p.start_s, p.gpu_ms, p.host_ms) for p in phases),
            ),
        )
        self.files.write(path / "telemetry.csv", _rows_csv(_TELEMETRY, telemetry))
        self.files.write(path / "result.json", result.to_bytes())
        (path / RECORDS).unlink(missing_ok=True)

    def save_server_metrics(self, cell: Cell, text: str) -> None:
        """Keep what the server of a load showed at /metrics."""
        self.files.write(self.cell_path(cell) / SERVER_METRICS, text.encode())

    def append_record(
        self, cell: Cell, requests: Sequence[RequestRow], batch: BatchRow | None, alone: bool = False
    ) -> None:
        """Keep the result of a turn while the cell is still being measured; `save_result` replaces it.

        Without a batch, the requests got no usable reply, or were generated one by one (`alone`).
        """
        line = encoded({"requests": requests, "batch": batch, "alone": alone}) + b"\n"
        path = self.cell_path(cell)
        path.mkdir(parents=True, exist_ok=True)
        with (path / RECORDS).open("ab", buffering=0) as handle:
            handle.write(line)

    def _cut_off(self, cell: Cell) -> RunResult | None:
        """What `append_record` kept of a cell whose sweep ended before its result was stored, or None."""
        import msgspec

        requests: list[RequestRow] = []
        failed: list[RequestRow] = []
        alone: list[RequestRow] = []
        batches: list[BatchRow] = []
        try:
            lines = self.files.read(self.cell_path(cell) / RECORDS).splitlines()
        except (OSError, Unfit):
            return None
        for line in lines:
            with contextlib.suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):  # it may be cut short
                record = msgspec.json.decode(line, type=_Record)
                if record.batch is None:
                    (alone if record.alone else failed).extend(record.requests)
                    continue
                requests += record.requests
                batches.append(record.batch)
        if not batches:
            return None
        count = "1 batch was" if len(batches) == 1 else f"{len(batches)} batches were"
        reason = f"the sweep ended while the cell was running; {count} kept"
        kept = RunResult(
            *(cell.key, cell.label, ERROR, CUT_OFF, reason, cell.device),
            requests=tuple(requests),
            batches=tuple(batches),
            failed=tuple(failed),
            alone=tuple(alone),
        )
        return None if implausible(kept) else kept

    def load_result(self, cell: Cell) -> RunResult | None:
        """A cell's result; None when there is none or it cannot be read (it then counts as missing)."""
        return self.read_result(cell)[0]

    def read_result(self, cell: Cell) -> tuple[RunResult | None, str]:
        """A cell's result, or None and why it cannot be read; None and "" when there is none.

        For a cell that was cut off, the result is an ERROR with what was measured by then.
        """
        try:
            result = RunResult.from_bytes(self.files.read(self.cell_path(cell) / "result.json"))
        except FileNotFoundError:
            return self._cut_off(cell), ""
        except (OSError, ValueError) as error:
            return None, f"result.json cannot be read: {_why(error)}"
        if wrong := implausible(result):
            return None, f"result.json cannot be read: {wrong}"
        if result.key != cell.key:
            return None, f"result.json cannot be read: it belongs to cell {result.key}"
        if result.state != ERROR and not result.batches:
            return None, "result.json cannot be read: it holds no measured batch"
        return result, ""

    def load_results(self, plan: Plan) -> dict[str, tuple[RunResult | None, str]]:
        """`read_result` of every cell that runs, by its key."""
        return {cell.key: self.read_result(cell) for cell in plan.cells if not cell.skip}

    def damaged_image(self, cell: Cell, result: RunResult, missing: bool = True, pixels: bool = False) -> str:
        """`images/prompt_00.png is cut short`, for the first image that is not what was stored; "" when all are.

        `missing` says whether a missing image counts, `pixels` whether images are decoded and compared with their hash.
        """
        for request in result.requests:
            if request.image and (wrong := self.image_problem(cell, request, missing, pixels)):
                return f"{request.image} {wrong}"
        return ""

    def image_problem(self, cell: Cell, request: RequestRow, missing: bool = True, pixels: bool = False) -> str:
        """What is wrong with one stored image, as for `damaged_image`, without its name; "" when nothing is."""
        try:
            path = self.image_path(cell, request.image)
        except Unfit as error:
            return str(error)
        if not missing and not path.exists():
            return ""
        return stored_images.damage(path, request.image_hash, pixels)

    def load_table(self, cell: Cell, name: str) -> bytes | None:
        """A table of the cell as it is stored; None when there is none. Raises Unfit, and OSError."""
        try:
            return self.files.read(self.cell_path(cell) / name)
        except FileNotFoundError:
            return None

    def load_recorded_phases(self, cell: Cell) -> list[dict[str, str]]:
        """Rows of nsys_phases.csv: what the trace says about each phase and process; [] when there are none."""
        try:
            text = (self.load_table(cell, PHASES_TABLE) or b"").decode("utf-8")
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        except (OSError, ValueError, csv.Error):
            return []
        return [{name: value for name, value in row.items() if isinstance(value, str) and name} for row in rows]

    def recorded(self, cell: Cell) -> tuple[RecordedCell | None, str]:
        """Phases of a cell's first batch with its telemetry; or None and why they cannot be read; or None and "" when
        there are none."""
        path = self.cell_path(cell)
        try:
            for name in ("phases.csv", "telemetry.csv", "requests.csv", "result.json"):
                if self.files.check(path / name).exists() and not (path / name).is_file():
                    return None, f"{name} is not a regular file"
            return read_cell(path, first_batch=True), ""
        except NoPhases:
            return None, ""
        except Refusal as refusal:
            return None, str(refusal).replace(f"{path}{os.sep}", "")
        except (ValueError, OverflowError, RecursionError) as error:
            return None, f"its tables cannot be read: {_why(error)}"

    def load_quality(self, cell: Cell) -> dict[str, Any]:
        """Image differences computed earlier, by pair of image hashes; {} when there are none.

        Entries that no comparison can give are left out, so that they are computed again.
        """
        try:
            return side_files.of_quality(parsed(self.files.read(self.cell_path(cell) / "quality.json")))
        except (OSError, ValueError):
            return {}

    def save_bench(self, cell: Cell, bench: Mapping[str, Any]) -> Path:
        """Write bench.json of the cell."""
        path = self.cell_path(cell) / BENCH
        self.files.write(path, encoded(bench))
        return path

    def save_quality(self, cell: Cell, quality: Mapping[str, Any]) -> None:
        """Store image differences: they are slow to compute and depend only on the two images."""
        with contextlib.suppress(OSError, Unfit):
            self.files.write(self.cell_path(cell) / "quality.json", json.dumps(quality))


def _why(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, Unfit):
        return f"it {error}"
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


_TELEMETRY = tuple(field.name for field in dataclasses.fields(TelemetrySample))
"""Columns of telemetry.csv."""


def _rows_csv(columns: Sequence[str], rows: Sequence[Any]) -> str:
    return to_csv(columns, ([getattr(row, column) for column in columns] for row in rows))
