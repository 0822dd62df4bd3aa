"""The schema of a run: one dataclass per configuration group, each field with its unit and meaning.

Range checks are in `__post_init__`, next to the fields they guard, and run in `OmegaConf.to_object`.
Knows nothing of how a value is used. Files under conf/ choose values, never types.
"""

import dataclasses
import functools
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.refusals import ConfigError, nearest, require
from sweep.stage_fields import Stages

_PACKAGE = Path(__file__).resolve().parent
INSTALLED = (_PACKAGE / "conf").is_dir()
"""Whether this is an installed package and no checkout."""

CONF = (_PACKAGE if INSTALLED else _PACKAGE.parent) / "conf"
"""The configuration files: inside the package when installed, next to it in a checkout."""

ADD_ONS = ("base", "add")
"""Words of a sweep that are no fields: it measures what each feature set of `add` adds to the one of `base`."""


_UNITS_S = {"h": 3600.0, "min": 60.0, "s": 1.0}
_PART = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(_UNITS_S)})")


def seconds_of(text: str, name: str) -> float:
    """`90s`, `20min`, `2h` or `1h30min` in seconds. Raises ConfigError, which names the field."""
    told = text.replace(" ", "")
    parts = _PART.findall(told)
    meant = "a time in s, min or h, as in 90s, 20min or 1h30min"
    require(bool(parts) and _PART.sub("", told) == "", f"{name}={text}: give it {meant}")
    found = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    require(found > 0, f"{name}={text}: must be more than 0; give it {meant}")
    return found


def at_home(path: str | None) -> str | None:
    """`~/x` as a whole path, which no shell makes of it behind a `=`; others as they are. Raises ConfigError."""
    if path is None or not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ConfigError(f"{path}: no such home folder; write the whole path") from error


@dataclass
class Stack:
    """Published shape of one transformer stack of a model (text encoder, AR or DiT)."""

    params_b: float = 0.0  # parameters, billions
    layers: int = 0
    hidden: int = 0  # residual width
    heads: int = 0
    kv_heads: int = 0  # equal to heads without grouped-query attention
    intermediate: int = 0  # feed-forward width
    vocab: int = 0  # output vocabulary; 0 for a stack that emits no tokens
    head_dim: int = 0  # width of a head; 0: hidden ÷ heads
    gated: bool = False  # its feed-forward has a third matrix (SwiGLU, gated GELU)
    tokens: int = 0  # of a text encoder: prompts are padded to so many; 0: they are not

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value >= 0, f"model.…{name}={value}: must be 0 or more, 0 where it is unknown")


@dataclass
class Dit(Stack):
    """Published shape of a DiT. A block has a set of weights for text and one for image tokens, or one for all."""

    joined_layers: int = 0  # of `layers`: blocks with one set of weights for all tokens (single-stream)
    refiners: int = 0  # further blocks before them: so many over the image's tokens, as many over the text's
    modulation: int = 0  # outputs of a block's modulation, in widths, for each of its sets of weights
    joined_modulation: int = 0  # likewise of a block of joined_layers
    modulation_in: int = 0  # width of what modulations are computed from; 0: hidden
    context: int = 0  # width of the text states that come in
    distilled: bool = False  # guidance is an input: one forward a step, no second branch
    prior: int = 0  # size of the codebook of the AR stage whose tokens its image tokens take as well; 0: none
    channels: int = 16  # of a latent pixel
    shared_modulation: bool = False  # one modulation for all blocks of a kind, and none of a block's own
    cached_text: bool = False  # text comes as the KV cache of an AR stage: attended to, and not computed again


@dataclass
class Vision(Stack):
    """Published shape of the vision tower of a text encoder, which makes tokens of a picture to edit."""

    patch: int = 14  # pixels on a side of a patch
    merge: int = 2  # patches on a side that become one token
    window: int = 112  # pixels on a side of what attention stays inside of
    whole_layers: int = 0  # of `layers`: those whose attention sees the whole picture


@dataclass
class Vae:
    """Published shape of a VAE's decoder."""

    params_b: float = 0.0  # parameters of encoder and decoder, billions
    channels: list[int] = field(default_factory=list)  # of its levels, from the latent's size to the picture's
    blocks: int = 0  # residual blocks of a level
    latent: int = 16  # channels of a latent pixel
    attention: bool = True  # one head over all latent pixels in the middle
    causal: bool = False  # three-dimensional, for video: kernels see two frames before the picture

    def __post_init__(self) -> None:
        for name in ("params_b", "blocks", "latent"):
            require(getattr(self, name) >= 0, f"model.vae.{name}={getattr(self, name)}: must be 0 or more")
        require(
            all(width >= 1 for width in self.channels), f"model.vae.channels={self.channels}: must be at least 1 each"
        )


@dataclass
class Model:
    """The model to generate with. Shapes are the published ones; `embedded` models come with this package."""

    name: str = "???"
    family: str = "???"  # code path: glm_image, qwen_image, flux, …
    summary: str = ""  # one line for the reader
    embedded: bool = False  # tiny: its weights are made from a seed at first use, or come with the package
    weights: str = ""  # of an embedded model: the trained ones that it has; "" for random ones
    repo: str = ""  # where the published checkpoint lives (never downloaded by us)
    path: str | None = None  # folder of a checkpoint on this machine
    tasks: list[str] = field(default_factory=lambda: ["text_to_image"])  # text_to_image, image_edit, text
    size_multiple: int = 16  # width and height must be multiples of this, pixels
    max_pixels: int = 2048 * 2048
    patch: int = 2  # DiT patch, latent pixels
    vae_scale: int = 8  # pixels per latent pixel
    memory_gb: float = 0.0  # GPU memory that the weights need in bf16, GB
    edit_pixels: int = 0  # to about so many pixels its pipeline scales a picture to edit; 0: it does not scale it
    ar: Stack | None = None
    dit: Dit | None = None
    text_encoder: Stack | None = None
    vision: Vision | None = None  # part of the text encoder, and of its params_b; None: it reads no pictures
    vae: Vae | None = None
    stages: Stages = field(default_factory=Stages)  # how its stages are started and sampled, where it has several
    own: dict[str, Any] = field(default_factory=dict)
    """Steps and guidance that it was distilled to (OWN). They take the place of those in a workload's file;
    `workload.steps=20` on the command line, or in a study, goes over both."""

    source: str = ""  # where the shapes come from

    def __post_init__(self) -> None:
        for name, value in self.own.items():
            require(name in OWN, f"model.own.{name}={value}: choose from {', '.join(OWN)}")
        for task in self.tasks:
            require(task in TASKS, f"model.tasks: unknown task '{task}'; choose from {', '.join(TASKS)}")
        self.path = at_home(self.path)
        own = f"model={self.name} has weights of its own and reads no checkpoint"
        choose = f"to load model.path={self.path}, choose the model of that checkpoint"
        require(not self.embedded or self.path is None, f"{own}; {choose}")


OWN = ("steps", "guidance_scale")
"""Fields of a workload that a model may have values of its own for (Model.own)."""

TEXT = "text"
"""Task of an AR stage that writes text and no image."""

EDITS = "image_edit"
"""Task of changing a picture by an instruction."""

TASKS = ("text_to_image", EDITS, TEXT)
WORLD_TURNS = "world_turns"
"""The shipped edits of several turns, with pictures of their own; other sets are prompts alone."""

PROMPT_SETS = ("world", "world_edits", WORLD_TURNS, "short", "mixed", "long")
PROFILES = ("off", "nsys", "torch")
MOST_STARTS = 1000
"""Largest number of engine starts of one cell; each is a cell of the plan."""

LONGEST_TEXT = 131_072
"""Most tokens of a prompt, and of what is written after it."""

LARGEST_SEED = 2**63 - 2**32
"""Seeds are counted up from the first one and must fit into 64 bits with a sign."""


@dataclass
class Gate:
    """Quality thresholds of a feature against its baseline, one for each measure; None: not used."""

    warn_mean_diff: float | None = None  # mean absolute pixel difference, in [0, 1]
    fail_mean_diff: float | None = None
    warn_max_diff: float | None = None  # largest absolute pixel difference, in [0, 1]
    fail_max_diff: float | None = None
    warn_psnr_db: float | None = None  # lowest PSNR over all images, dB
    fail_psnr_db: float | None = None
    warn_ssim: float | None = None  # lowest mean SSIM, at most 1
    fail_ssim: float | None = None
    fail_broken: float = 0.05  # share of pictures that may stop showing what was asked, where that can be checked

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is None:
                continue
            if name.endswith("_ssim"):
                require(value <= 1, f"{name}={value}: must be at most 1, which is identical")
            else:
                require(value >= 0, f"{name}={value}: must be at least 0")


LOSSY_GATE = {"warn_mean_diff": 0.1, "fail_mean_diff": 0.25}
LOSSLESS_GATE = {"fail_mean_diff": 0.005, "fail_max_diff": 0.05}
"""What a feature's file need not say. Reduction order moves ulysses, ring and tp by about 0.0023 in bf16."""

WARN_PSNR_DB = 30.0
"""Likewise, of lossy features; sweeps that were stored before this gate are judged without it. docs/verdicts.md says
where it comes from."""


@dataclass
class Feature:
    """One acceleration switch. Keys of its file beyond these fields are its own parameters (`options`)."""

    name: str = ""
    label: str = ""  # for plots and tables
    summary: str = ""  # one line for people
    lossy: bool = False
    gpus: int = 1  # factor by which it multiplies the devices needed
    shares_ranks: bool = False  # it uses the devices of the other features; `gpus` is what it needs alone
    splits_heads: list[str] = field(default_factory=list)  # engines where its `gpus` must divide the attention heads
    conflicts: list[str] = field(default_factory=list)
    requires: list[str] = field(default_factory=list)  # has no effect without one of these features
    engines: dict[str, Any] = field(default_factory=dict)  # engine -> arguments that enable it there
    families: dict[str, list[str]] = field(default_factory=dict)  # engine -> model families; absent: every family
    unsupported: Any = ""  # why other families are skipped: text, engine -> text, or engine -> family -> text
    evidence: str = ""  # rule of sweep/analysis/evidence.py that shows it engaged; or engine -> rule
    limits: dict[str, list[Any]] = field(default_factory=dict)  # option -> [lowest, highest]
    predict: Any = None  # what it changes of the work, as sweep/predict/effects.py reads it; None: nobody has said
    gate: Gate = field(default_factory=Gate)
    options: dict[str, Any] = field(default_factory=dict)


def resolved_dtype(asked: str, device: str) -> str:
    """engine.dtype with `auto` resolved for cpu or cuda."""
    return asked if asked != "auto" else "float32" if device == "cpu" else "bfloat16"


@dataclass
class EngineConfig:
    """Which engine runs the model, and how long it may take."""

    name: str = "diffusers"
    device: str = "auto"  # auto: cuda where there is one, else cpu
    dtype: str = "auto"  # auto: float32 on cpu, bfloat16 on cuda
    warmup: int = 1  # batches generated before measuring, at the measured shape
    threads_per_rank: int = 1  # OpenMP threads of a CPU rank
    fork: bool = True  # fork its processes from one that has imported everything, which starts faster (Linux)
    load_timeout_s: float = 300.0  # also covers the imports that all engines share, before the first one loads
    warmup_timeout_s: float = 300.0
    request_timeout_s: float = 300.0  # for one batch
    collective_timeout_s: float = 120.0  # how long ranks wait for one another
    # vllm_omni only
    args: dict[str, Any] = field(default_factory=dict)  # further keyword arguments, passed on as they are
    max_num_seqs: int = 8  # largest number of requests that run as one batch
    placement: str = "shared"  # shared: AR and DiT stage on the same GPUs; split: the AR stage on a GPU of its own
    plugin: bool = True  # record phases and evidence inside the workers
    # endpoint only
    url: str | None = None  # http://HOST:PORT of the server; of replicas all, with spaces between them
    served_model: str | None = None  # what it calls its model; None: the first that it names
    api_key_env: str | None = None  # environment variable that holds its key

    def __post_init__(self) -> None:
        require(self.device in ("auto", "cpu", "cuda"), f"engine.device={self.device}: choose auto, cpu or cuda")
        require(self.max_num_seqs >= 1, f"engine.max_num_seqs={self.max_num_seqs}: must be at least 1")
        require(self.placement in ("shared", "split"), f"engine.placement={self.placement}: choose shared or split")
        require(
            self.dtype in ("auto", "float32", "bfloat16"),
            f"engine.dtype={self.dtype}: choose auto, float32 or bfloat16",
        )
        require(self.warmup >= 0, f"engine.warmup={self.warmup}: must be 0 or more")
        require(self.threads_per_rank >= 1, f"engine.threads_per_rank={self.threads_per_rank}: must be at least 1")
        for name in ("load_timeout_s", "warmup_timeout_s", "request_timeout_s", "collective_timeout_s"):
            require(getattr(self, name) > 0, f"engine.{name}={getattr(self, name)}: must be more than 0 seconds")


@dataclass
class Parallel:
    """How many devices one cell may use. Cells that need more are skipped."""

    name: str = "auto"
    gpus: int | None = None  # None: as many as the machine has

    def __post_init__(self) -> None:
        require(self.gpus is None or self.gpus >= 1, f"parallel.gpus={self.gpus}: must be at least 1")


@dataclass
class Workload:
    """The requests of a cell: which prompts, what size, how many steps, which seeds."""

    name: str = "text_to_image"
    task: str = "text_to_image"  # image_edit, or text, which is measured under load
    prompts: str | None = (
        None  # file of prompts: .txt (one per line), .jsonl, .json, .csv, .tsv; None: the shipped ones
    )
    prompts_column: str | None = None  # its column or key that holds the prompts; None: prompt, text or caption
    prompt: str | None = None  # a single prompt instead of a file
    prompt_set: str = "short"  # shipped prompts: world, world_edits, world_turns, short, mixed, long
    num_prompts: int | None = None  # None: all prompts of a file or lines of a folder of yours, else `shipped_prompts`
    shipped_prompts: int = 4  # how many of the shipped prompts, or how often a single `prompt`, where none is said
    prompt_tokens: int | None = None  # pad or trim each prompt to this many tokens of the model's tokenizer
    negative_prompt: str | None = " "
    input_image: str | None = None  # file for image_edit; None: an image generated from the seed
    edits: str | None = None  # folder with edits.jsonl for image_edit: pictures with instructions; docs/edits.md
    input_width: int | None = None  # pixels to which pictures are resized before they are edited; None: as the result
    input_height: int | None = None  # where only one of the two is given, the other keeps the result's shape
    width: int = 64  # pixels
    height: int = 64  # pixels
    steps: int = 8  # denoising steps
    guidance_scale: float = 4.0  # classifier-free guidance (true_cfg_scale on Qwen-Image); 1 disables it
    checks: bool = True  # see whether pictures show what was asked, where the model learnt a world that can be checked
    seeds_per_prompt: int = 1
    repeats: int = 3  # how often the same requests are measured
    # text only
    input_len: int | None = None  # tokens of random prompts, where neither prompt nor prompts is given
    output_len: int | None = None  # tokens to write; None: as many as the reply in a ShareGPT file has, else 128
    prompt_ids: bool | None = None  # send random prompts as tokens, which makes input_len exact; None: if embedded
    temperature: float = 1.0  # 0 takes the likeliest token

    def __post_init__(self) -> None:
        require(self.task in TASKS, f"workload.task={self.task}: choose from {', '.join(TASKS)}")
        require(
            self.prompt_set in PROMPT_SETS,
            f"workload.prompt_set={self.prompt_set}: choose {', '.join(PROMPT_SETS[:-1])} or {PROMPT_SETS[-1]}",
        )
        counts = ("num_prompts", "shipped_prompts", "steps", "seeds_per_prompt", "repeats")
        for name in (*counts, "width", "height", "input_width", "input_height"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"workload.{name}={value}: must be at least 1")
        require(
            self.prompt_tokens is None or self.prompt_tokens <= 1_000_000,
            f"workload.prompt_tokens={self.prompt_tokens}: must be at most 1,000,000",
        )
        require(self.steps <= 1000, f"workload.steps={self.steps}: must be at most 1000")
        require(self.guidance_scale >= 0, f"workload.guidance_scale={self.guidance_scale}: must be 0 or more")
        require(
            self.prompt_tokens is None or self.prompt_tokens >= 1,
            f"workload.prompt_tokens={self.prompt_tokens}: must be at least 1",
        )
        self._check_text()
        self._check_edits()

    def number_of(self, there: int) -> int:
        """How many prompts a cell generates where `there` distinct ones are: as said, else a file's whole content.

        Of edits in a folder it is lines, each with all its turns.
        """
        if self.num_prompts is not None:
            return self.num_prompts
        yours = self.edits is not None or (self.prompts is not None and self.prompt is None)
        return there if yours else self.shipped_prompts

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Width and height to which pictures are resized before they are edited; None: those of the result."""
        width, height = self.input_width, self.input_height
        if width is None and height is None:
            return None
        return (
            width if width is not None else max(1, round((height or 0) * self.width / self.height)),
            height if height is not None else max(1, round((width or 0) * self.height / self.width)),
        )

    @property
    def reads_edits(self) -> bool:
        """Whether pictures come with their instructions: from a folder of the user's, or the shipped one."""
        shipped = self.prompt_set == WORLD_TURNS and self.prompt is None and self.prompts is None
        return self.task == EDITS and (self.edits is not None or shipped)

    def _check_edits(self) -> None:
        for name in ("edits", "input_width", "input_height"):
            value = getattr(self, name)
            require(value is None or self.task == EDITS, f"workload.{name}={value}: goes with workload=image_edit")
        require(
            self.task == EDITS or self.prompt_set != WORLD_TURNS,
            f"workload.prompt_set={WORLD_TURNS}: goes with workload=image_edit",
        )
        source = f"edits={self.edits}" if self.edits is not None else f"prompt_set={self.prompt_set}"
        for name in ("prompt", "prompts", "input_image") if self.edits is not None else ("input_image",):
            value = getattr(self, name)
            require(
                value is None or not self.reads_edits,
                f"workload.{source} has pictures and instructions of its own; drop workload.{name}={value}",
            )

    def _check_text(self) -> None:
        for name in ("input_len", "output_len"):
            value = getattr(self, name)
            require(value is None or self.task == TEXT, f"workload.{name}={value}: goes with workload=text")
            require(
                value is None or 1 <= value <= LONGEST_TEXT,
                f"workload.{name}={value}: must be from 1 to {LONGEST_TEXT:,} tokens",
            )
        require(0 <= self.temperature <= 2, f"workload.temperature={self.temperature}: must be from 0 to 2")
        given = self.prompt is not None or self.prompts is not None or self.input_len is not None
        require(
            self.task != TEXT or given,
            "workload.task=text needs workload.input_len=N for random prompts, or workload.prompts=FILE",
        )


FIXED, PARETO, CHOICE = "fixed", "pareto", "choice"
SIZES = (FIXED, PARETO, CHOICE)


@dataclass
class Mix:
    """How the requests of a load for images differ from one another, all drawn from `seed`."""

    edits: float | None = None  # share of requests that edit a picture, where the workload asks for pictures from text
    prompts: str | None = None  # file of instructions for the edits, as workload.prompts; None: the shipped ones
    upload: int | None = None  # side in pixels of the pictures that edits send; None: as large as the one asked for
    mask: str | None = None  # image file that edits send as `mask`, to servers that take one
    sizes: str = FIXED  # fixed: workload.width × height; pareto, choice: squares of sides that are drawn
    sides: list[int] = field(default_factory=list)  # choice: these sides in pixels, equally likely
    alpha: float = 2.5  # pareto: how fast the tail falls; smaller is heavier
    x_min: int | None = None  # pareto: the smallest side in pixels; None: workload.width

    def __post_init__(self) -> None:
        require(
            self.edits is None or 0 <= self.edits <= 1,
            f"load.mix.edits={self.edits}: must be from 0 to 1, a share of the requests",
        )
        require(self.sizes in SIZES, f"load.mix.sizes={self.sizes}: choose {', '.join(SIZES[:-1])} or {SIZES[-1]}")
        require(self.alpha > 0, f"load.mix.alpha={self.alpha}: must be more than 0")
        for name in ("upload", "x_min"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"load.mix.{name}={value}: must be at least 1 pixel")
        require(all(side >= 1 for side in self.sides), f"load.mix.sides={self.sides}: must be at least 1 pixel each")
        listed = self.sizes == CHOICE
        require(not listed or bool(self.sides), "load.mix.sizes=choice needs load.mix.sides=[64,128]")
        require(listed or not self.sides, f"load.mix.sides={self.sides} goes with load.mix.sizes=choice")
        self.prompts, self.mask = at_home(self.prompts), at_home(self.mask)

    @property
    def mixes(self) -> bool:
        """Whether requests differ at all."""
        return bool(self.edits) or self.sizes != FIXED


LOADS = ("offline", "closed", "open")
LAWS = ("constant", "poisson", "gamma", "burst")
SEARCHES = ("", "concurrency", "slo", "soak")


@dataclass
class Slo:
    """What a request under load has to meet, each in milliseconds; None: no limit."""

    ttft: float | None = None  # from sending it to its first AR token
    tpot: float | None = None  # per AR token after the first
    e2el: float | None = None  # from when it was due until its last byte

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value is None or value > 0, f"load.slo.{name}={value}: must be more than 0 ms")


@dataclass
class Load:
    """How requests arrive. Offline the engine is given one batch after another; else it is served over HTTP."""

    name: str = "offline"  # offline, closed (as many in flight as may be), open (due at times of their own)
    max_concurrency: int | None = None  # most requests in flight; closed needs it, open has no limit without it
    request_rate: float | None = None  # open: requests a second, on average
    arrivals: str = "poisson"  # open: constant, poisson, gamma, burst
    burstiness: float = 1.0  # gamma: below 1 arrivals cluster, 1 is poisson
    burst: int = 8  # burst: requests that come at once, for half of the rate
    trace: str | None = None  # open: file of recorded arrival times instead of a rate
    num_requests: int | None = None  # None: enough for a steady state (`requests`)
    clients: int = 1  # processes that send the requests
    ramp_s: float = 0.0  # how long the load takes to become as heavy as it is
    warmup_requests: int = 2  # sent first and left out
    batch_wait_ms: float = 0.0  # how long the first request of a batch waits for company
    queue: int = 1024  # requests that may wait in the server; it answers more with 429
    slo: Slo = field(default_factory=Slo)
    mix: Mix = field(default_factory=Mix)
    attain: float = 0.95  # share of requests that has to meet the SLO
    # What else to measure: concurrency (twice as many in flight until throughput stops growing), slo (the highest
    # request rate that meets the SLO) or soak (the same load again and again, part by part); "" for nothing.
    search: str = ""
    precision: float = 0.05  # search=slo: ends when that rate is known to this, relative
    most: float = 64  # of max_concurrency or request_rate that a search goes up to
    duration_s: float | None = None  # how long requests are sent; None: until num_requests are
    parts: int = 24  # search=soak: how often; each is kept when it is done
    part: int = 0  # search=soak: which one this is, counted from 0

    def __post_init__(self) -> None:
        require(self.name in LOADS, f"load={self.name}: choose {', '.join(LOADS[:-1])} or {LOADS[-1]}")
        require(self.arrivals in LAWS, f"load.arrivals={self.arrivals}: choose {', '.join(LAWS[:-1])} or {LAWS[-1]}")
        for name in ("num_requests", "burst", "queue", "clients"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"load.{name}={value}: must be at least 1")
        for name in ("ramp_s", "warmup_requests", "batch_wait_ms"):
            require(getattr(self, name) >= 0, f"load.{name}={getattr(self, name)}: must be 0 or more")
        for name in ("max_concurrency", "request_rate", "burstiness"):
            value = getattr(self, name)
            require(value is None or value > 0, f"load.{name}={value}: must be more than 0")
        self.trace = at_home(self.trace)
        self._check_search()
        if self.name == "closed":
            require(self.max_concurrency is not None, "load=closed needs load.max_concurrency=N, or several: 1,2,4,8")
            require(self.request_rate is None, "load.request_rate goes with load=open; load=closed has a concurrency")
        if self.name == "open":
            paced = (self.request_rate is None) != (self.trace is None)
            require(paced, "load=open needs load.request_rate=R (requests a second) or load.trace=FILE, and not both")

    def _check_search(self) -> None:
        require(
            self.search in SEARCHES, f"load.search={self.search}: choose {', '.join(SEARCHES[1:-1])} or {SEARCHES[-1]}"
        )
        require(0 < self.attain <= 1, f"load.attain={self.attain}: must be more than 0 and at most 1")
        require(0.001 <= self.precision < 1, f"load.precision={self.precision}: must be from 0.001 to 1 (0.05 is 5 %)")
        require(self.most > 0, f"load.most={self.most}: must be more than 0")
        require(
            self.duration_s is None or self.duration_s > 0, f"load.duration_s={self.duration_s}: must be more than 0"
        )
        require(self.parts >= 1, f"load.parts={self.parts}: must be at least 1")
        right = {"concurrency": ("closed",), "slo": ("open",), "soak": ("closed", "open")}.get(self.search, LOADS)
        require(self.name in right, f"load.search={self.search} needs load={right[0]}")
        if self.search == "slo":
            limits = any(value is not None for value in vars(self.slo).values())
            require(limits, "load.search=slo needs a limit, in ms: load.slo.e2el=2000, load.slo.ttft or load.slo.tpot")
            require(self.trace is None, "load.search=slo chooses rates itself; drop load.trace")

    @property
    def level(self) -> str:
        """How heavy it is: `4 in flight`, `2/s`; "" offline and for a recorded trace. Of a soak, which part it is."""
        if self.search == "soak":
            return f"part {self.part + 1}"
        if self.name == "closed":
            return f"{self.max_concurrency} in flight"
        return "" if self.name != "open" or self.request_rate is None else f"{self.request_rate:g}/s"

    @property
    def requests(self) -> int:
        """How many are sent: as asked, else 24 after the first ones that fill a server and before the last ones."""
        return self.num_requests or (64 if self.max_concurrency is None else 24 + 3 * self.max_concurrency)


AUTO = "auto"

FIGURES = (
    *("price_per_gpu_hour", "peak_tflops", "bandwidth_gb_s", "memory_gb", "usable_gb", "link_gb_s", "peer_gb_s"),
    *("launch_us", "all_reduce", "power_w", "idle_w"),
)
"""Fields of Hardware that are figures, each with an origin in `sources`."""

DTYPES = ("float32", "tf32", "bfloat16", "fp8", "int8")
"""What products of matrices are computed in; float16 is as fast as bfloat16 on all hardware in conf/hardware/."""

DATA_SHEET, DRIVER, LIST_PRICE, MEASURED, GIVEN = (
    "data sheet",
    "driver",
    "list price",
    "measured on this machine",
    "given",
)
GRADES = (DATA_SHEET, DRIVER, LIST_PRICE, MEASURED, GIVEN)
"""How a figure of hardware is known: from the maker, as a driver reports it, as somebody asks for it, measured, or
given on the command line."""


@dataclass
class Origin:
    """Where a figure of the hardware comes from."""

    grade: str = DATA_SHEET
    source: str = ""  # document, page or command
    date: str = ""  # YYYY-MM-DD that it was published, read or measured; "" where the source has a version of its own

    def __post_init__(self) -> None:
        require(
            self.grade in GRADES, f"hardware.sources: unknown grade '{self.grade}'; choose from {', '.join(GRADES)}"
        )


@dataclass
class AllReduce:
    """How long one all-reduce takes."""

    ranks: int = 2
    bytes: int = 1  # of the tensor that each rank holds
    us: float = 1.0

    def __post_init__(self) -> None:
        require(self.ranks >= 2, f"hardware.all_reduce: ranks={self.ranks}: must be at least 2")
        require(self.bytes >= 1, f"hardware.all_reduce: bytes={self.bytes}: must be at least 1")
        require(self.us > 0, f"hardware.all_reduce: us={self.us}: must be more than 0 microseconds")


@dataclass
class Hardware:
    """The machine. None means that the value is discovered, or unknown.

    Figures are those of one device: a GPU or, without one, a CPU core that runs one rank. They are for predictions and
    for cost; they change neither what runs nor on which devices.
    """

    name: str = AUTO
    gpus: int | None = None  # devices to use; on a CPU: ranks that may run at once (None: one per core)
    price_per_gpu_hour: float | None = None  # for cost_per_image, in your currency; the files' are in USD
    kind: str = "cuda"  # cuda, or cpu: what the figures are of
    match: list[str] = field(default_factory=list)  # whole names of such a device as drivers report them
    peak_tflops: dict[str, float] = field(default_factory=dict)  # dtype (DTYPES) -> 10^12 operations a second, dense
    bandwidth_gb_s: float | None = None  # of its memory, 10^9 bytes/s read and written together
    memory_gb: float | None = None  # 10^9 bytes, as the driver reports it
    usable_gb: float | None = None  # 10^9 bytes, the part of it that one process can allocate, its context included
    link_gb_s: float | None = None  # 10^9 bytes/s that it sends to all other devices of its host together
    peer_gb_s: float | None = None  # 10^9 bytes/s that it sends to a single one of them
    launch_us: float | None = None  # time of the host to launch one kernel from PyTorch, microseconds
    all_reduce: list[AllReduce] = field(default_factory=list)  # between devices of one host, by size
    power_w: float | None = None  # power limit, W
    idle_w: float | None = None  # power without work, W
    sources: dict[str, Origin] = field(default_factory=dict)  # figure (FIGURES) -> where it comes from

    def __post_init__(self) -> None:
        require(self.gpus is None or self.gpus >= 1, f"hardware.gpus={self.gpus}: must be at least 1")
        require(self.kind in ("cuda", "cpu"), f"hardware.kind={self.kind}: choose cuda or cpu")
        require(
            self.price_per_gpu_hour is None or self.price_per_gpu_hour >= 0,
            f"hardware.price_per_gpu_hour={self.price_per_gpu_hour}: must be 0 or more",
        )
        for name in FIGURES:
            value = getattr(self, name)
            if isinstance(value, int | float) and name != "price_per_gpu_hour":
                require(value > 0, f"hardware.{name}={value}: must be more than 0")
        for dtype, peak in self.peak_tflops.items():
            choose = f"choose from {', '.join(DTYPES)}"
            require(dtype in DTYPES, f"hardware.peak_tflops: unknown dtype '{dtype}'; {choose}")
            require(peak > 0, f"hardware.peak_tflops.{dtype}={peak}: must be more than 0")
        for name in self.sources:
            require(name in FIGURES, f"hardware.sources: no figure is called '{name}'{nearest(name, FIGURES)}")


@dataclass
class RunConfig:
    """One cell, fully resolved. These are the fields that the command line overrides."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    model: Model = field(default_factory=Model)
    feature: dict[str, Any] = field(default_factory=dict)  # name -> keys of conf/feature/NAME.yaml
    parallel: Parallel = field(default_factory=Parallel)
    workload: Workload = field(default_factory=Workload)
    load: Load = field(default_factory=Load)
    hardware: Hardware = field(default_factory=Hardware)
    batch: int = 1  # prompts generated at once
    seed: int = 0  # first seed; prompt i of seed s uses seed + s
    baselines: bool = True  # multirun: add the baseline of every cell
    aa: int = 2  # multirun: A/A runs of a baseline, each in a fresh engine, to estimate start-to-start noise
    interleave: str = "auto"  # multirun: interleave the baseline with each cell, batch by batch; auto: on a CPU
    repeat: int | str = 1  # multirun: engine starts per cell; auto: until `precision` is reached
    precision: float = 0.05  # target half-width of a speed-up's 95 % interval, relative (0.05 is ±5 %)
    max_repeat: int = 4  # most engine starts per cell with repeat=auto
    budget: str | None = None  # 90s, 20min, 2h: run what tells most first, and start nothing that would not fit
    skip_oom: bool = False  # SKIP cells that by prediction do not fit into the memory of the device
    clip: str | None = None  # folder of a CLIP checkpoint: adds each image's similarity to the baseline's image
    ocr: bool = False  # read the text in pictures whose prompts quote text; needs the extra `ocr`
    combine: int = 1  # multirun: 2 adds all pairs of the listed features, 3 also all triples, …
    profile: str = "off"  # nsys: record the measured requests; torch: the first batch. Speed is then not judged
    dry_run: bool | int | str = False  # print the plan and run nothing; json: as plan.json has it, for programs
    allow_empty: bool = False  # a sweep of which nothing can run is no error: its cells are SKIP in the tables
    plots: bool = True  # draw plots and report.html when the sweep ends
    metadata: dict[str, Any] = field(default_factory=dict)  # whatever describes the run; kept with every result
    group: int | None = None  # internal: number of the group that a launched job runs

    def __post_init__(self) -> None:
        self.clip = at_home(self.clip)
        require(self.batch >= 1, f"batch={self.batch}: must be at least 1")
        require(0 <= self.seed <= LARGEST_SEED, f"seed={self.seed}: must be from 0 to {LARGEST_SEED}")
        require(self.combine >= 1, f"combine={self.combine}: must be at least 1 (2 adds all pairs)")
        require(0 <= self.aa <= MOST_STARTS, f"aa={self.aa}: must be from 0 (no A/A) to {MOST_STARTS}")
        self.interleave = self.interleave.lower()  # false on the command line arrives as "False"
        require(
            self.interleave in ("auto", "true", "false"), f"interleave={self.interleave}: choose auto, true or false"
        )
        self.profile = self.profile.lower()
        require(
            self.profile in PROFILES, f"profile={self.profile}: choose {', '.join(PROFILES[:-1])} or {PROFILES[-1]}"
        )
        number = str(self.repeat).isdecimal() and 1 <= int(self.repeat) <= MOST_STARTS
        require(
            number or self.repeat == "auto",
            f"repeat={self.repeat}: choose auto, or from 1 to {MOST_STARTS} engine starts",
        )
        require(0 < self.precision < 1, f"precision={self.precision}: must be between 0 and 1 (0.05 is ±5 %)")
        require(self.dry_run in (True, False, "json"), f"dry_run={self.dry_run}: choose true, false or json")
        require(1 <= self.max_repeat <= MOST_STARTS, f"max_repeat={self.max_repeat}: must be from 1 to {MOST_STARTS}")
        if self.budget is not None:
            seconds_of(self.budget, "budget")


@functools.cache
def field_names(kind: type = RunConfig, prefix: str = "") -> tuple[str, ...]:
    """Every field that an override can name, with its group: `batch`, `workload.steps`, `model.dit.heads`."""
    names: list[str] = []
    for name, annotation in typing.get_type_hints(kind).items():
        names.append(f"{prefix}{name}")
        alternatives = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        for inner in alternatives:  # what lists and dictionaries hold has no names of its own
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                names += field_names(inner, f"{prefix}{name}.")
    return tuple(names)


def register() -> None:
    """Put the schema into Hydra's ConfigStore; conf/config.yaml builds on it.

    Hydra deep-copies the whole store for every configuration that it composes: 85 times for --help, most of its time.
    What the store hands out are copies anyway (`ConfigStore.load`), so a copy of the store is the store itself.
    """
    from hydra.core.config_store import ConfigStore  # not above: engines' processes read the schema without Hydra

    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    ConfigStore.__deepcopy__ = lambda self, memo: self
