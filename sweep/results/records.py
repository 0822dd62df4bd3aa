"""What is stored of a measured cell: raw values, from which every statistic can be computed again.

Knows no files and no definitions of metrics.
"""

import contextlib
from dataclasses import dataclass, field

from profiling.evidence import RankEvidence

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
    e2e_s: float  # batch sent until its images are in hand, or until it failed
    output_tokens: int
    exit_code: int
    error: str
    repeat: int = 0
    batch_index: int = 0  # requests of one batch are generated together and share start_s and e2e_s
    prompt_tokens: int = 0
    image: str = ""  # file in the cell's folder; "" for repeats
    image_hash: str = ""  # sha256 of the pixels
    tpot_s: float | None = None  # a further AR token, on average; None without an AR stage


@dataclass(frozen=True)
class BatchRow:
    """Requests generated together: what they took, phase by phase (rank 0), and what each rank executed."""

    batch_index: int
    repeat: int
    latency_s: float
    phase_ms: dict[str, float]  # phase -> total milliseconds within the batch
    phase_count: dict[str, int]
    evidence: tuple[RankEvidence, ...]
    tpot_s: float | None = None  # of results stored before a request had its own; None in later ones
    reference_s: float | None = None  # the same batch by the baseline's engine, right before or after


@dataclass(frozen=True)
class RunResult:
    """All that was measured of one cell; `result.json`."""

    key: str
    label: str
    state: str  # DONE or ERROR
    cause: str = ""  # of an error: load, exception, oom, crash, timeout, disk, interrupted, internal
    reason: str = ""
    device: str = ""
    started_at: str = ""  # ISO 8601, UTC
    load_s: float | None = None
    wall_s: float | None = None  # measured window, all batches
    requests: tuple[RequestRow, ...] = ()
    batches: tuple[BatchRow, ...] = ()
    prompts: tuple[str, ...] = ()  # by prompt_index
    telemetry: dict[str, float | None] = field(default_factory=dict)
    failed: tuple[RequestRow, ...] = ()  # of the batch that ended the cell; in no statistic
    foreign: tuple[str, ...] = ()  # what else disturbed the measurement, such as others on our GPUs, a sentence each
    profile: str = ""  # what recorded the requests: nsys or torch
    trace: str = ""  # its file in the cell's folder
    profile_note: str = ""  # what went wrong with it
    # Start of the first request on telemetry.csv's clock, which counts from the beginning of the measurement, while
    # requests.csv and phases.csv count from that request. None where not told, as in results stored before.
    first_request_s: float | None = None
    throttled: tuple[str, ...] = ()  # GPUs that heat or a power brake slowed down while measuring, a sentence each
    telemetry_problem: str = ""  # why there is no telemetry although there should be
    schema_version: int = SCHEMA_VERSION

    @staticmethod
    def from_bytes(data: bytes) -> "RunResult":
        """Inverse of `to_bytes`. Raises ValueError when it is no result, or one of another schema version."""
        import msgspec

        try:
            result = msgspec.json.decode(data, type=RunResult)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            with contextlib.suppress(msgspec.MsgspecError, AttributeError):
                version = msgspec.json.decode(data).get("schema_version", SCHEMA_VERSION)
                if version != SCHEMA_VERSION:
                    raise ValueError(_other_schema(version)) from error
            raise ValueError(str(error)) from error
        if result.schema_version != SCHEMA_VERSION:
            raise ValueError(_other_schema(result.schema_version))
        return result

    def to_bytes(self) -> bytes:
        """As JSON, compact: a large sweep reads thousands of these."""
        import msgspec

        return msgspec.json.encode(self)


def _other_schema(version: object) -> str:
    return f"result schema {version}, this version reads {SCHEMA_VERSION}"
