"""What is stored for a measured cell: raw values, from which every statistic can be computed again.

Knows no files and no definitions of metrics. Types with bounds hold for what is read back: a value that no measurement
can give is an error of the file. Rows are structs, because a report reads a hundred thousand of them, and msgspec
fills those faster than dataclasses.
"""

import contextlib
import operator
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from profiling.evidence import RankEvidence
from profiling.phases import PHASES
from sweep.results.files import encoded

SCHEMA_VERSION = 2
"""Version of result.json. All versions since the first can be read; the newest is always written.

| version | since | what changed |
|---|---|---|
| 1 | sweep 0.1.0 | the first |
| 2 | sweep 0.2.0 | requests have times of their own (`intended_s`, `sent_s`, `first_token_s`, `done_s`), a cell has |
|   |             | `stage_s`; `reference_s` of a batch is called `baseline_s` |
"""

DONE: Literal["done"] = "done"
ERROR: Literal["error"] = "error"

SHORTEST_S, LONGEST_S = 1e-9, 1e9
Took = Annotated[float, Meta(ge=SHORTEST_S, le=LONGEST_S)]
"""Seconds that something took: neither zero nor decades. Bounds are checked when a result is read."""

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
"""A duration that may be zero."""

Moment = Annotated[float, Meta(ge=-1e9, le=1e9)]
"""Seconds from some origin."""

Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]

Number = Annotated[int, Meta(ge=0, le=2**53)]
"""A count or an index."""

Reading = Annotated[float, Meta(ge=-1e15, le=1e15)]
"""A telemetry value, in any unit."""

Code = Annotated[str, Meta(pattern="^[a-z_]*$")]

TOKEN_TIMES = "request_start"
"""Definition of TTFT and TPOT: both from the request's start, the first and the last AR token, on every engine.

Before, TPOT was the mean decode phase on diffusers, and TTFT on vLLM-Omni counted from when its AR stage was handed the
request.
"""

CUT_OFF = "cut_off"
"""Cause of an error: the sweep itself ended while the cell was running. What was measured by then is kept."""


LEFT_OUT = "left_out"
"""State, in an event, of a cell that `budget` had no time for. Such a cell has no result."""


class RequestRow(Struct, frozen=True):
    """One request for an image or, with no size, for a text, whatever its outcome; a row of requests.csv.

    Moments and durations in seconds; moments count from when the engine began with the cell's first request. A batch is
    a fact about requests: those of one share `start_s`, `done_s` and `e2e_s`.
    """

    request_id: str
    prompt_index: Number
    seed: Annotated[int, Meta(ge=0)]
    width: Number
    height: Number
    steps: Number
    start_s: Moment  # when the engine began its batch
    queue_s: Seconds | None  # waiting before the batch started; None where it is not measured, as offline
    ttft_s: Seconds | None  # from the request's start to its first AR token; None without an AR stage
    e2e_s: Seconds  # from sending the batch until its images are returned, or until it failed
    output_tokens: Number
    exit_code: int
    error: str
    repeat: Number = 0
    batch_index: Number = 0  # requests with one index were generated together
    prompt_tokens: Number = 0
    image: str = ""  # file in the cell's folder; "" for repeats
    image_hash: str = ""  # sha256 of the pixels
    tpot_s: Seconds | None = None  # (last AR token - first) / (AR tokens - 1); None without an AR stage
    intended_s: Moment | None = None  # when the schedule sends it; None when it follows the previous request
    sent_s: Moment | None = None  # when it was sent to the engine; None when the zero of the engine's clock is unknown
    first_token_s: Moment | None = None  # when its first AR token was ready
    done_s: Moment | None = None  # when its image was ready, or when it failed
    image_fault: Code = ""  # what is wrong with the pixels, a code of sweep/engines/images.py; "" for nothing
    image_tokens: tuple[Number, ...] = ()  # what the AR stage wrote for its image; () if not kept
    failure: Code = ""  # under load, why it failed: refused, http, timeout, connection or reply
    itl_s: tuple[Seconds, ...] = ()  # of a text that streams, the gaps between its chunks; () without chunks
    task: Code = ""  # generate, edit or write; "" in results stored before a load could mix them
    server: str = ""  # URL of the replica that was asked; "" where there is one server
    line: Number = 0  # of edits.jsonl, from 1; with the seed it says which chain of turns; 0 without such a file
    turn: Number = 0  # of its line, from 1; 0 where the line has one
    input_width: Number = 0  # pixels to which the picture was resized that it edits; 0 for a picture from text
    input_height: Number = 0


class BatchRow(Struct, frozen=True):
    """Requests generated together: their time, phase by phase (rank 0), and what each rank executed."""

    batch_index: Number
    repeat: Number
    latency_s: Took
    phase_ms: dict[str, Milliseconds]  # phase -> total milliseconds within the batch
    phase_count: dict[str, Number]
    evidence: tuple[RankEvidence, ...]
    tpot_s: Seconds | None = None  # in results stored before requests had their own; None in later ones
    baseline_s: Took | None = None  # latency of the same batch in the interleaved baseline, right before or after
    baseline_phase_ms: dict[str, Milliseconds] = {}  # its phases; empty in results from before they were kept


class LoadFacts(Struct, frozen=True):
    """How the load generator itself did, in seconds: whether it, and not the server, was the bottleneck."""

    wall_s: Seconds  # from its start to its last answer
    cpu_s: Seconds  # CPU time, without the processes that look at pictures
    loop_lag_s: Seconds  # 99th percentile of how late its event loop was
    send_lag_s: Seconds  # the same for sending requests that had a due time
    ar_s: Seconds | None = None  # in which the AR stage computed; None where phases do not separate two stages
    dit_s: Seconds | None = None  # in which the DiT stage did
    both_s: Seconds | None = None  # in which both did
    uncounted: Number = 0  # texts whose tokens are chunks, because the server counts none


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything that was measured for one cell; `result.json`."""

    key: str
    label: str
    state: Literal["done", "error"]
    # Of an error: lease, load, exception, oom, descriptors, processes, crash, timeout, not_ended, disk, interrupted,
    # internal, cut_off; client, requests (under load: the load generator ended early, no request succeeded).
    cause: Code = ""
    reason: str = ""
    device: str = ""
    started_at: str = ""  # ISO 8601, UTC
    load_s: Seconds | None = None
    wall_s: Seconds | None = None  # measured window, all batches
    requests: tuple[RequestRow, ...] = ()
    batches: tuple[BatchRow, ...] = ()
    prompts: tuple[str, ...] = ()  # by prompt_index
    telemetry: dict[str, Reading | None] = field(default_factory=dict)
    # Requests of the batch that ended the cell, or that got no usable reply under load; part of no statistic.
    failed: tuple[RequestRow, ...] = ()
    # Requests that were generated one by one after their batch failed: they have images, and count in no time.
    alone: tuple[RequestRow, ...] = ()
    foreign: tuple[str, ...] = ()  # what disturbed the measurement, such as other processes on our GPUs: sentences
    profile: str = ""  # what recorded the requests: nsys or torch
    trace: str = ""  # its file in the cell's folder
    profile_note: str = ""  # what went wrong with it
    # Start of the first request on telemetry.csv's clock, which counts from the beginning of the measurement, while
    # requests.csv and phases.csv count from that request. None when unknown, as in older results.
    first_request_s: Moment | None = None
    throttled: tuple[str, ...] = ()  # GPUs that heat or a power brake slowed down while measuring, one sentence each
    telemetry_problem: str = ""  # why there is no telemetry although there should be
    stage_s: dict[str, Seconds] = field(default_factory=dict)  # seconds in warm_up and measure, the baseline's included
    measured_with: dict[str, str] = field(default_factory=dict)  # versions of packages, and git_commit; {} if unknown
    warm_up: tuple[tuple[RankEvidence, ...], ...] = ()  # what each rank executed in each batch of the warm-up
    load: LoadFacts | None = None  # None offline
    token_times: Code = ""  # definition of ttft_s and tpot_s: TOKEN_TIMES, or "" for what earlier versions measured
    schema_version: int = SCHEMA_VERSION

    @staticmethod
    def from_bytes(data: bytes) -> "RunResult":
        """Inverse of `to_bytes`, for any version. Raises ValueError when it is not a result, or of a later version."""
        import msgspec

        try:
            result = msgspec.json.decode(data, type=RunResult)
            if result.schema_version < SCHEMA_VERSION:
                result = msgspec.convert(_upgraded(msgspec.json.decode(data)), RunResult)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError, TypeError) as error:
            with contextlib.suppress(msgspec.MsgspecError, AttributeError, RecursionError):
                version = msgspec.json.decode(data).get("schema_version", SCHEMA_VERSION)
                if version != SCHEMA_VERSION:
                    raise ValueError(_other_schema(version)) from error
            raise ValueError(str(error)) from error
        if result.schema_version != SCHEMA_VERSION:
            raise ValueError(_other_schema(result.schema_version))
        return result

    def to_bytes(self) -> bytes:
        """As JSON, compact: a large sweep reads thousands of these."""
        return encoded(self)


def implausible(result: RunResult) -> str:
    """The first thing in a result that types allow and no measurement can give; "" when there is none."""
    if result.wall_s is not None and 0 < result.wall_s < 1e-9:
        return f"wall_s is {result.wall_s:g}"
    if not _is_local(result.trace):
        return "trace is no file in the cell's folder"
    for name, rows in (("requests", result.requests), ("alone", result.alone)):
        for number, request in enumerate(rows):
            if request.image and not _is_local(request.image):
                return f"{name}[{number}].image is no file in the cell's folder"
    for number, batch in enumerate(result.batches):
        for name, phases in (("phase_ms", batch.phase_ms), ("baseline_phase_ms", batch.baseline_phase_ms)):
            if not _KNOWN_PHASES.issuperset(phases):
                unknown = min(phases.keys() - _KNOWN_PHASES)
                return f"batches[{number}].{name} has the unknown phase {unknown[:40]!r}"
        for one in batch.evidence:
            for count in chain(_numbers(one), one.counts.values()):
                if not 0 <= count <= _MOST:
                    return f"batches[{number}].evidence has a count that is negative or too large"
    return ""


_KNOWN_PHASES = frozenset(PHASES)
_MOST = 2**53
_numbers = operator.attrgetter(
    *("rank", "dit_forwards", "denoise_steps", "dit_parameters", "blocks_run", "blocks_skipped", "block_sequence")
)
"""What a rank counted, except for `counts`."""


def _is_local(name: str) -> bool:
    """Whether a path stays below the folder that it starts in."""
    return "\0" not in name and not name.startswith("/") and ".." not in name.split("/")


def _upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """A result of an earlier version as one of this version."""
    batches = [{**batch, "baseline_s": batch.get("reference_s")} for batch in data.get("batches", ())]
    return {**data, "batches": batches, "schema_version": SCHEMA_VERSION}


def _other_schema(version: object) -> str:
    return f"it has result schema {version}, but this version reads {SCHEMA_VERSION}"
