"""The files of a sweep: the only reader and writer of a sweep's folder.

Raw values are stored (`result.json`, `requests.csv`, `phases.csv`, `telemetry.csv`); every statistic can be
computed from them again. Writes are atomic. Knows file formats, no definitions of metrics.
"""

import contextlib
import csv
import dataclasses
import fcntl
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from profiling.phases import PhaseRecord
from profiling.telemetry import TelemetrySample
from sweep.config import ConfigError
from sweep.engines.base import RankEvidence
from sweep.plan import Cell, Plan

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 1
DONE, ERROR = "done", "error"


@dataclass(frozen=True)
class RequestRow:
    """One generated image; a row of requests.csv. Times in seconds, `start_s` since the cell's first request."""

    request_id: str
    prompt_index: int
    seed: int
    width: int
    height: int
    steps: int
    start_s: float
    queue_s: float  # waiting before the batch started; 0 offline
    ttft_s: float | None  # to the first AR token; None without an AR stage
    e2e_s: float  # batch sent until its images are in hand
    output_tokens: int
    exit_code: int
    error: str
    repeat: int = 0
    batch_index: int = 0  # requests of one batch are generated together and share their times
    prompt_tokens: int = 0
    image: str = ""  # file in the cell's folder; "" for repeats
    image_hash: str = ""  # sha256 of the pixels


@dataclass(frozen=True)
class BatchRow:
    """Requests generated together: what they took, phase by phase (rank 0), and what each rank executed."""

    batch_index: int
    repeat: int
    latency_s: float
    phase_ms: dict[str, float]  # phase -> total milliseconds within the batch
    phase_count: dict[str, int]
    evidence: tuple[RankEvidence, ...]
    tpot_s: float | None = None  # mean time of an output token of the AR stage after the first


@dataclass(frozen=True)
class RunResult:
    """All that was measured of one cell; `result.json`."""

    key: str
    label: str
    state: str  # DONE or ERROR
    cause: str = ""  # of an error: exception, oom, crash, timeout, load, internal
    reason: str = ""
    device: str = ""
    started_at: str = ""  # ISO 8601, UTC
    load_s: float | None = None
    wall_s: float | None = None  # measured window, all batches
    requests: tuple[RequestRow, ...] = ()
    batches: tuple[BatchRow, ...] = ()
    prompts: tuple[str, ...] = ()  # by prompt_index
    telemetry: dict[str, float | None] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "RunResult":
        """Inverse of `dataclasses.asdict`. Raises ValueError for another schema version."""
        if data.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"result schema {data.get('schema_version')}, this version reads {SCHEMA_VERSION}")
        batches = tuple(
            BatchRow(**{**b, "evidence": tuple(RankEvidence(**e) for e in b["evidence"])}) for b in data["batches"]
        )
        requests = tuple(RequestRow(**r) for r in data["requests"])
        return RunResult(**{**data, "batches": batches, "requests": requests, "prompts": tuple(data["prompts"])})


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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

    # -- the sweep as a whole

    def prepare(self) -> None:
        """Create the folder and see that it can be written. Raises ConfigError."""
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
        """Hold the folder for one sweep. Raises ConfigError when another one has it."""
        with (self.path / ".lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"another sweep is running in {self.path}; wait for it or choose another folder"
                ) from None
            yield

    def save_plan(self, plan: Plan) -> None:
        """Write plan.json, keeping the cells that an earlier sweep put into this folder."""
        keys = {cell.key for cell in plan.cells}
        earlier = [cell for cell in self.load_plan().cells if cell.key not in keys] if self.has_plan else []
        merged = Plan(plan.cells + tuple(earlier), plan.groups)
        write_atomic(self.path / "plan.json", json.dumps(merged.to_json(), indent=1, ensure_ascii=False))

    @property
    def has_plan(self) -> bool:
        """Whether plan.json is there."""
        return (self.path / "plan.json").is_file()

    def load_plan(self) -> Plan:
        """plan.json. Raises ConfigError when the folder is no sweep."""
        try:
            return Plan.from_json(json.loads((self.path / "plan.json").read_text()))
        except FileNotFoundError:
            raise ConfigError(f"{self.path} is no sweep folder: it has no plan.json") from None
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

    # -- events: how running groups tell the terminal what they do, whatever the launcher

    def emit(self, event: str, **values: Any) -> None:
        """Append one line to events.jsonl; one write call, so lines of two processes never mix."""
        line = json.dumps({"t": time.time(), "event": event, **values}, ensure_ascii=False) + "\n"
        with (self.path / "events.jsonl").open("ab", buffering=0) as handle:
            handle.write(line.encode())

    def events(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Events from byte `offset` on, and the offset to go on from."""
        try:
            with (self.path / "events.jsonl").open("rb") as handle:
                handle.seek(offset)
                data = handle.read()
        except FileNotFoundError:
            return [], 0
        complete = data[: data.rfind(b"\n") + 1]
        return [json.loads(line) for line in complete.splitlines()], offset + len(complete)

    # -- one cell

    def cell_path(self, cell: Cell) -> Path:
        """The cell's folder; may not exist yet."""
        return self.path / cell.folder

    def start_cell(self, cell: Cell) -> Path:
        """Make the cell's folder and write its resolved configuration beside the overrides that led to it."""
        import yaml

        path = self.cell_path(cell)
        hydra = path / ".hydra"
        write_atomic(hydra / "config.yaml", yaml.safe_dump(cell.config, sort_keys=False, allow_unicode=True))
        write_atomic(hydra / "overrides.yaml", yaml.safe_dump(list(cell.overrides), allow_unicode=True))
        return path

    def save_log(self, cell: Cell, log: BinaryIO, start: int) -> None:
        """Copy what the engine printed during this cell (from byte `start` of its log) to engine.log."""
        log.flush()
        log.seek(start)
        write_atomic(self.cell_path(cell) / "engine.log", log.read())
        log.seek(0, os.SEEK_END)

    def save_result(
        self,
        cell: Cell,
        result: RunResult,
        phases: Sequence[PhaseRecord] = (),
        telemetry: Sequence[TelemetrySample] = (),
    ) -> None:
        """Write a cell's CSV files, then result.json: whoever sees result.json sees everything."""
        path = self.cell_path(cell)
        write_atomic(path / "requests.csv", _rows_csv(RequestRow, result.requests))
        write_atomic(
            path / "phases.csv",
            to_csv(
                ("request_id", "rank", "phase", "index", "start_s", "gpu_ms", "host_ms"),
                ((p.request_id, p.rank, p.phase, p.index, p.start_s, p.gpu_ms, p.host_ms) for p in phases),
            ),
        )
        write_atomic(path / "telemetry.csv", _rows_csv(TelemetrySample, telemetry))
        write_atomic(path / "result.json", json.dumps(dataclasses.asdict(result), indent=1, ensure_ascii=False))

    def load_result(self, cell: Cell) -> RunResult | None:
        """A cell's result; None when there is none, or none that can be read (it then counts as missing)."""
        try:
            result = RunResult.from_json(json.loads((self.cell_path(cell) / "result.json").read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return result if result.key == cell.key else None

    def load_quality(self, cell: Cell) -> dict[str, Any]:
        """Image differences computed earlier, by pair of image hashes; {} when there are none."""
        try:
            return json.loads((self.cell_path(cell) / "quality.json").read_text())
        except (OSError, ValueError):
            return {}

    def save_quality(self, cell: Cell, quality: Mapping[str, Any]) -> None:
        """Keep image differences: they are slow to compute and depend on the two images alone."""
        with contextlib.suppress(OSError):
            write_atomic(self.cell_path(cell) / "quality.json", json.dumps(quality))


def _rows_csv(kind: type, rows: Sequence[Any]) -> str:
    columns = [f.name for f in dataclasses.fields(kind)]
    return to_csv(columns, ([getattr(row, column) for column in columns] for row in rows))


@dataclass(frozen=True)
class SweepTables:
    """A sweep as pandas data frames; `cell` and `cell_key` lead every row."""

    summary: "pandas.DataFrame"
    requests: "pandas.DataFrame"
    phases: "pandas.DataFrame"
    telemetry: "pandas.DataFrame"
    plan: Plan
    manifest: dict[str, Any]


def load(folder: str | Path) -> SweepTables:
    """Everything stored of a sweep. The summary is computed anew from the stored results."""
    import pandas

    from sweep.summary import COLUMNS, summarise

    sweep = SweepFolder(Path(folder))
    plan = sweep.load_plan()

    def gather(name: str) -> "pandas.DataFrame":
        frames = []
        for cell in plan.cells:
            path = sweep.cell_path(cell) / name
            if path.is_file():
                frame = pandas.read_csv(path)
                if len(frame):
                    frame.insert(0, "cell_key", cell.key)
                    frame.insert(0, "cell", cell.label)
                    frames.append(frame)
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()

    summary = pandas.DataFrame(summarise(sweep, plan), columns=list(COLUMNS))
    return SweepTables(
        summary, gather("requests.csv"), gather("phases.csv"), gather("telemetry.csv"), plan, sweep.load_manifest()
    )
