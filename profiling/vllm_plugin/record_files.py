"""Files in which vLLM-Omni's processes record what they did: one folder, one writer per file, whole lines of JSON.

The plugin writes in the workers. The engine reads while they run, so an incomplete last line is left for later. No
torch and no vllm_omni here. Times are seconds of `time.perf_counter`, which all processes of a machine share.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from profiling.evidence import RankEvidence
from profiling.phases import PhaseRecord

FOLDER_VARIABLE = "SWEEP_PLUGIN_DIR"
"""Names the folder that the plugin writes into; without it the plugin does nothing."""

PAUSED = "paused"
"""While a file of this name is in the folder, requests that begin are not observed. tests.bench.plugin uses this to
measure the cost of observing within one engine, because two identical engines differ by that much."""

TRACE = "trace"
"""While a file of this name is in the folder, each process records its next request into the folder named in it."""


class Place(Protocol):
    """Where the process's files go. Looked up at every use, because a fork may have changed it."""

    @property
    def folder(self) -> Path:
        """The folder."""
        ...

    def report(self) -> None:
        """Write the current exception to a file; called in an except block. Never raises."""


Line = dict[str, Any]
Timing = tuple[str, int, float, float, float | None]
"""Phase, index, start (perf_counter seconds), milliseconds on the host, milliseconds on the GPU (None on a CPU)."""


@dataclass(frozen=True)
class Installed:
    """A process in which the plugin is active."""

    pid: int
    hooks: tuple[str, ...]  # what is wrapped there, e.g. "DiffusionModelRunner.load_model"


@dataclass(frozen=True)
class Markers:
    """The plugin's state in all processes, in order of process id."""

    installed: tuple[Installed, ...]
    failed: tuple[str, ...]  # tracebacks; the process runs on, unobserved


@dataclass(frozen=True)
class DitRecord:
    """One line of `dit-rank<R>-<pid>.jsonl`: one pipeline.forward (in step mode: until no request is left)."""

    requests: tuple[str, ...]  # vLLM-Omni's ids
    dummy: bool  # vLLM-Omni's own warm-up request
    start_s: float
    phases: tuple[Timing, ...]
    evidence: RankEvidence


@dataclass(frozen=True)
class ArRecord:
    """One line of `ar-rank<R>-<pid>.jsonl`: the steps since the line before."""

    requests: tuple[str, ...]  # those whose prefill began in these steps
    rank: int
    steps: int  # forwards of the AR model in this line
    settings: dict[str, str]
    phases: tuple[Timing, ...]
    first_steps: tuple[int, ...] = ()  # of each of `requests`, which of `phases` is its prefill
    counts: dict[str, int] = field(default_factory=dict)  # how much of its memory was used (paged_cache)


@dataclass(frozen=True)
class Transfer:
    """One line of `transfer-<pid>.jsonl`: one AR stage's output handed over to the diffusion stage."""

    request: str
    start_s: float
    host_ms: float
    tokens_sent: str  # "count:hash" of the ids that the DiT should get (see transfer); "" where unknown
    tokens_written: int = 0  # by the AR stage, including those that it does not hand over
    bytes: int = 0  # of the message to the DiT stage's process; 0 where unknown


@dataclass(frozen=True)
class KvCache:
    """One line of `kvsent-<pid>.jsonl` or `kvreceived-<pid>.jsonl`: a KV cache on its way to the diffusion stage."""

    request: str  # a guidance branch has a suffix, e.g. `…__cfg_text`
    start_s: float
    host_ms: float  # to send it, or to wait for it and place it on the device
    layers: int
    tokens: int
    bytes: int
    fingerprint: str  # "tokens:hash" of its values; "none" when it did not arrive, "" where it cannot be compared
    sent: bool  # by the AR stage; else received by the diffusion stage


Record = DitRecord | ArRecord | Transfer | KvCache


def markers(folder: Path) -> Markers:
    """Where the plugin is installed and where it failed, so far."""
    installed = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("installed-*.json")]
    found = tuple(Installed(m["pid"], tuple(m["hooks"])) for m in sorted(installed, key=lambda m: m["pid"]))
    return Markers(found, failures(folder))


def paused(folder: Path) -> bool:
    """Whether requests that begin now are not observed."""
    return (folder / PAUSED).exists()


def traced_to(folder: Path) -> Path | None:
    """Where to record a request that begins now; None for nowhere."""
    with contextlib.suppress(FileNotFoundError):
        return Path((folder / TRACE).read_text(encoding="utf-8"))
    return None


def failures(folder: Path) -> tuple[str, ...]:
    """Tracebacks of the plugin in any process, so far."""
    return tuple(path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("failed-*.txt")))


def read_lines(path: Path, offset: int = 0) -> tuple[list[Line], int]:
    """The complete lines of `path` from byte `offset`, and the next offset. No file means no lines."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            text = file.read()
    except FileNotFoundError:
        return [], offset
    end = text.rfind(b"\n") + 1
    return [json.loads(line) for line in text[:end].splitlines()], offset + end


def append_line(path: Path, line: Mapping[str, object]) -> None:
    """Write `line` at the end of `path`, at once and in one piece."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


def timings(records: Iterable[PhaseRecord]) -> list[Timing]:
    """Records as a line stores them. The recorder's epoch must be 0, so that `start_s` is perf_counter's."""
    return [(r.phase, r.index, r.start_s, round(r.host_ms, 4), _rounded(r.gpu_ms)) for r in records]


def dit_record(line: Line) -> DitRecord:
    """A line of a dit file. Raises KeyError for one of another kind, as the others do."""
    evidence = RankEvidence(**line["evidence"])
    return DitRecord(tuple(line["requests"]), line["dummy"], line["start_s"], _phases(line), evidence)


def ar_record(line: Line) -> ArRecord:
    """A line of an AR file."""
    evidence = line["evidence"]
    return ArRecord(
        tuple(line["requests"]),
        evidence["rank"],
        evidence["steps"],
        evidence["settings"],
        _phases(line),
        tuple(line.get("first_steps", ())),
        evidence.get("counts", {}),
    )


def transfer(line: Line) -> Transfer:
    """A line of a transfer file."""
    written = line.get("tokens_written", 0)
    size = line.get("bytes", 0)
    return Transfer(line["request"], line["start_s"], line["host_ms"], line["tokens_sent"], written, size)


def kv_sent(line: Line) -> KvCache:
    """A line of a kvsent file."""
    return KvCache(**line, sent=True)


def kv_received(line: Line) -> KvCache:
    """A line of a kvreceived file."""
    return KvCache(**line, sent=False)


def phase_records(records: Iterable[Record], epoch_s: float) -> tuple[PhaseRecord, ...]:
    """All phases of `records` in order of start, counted from `epoch_s` (perf_counter).

    A hand-over is one `stage_transfer` of rank 0, numbered in the order given, and so is fetching a KV cache; sending
    one lies inside an AR step. The diffusion pipeline's own `request` phase is among them: it lies inside the
    request that the engine measures.
    """
    found: list[PhaseRecord] = []
    transfers = 0
    for record in records:
        if isinstance(record, KvCache) and record.sent:
            continue
        if isinstance(record, Transfer | KvCache):
            start_s = record.start_s - epoch_s
            found.append(PhaseRecord(0, "stage_transfer", transfers, start_s, record.host_ms, None, record.request))
            transfers += 1
        else:
            rank = record.rank if isinstance(record, ArRecord) else record.evidence.rank
            found += [
                PhaseRecord(rank, phase, index, start_s - epoch_s, host_ms, gpu_ms)
                for phase, index, start_s, host_ms, gpu_ms in record.phases
            ]
    return tuple(sorted(found, key=lambda phase: phase.start_s))


def _phases(line: Line) -> tuple[Timing, ...]:
    rows: Sequence[Sequence[Any]] = line["phases"]
    return tuple((row[0], row[1], row[2], row[3], row[4]) for row in rows)


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 4)
