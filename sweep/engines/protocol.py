"""What an engine receives and returns: the records that cross the process boundary.

Plain frozen dataclasses, picklable, no torch. Knows nothing of Hydra, cells or verdicts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from profiling.evidence import RankEvidence
from profiling.phases import PhaseRecord


@dataclass(frozen=True)
class EngineSpec:
    """All that a child process needs to load one engine. Everything here is part of the engine key."""

    engine: str  # registry name: diffusers, vllm_omni, noop
    family: str  # model family: glm_image, qwen_image
    model: str  # model name, e.g. tiny_glm_image
    checkpoint: str  # folder to load from; "" for an embedded model
    embedded: bool  # True: the engine knows where its checkpoint is
    device: str  # "cpu" or "cuda"
    dtype: str  # "float32" or "bfloat16"
    ranks: int  # processes that share one request
    threads_per_rank: int  # OpenMP threads of each rank on a CPU
    features: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> this engine's arguments
    arguments: dict[str, Any] = field(
        default_factory=dict
    )  # vllm_omni: keyword arguments of Omni, with those of the features
    placement: str = (
        "shared"  # vllm_omni, AR → DiT: both stages on the same devices (shared), or AR on one of its own (split)
    )
    stages: dict[str, Any] = field(default_factory=dict)  # the options set in model.stages (config.stages.Stages.given)
    plugin: bool = True  # vllm_omni: record phases and evidence inside its workers
    fork: bool = True  # fork its processes from one that has imported everything, where the engine has one
    profile: str = "off"  # nsys: started under nsys; torch: records itself; see RunConfig
    url: str = ""  # endpoint: of the server that runs already
    served_model: str = ""  # endpoint: what it calls its model; "" for the first that it names
    api_key_env: str = ""  # endpoint: environment variable that holds its key
    serve: dict[str, Any] = field(default_factory=dict)  # EngineKind.serve of its load; {}: offline
    collective_timeout_s: float = 120.0
    gpu_ids: tuple[int, ...] = ()


GENERATE, EDIT, WRITE = "generate", "edit", "write"
"""Kinds of requests: a picture from text, a picture from a picture, a text."""

NO_TEXT = "this model writes no text"
"""The refusal of a request for text by an engine without an AR stage for it."""


@dataclass(frozen=True)
class Text:
    """What an AR stage should write when it writes text instead of an image's tokens."""

    max_tokens: int  # exactly this many are written
    prompt_ids: tuple[int, ...] = ()  # the prompt as tokens of the model; () for `Request.prompt`
    messages: tuple[tuple[str, str], ...] = ()  # a chat instead of a prompt: role and text of each
    temperature: float = 1.0  # 0 takes the likeliest token


@dataclass(frozen=True)
class Request:
    """One image to generate. `height` and `width` in pixels; `seed` fixes the initial noise and AR sampling.

    With `text` it is a text to write: no image, and image-only fields are 0.
    """

    request_id: str
    prompt: str
    prompt_index: int
    seed: int
    height: int
    width: int
    steps: int
    guidance_scale: float
    negative_prompt: str | None = None
    prompt_tokens: int | None = None  # pad or trim the prompt to this many tokens of the model's tokenizer
    input_image: str | None = None  # path of the image to edit; None for text-to-image
    text: Text | None = None
    further_images: tuple[str, ...] = ()  # paths of an edit's further images
    mask: str | None = None  # path of an image that is white where the edited one may change
    input_size: tuple[int, int] | None = None  # width and height to which images are resized first; None: `size`
    line: int = 0  # of edits.jsonl, from 1; 0 without such a file
    turn: int = 0  # of its line, from 1; 0 where the line has one
    follows: int | None = None  # prompt_index of the turn before, whose image this one edits

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of all that an edit takes, the one to edit first."""
        return () if self.input_image is None else (self.input_image, *self.further_images)

    @property
    def task(self) -> str:
        """The kind of request: one of GENERATE, EDIT and WRITE."""
        if self.text is not None:
            return WRITE
        return GENERATE if self.input_image is None else EDIT


@dataclass(frozen=True)
class Output:
    """The result of one batch (`requests` generated together). Times are in seconds; `start_s` here and in the
    phases of all ranks counts from one moment, which the engine chooses."""

    request_ids: tuple[str, ...]
    start_s: float
    latency_s: float  # of the whole batch, until its images are returned
    image_paths: tuple[str, ...]  # relative to the cell's folder; "" when not stored (repeats)
    image_hashes: tuple[str, ...]  # sha256 of the decoded pixels
    output_tokens: int  # AR tokens generated per request; 0 for a model with no AR stage
    prompt_tokens: tuple[int, ...]  # prompt length of each request in the model's tokens
    phases: tuple[PhaseRecord, ...]  # of all ranks
    evidence: tuple[RankEvidence, ...]  # one per rank
    # Per request; () when the engine does not measure them: they then follow from the phases of rank 0.
    ttft_s: tuple[float | None, ...] = ()  # from `start_s` to its first AR token
    tpot_s: tuple[float | None, ...] = ()  # (its last AR token - its first) / (AR tokens - 1)
    image_faults: tuple[str, ...] = ()  # per image, what is wrong with it (images.py); "" for nothing
    image_tokens: tuple[tuple[int, ...], ...] = ()  # per image, those that an AR stage wrote for it; () if not kept
    epoch_s: float | None = None  # that moment, on the machine's time.perf_counter; None when unknown


@dataclass(frozen=True)
class EngineError:
    """An exception inside an engine, as it crosses the pipe. (Not in child.py, which is `__main__` over there.)"""

    kind: str  # class name
    message: str
    alive: bool = True  # the engine can take another batch


class Engine(Protocol):
    """One loaded model. Lives in a child process; any exception ends the current cell, not the sweep."""

    alive: bool  # False once an exception left it unable to take another batch: its process is then replaced

    def load(self) -> Mapping[str, float] | None:
        """Load weights, start ranks, apply features; may return the seconds that parts of it took."""

    def generate(self, requests: Sequence[Request], folder: Path | None) -> "Output | Iterable[Output]":
        """Generate all requests; write one PNG each into `folder`/images (None: keep none).

        One Output where they are one batch. An engine that finishes them one by one hands each over as it is done.
        """

    def close(self) -> None:
        """Stop ranks and free devices; safe to call twice."""


@runtime_checkable
class Traced(Protocol):
    """An engine that can record a trace of itself."""

    def trace(self, folder: Path | None) -> None:
        """Record the next batch; or, without a folder, write one trace per rank into the folder given before."""


@runtime_checkable
class Serves(Protocol):
    """An engine that is itself a server, at `url` once it is loaded."""

    url: str

    def follow(self, stopping: Callable[[], bool], made: "Callable[[Output], None]") -> None:
        """Until `stopping`, hand over the result of each batch. Raises RuntimeError when the server ends.

        An Output has no pictures, because the clients have them.
        """


@dataclass(frozen=True)
class Writing:
    """A text that is being written: `tokens` are the texts of its tokens, made as they are taken."""

    prompt_tokens: int
    tokens: Iterator[str]


@runtime_checkable
class Writes(Protocol):
    """An engine whose AR stage can write text, token by token."""

    def refusal(self, request: Request) -> str:
        """Why it cannot write this text, in one line; "" if it can. Called by any thread."""

    def write(self, request: Request) -> Writing:
        """Begin a text. A caller that stops taking its tokens ends it."""
