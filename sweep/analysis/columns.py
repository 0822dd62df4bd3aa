"""Every column of summary.csv, once: its name, unit, meaning, which direction is better, and how it is computed.

summary.csv, the page, the plots, report.json and pandas frames are made from this table, so a new metric is one entry
here. A column without `value` depends on several cells, and `summary` fills it in. `metrics` holds the formulas.
`options` has the columns that depend on what a sweep chose.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from profiling.phases import EXCLUSIVE_PHASES, OTHER
from sweep.analysis import load_metrics, metrics
from sweep.analysis.cell_data import CellData
from sweep.config import TEXT
from sweep.engines.protocol import EDIT, GENERATE
from sweep.plan.cells import Cell
from sweep.plan.features import combination_name

IDENTITY, STATUS, METRIC, PHASE, SPEED, QUALITY, FACT = (
    *("identity", "status", "metric", "phase", "speed", "quality", "fact"),
)
"""Kinds of columns. Each kind has its own place in report.json."""

LOWER, HIGHER = "lower", "higher"

AR_PHASES = ("ar_prefill", "ar_decode")
PHASE_PARTS = (*EXCLUSIVE_PHASES, "dit_forward", OTHER)


@dataclass(frozen=True)
class Column:
    """One column. `name` ends with the unit if there is one and the name has room for it."""

    name: str
    kind: str
    meaning: str  # one line for people
    value: Callable[[CellData], Any] | None = None  # None: `summary` fills it in
    label: str = ""  # in a cell's section of the page, and on axes; "": not shown there
    heading: str = ""  # in the page's table; "": not shown there
    unit: str = ""
    better: str = ""  # LOWER or HIGHER

    @property
    def axis(self) -> str:
        """Text for the axis of a plot: label, unit, and which direction is better."""
        text = f"{self.label}, {self.unit}" if self.unit else self.label
        return text + {LOWER: "\n← lower is better", HIGHER: "\nhigher is better →"}.get(self.better, "")


def _identity(name: str, meaning: str, value: Callable[[Cell], Any]) -> Column:
    return Column(name, IDENTITY, meaning, lambda m: value(m.cell))


def _of_task(task: str, what: str) -> list[Column]:
    """Latency of one kind of request, where a load mixes several."""
    latencies_s = load_metrics.latency_of(task)

    def mean_s(measured: CellData) -> float | None:
        return metrics.mean(latencies_s(measured))

    mixed = f"mean latency of {what}, where a load mixes kinds of requests"
    return [
        Column(f"{task}_latency_mean_s", METRIC, mixed, mean_s, unit="s", better=LOWER),
        *_percentiles(f"{task}_latency", f"latency of {what}", latencies_s, (95,)),
    ]


def _percentiles(name: str, what: str, values: Callable[[CellData], list[float]], qs: tuple[int, ...]) -> list[Column]:
    """Percentiles of one distribution, e.g. `latency_p90_s`. `qs` in [0, 100]."""

    def column(q: int) -> Column:
        return Column(
            f"{name}_p{q}_s",
            METRIC,
            f"{q}th percentile of {what}" + (f"; needs {metrics.samples_needed(q)} samples" if q >= 95 else ""),
            lambda m: metrics.percentile(values(m), q),
            unit="s",
            better=LOWER,
            **({"label": "latency, p95", "heading": "p95, s"} if (name, q) == ("latency", 95) else {}),
        )

    return [column(q) for q in qs]


def _phase(phase: str) -> Column:
    what = {"request": "", OTHER: " spent outside all phases"}.get(phase, f" spent in {phase}")
    return Column(
        f"{phase}_ms",
        PHASE,
        f"mean time per batch{what}",
        lambda m: m.totals_ms.get(phase),
        unit="ms",
        better=LOWER,
    )


def _baseline_phase(phase: str) -> Column:
    return Column(
        f"baseline_{phase}_ms",
        METRIC,
        f"{phase}_ms of the interleaved baseline",
        lambda m: m.baseline_totals_ms.get(phase),
        unit="ms",
    )


def _share(phase: str) -> Column:
    return Column(f"{phase}_share", METRIC, f"{phase}_ms ÷ request_ms, in [0, 1]", lambda m: m.shares.get(phase))


def _bottleneck(measured: CellData) -> str | None:
    worst = metrics.bottleneck(measured.shares)
    return worst.phase if worst else None


def _writes(measured: CellData) -> bool:
    """Whether it makes texts and no images."""
    return bool(measured.cell.config["workload"].get("task") == TEXT)


def _images(measured: CellData) -> int:
    return 0 if _writes(measured) else len(measured.completed)


def _throughput(measured: CellData) -> float | None:
    return None if _writes(measured) else metrics.images_per_s(_images(measured), measured.wall_s)


def _per_gpu(measured: CellData) -> float | None:
    if _writes(measured):
        return None
    return metrics.images_per_s_per_gpu(_images(measured), measured.wall_s, measured.cell.gpus)


def _requests_per_s(measured: CellData) -> float | None:
    return metrics.images_per_s(len(measured.completed), measured.wall_s)


def _read_per_s(measured: CellData) -> float | None:
    if not _writes(measured) or not measured.wall_s:
        return None
    return sum(request.prompt_tokens for request in measured.completed) / measured.wall_s


def _of_image(name: str) -> Callable[[Cell], int]:
    return lambda cell: 0 if cell.config["workload"].get("task") == TEXT else cell.config["workload"][name]


def _tokens_per_s(measured: CellData) -> float | None:
    tokens = sum(request.output_tokens for request in measured.completed)
    return tokens / measured.wall_s if tokens and measured.wall_s else None


def _ar_tokens_per_s(measured: CellData) -> float | None:
    if not measured.output_tokens:
        return None
    ar_ms = math.fsum([batch.phase_ms.get(phase, 0.0) for phase in AR_PHASES for batch in measured.batches])
    return 1000 * measured.output_tokens / ar_ms if ar_ms else None


def _image_tokens_per_s(measured: CellData) -> float | None:
    """From the longest sequence that a block saw, on all ranks that share one."""
    made_of_images = measured.cell.config["workload"]["task"] == "text_to_image"  # an edit's sequence holds its input
    if measured.output_tokens or not measured.wall_s or not made_of_images:
        return None
    shards = math.prod(feature.gpus for feature in measured.cell.chosen if feature.evidence == "sharded_sequence")
    seen = max((rank.block_sequence for batch in measured.batches for rank in batch.evidence), default=0)
    return seen * shards * len(measured.completed) / measured.wall_s if seen else None


def _energy(measured: CellData) -> float | None:
    if _writes(measured):
        return None
    return metrics.energy_j_per_image([(r.telemetry.get("energy_j"), len(r.requests)) for r in measured.results])


def _cost(measured: CellData) -> float | None:
    if measured.cell.device == "cpu":
        return None  # the price is that of a GPU
    price, images = measured.cell.config["hardware"]["price_per_gpu_hour"], _images(measured)
    return measured.cell.gpus * price / 3600 * measured.wall_s / images if price is not None and images else None


COLUMNS: tuple[Column, ...] = (
    _identity("cell", "label: features, batch and everything else that the sweep varies", lambda cell: cell.label),
    _identity("model", "name of the model", lambda cell: cell.config["model"]["name"]),
    _identity("engine", "name of the engine", lambda cell: cell.config["engine"]["name"]),
    Column("features", FACT, "sorted, e.g. `a+b`; or `baseline`", lambda m: combination_name(m.cell.features)),
    _identity("parallel", "choice from the configuration group parallel", lambda cell: cell.config["parallel"]["name"]),
    _identity("gpus", "devices that the cell needs", lambda cell: cell.gpus),
    _identity("batch", "prompts generated at once", lambda cell: cell.config["batch"]),
    Column("load", FACT, "how requests arrive; empty offline", lambda m: load_metrics.described(m.cell)),
    Column(
        "concurrency",
        FACT,
        "most requests in flight (load.max_concurrency)",
        lambda m: load_metrics.asked(m.cell, "max_concurrency"),
    ),
    Column(
        "request_rate",
        FACT,
        "requests a second that were asked for",
        lambda m: load_metrics.asked(m.cell, "request_rate"),
    ),
    Column("part", FACT, "which part of a long load this is, counted from 1", lambda m: load_metrics.part(m.cell)),
    _identity("steps", "denoising steps; 0 for texts", _of_image("steps")),
    _identity("width", "image width in pixels; 0 for texts", _of_image("width")),
    _identity("height", "image height in pixels; 0 for texts", _of_image("height")),
    Column("prompts", FACT, "distinct prompts", lambda m: len({r.prompt_index for r in m.requests}) or None),
    Column("status", STATUS, "PASS, WARN, FAIL, ERROR, NOT RUN or SKIP"),
    Column("reason", STATUS, "why the cell has this status, in one line", heading="reason"),
    Column("reason_code", FACT, "the reason as a code, e.g. not_engaged; empty for a baseline that passes"),
    Column("valid", FACT, "whether the numbers can be trusted, whatever the status"),
    Column("invalid_reason", STATUS, "why the numbers cannot be trusted; empty if they can"),
    Column("profiled", FACT, "profiler of the cell: nsys or torch; empty if none", lambda m: m.cell.profile or None),
    Column(
        "latency_mean_s",
        METRIC,
        "mean time from sending a batch to receiving its images",
        lambda m: metrics.mean(m.latencies_s),
        "latency, mean",
        "latency, s",
        "s",
        LOWER,
    ),
    *_percentiles("latency", "latency", lambda m: m.latencies_s, (50, 90, 95, 99)),
    Column(
        "images_per_s",
        METRIC,
        "images ÷ wall time of the cell's own turns",
        _throughput,
        "throughput",
        "images/s",
        "images/s",
        HIGHER,
    ),
    Column(
        "images_per_s_per_gpu",
        METRIC,
        "images ÷ time ÷ devices",
        _per_gpu,
        heading="images/s/GPU",
        unit="images/s",
        better=HIGHER,
    ),
    Column("requests_per_s", METRIC, "requests ÷ time; each makes one image or text", _requests_per_s, better=HIGHER),
    Column("requests_per_s_low", METRIC, "lower end of its 95 % interval, under load", load_metrics.rate_low),
    Column("requests_per_s_high", METRIC, "upper end of its 95 % interval", load_metrics.rate_high),
    Column(
        "queue_mean_s",
        METRIC,
        "mean time from when a request is sent until the engine begins with it, under load",
        lambda m: metrics.mean(load_metrics.queued_s(m)),
        "waiting in the server",
        "queue, s",
        "s",
        LOWER,
    ),
    Column(
        "e2e_with_queue_mean_s",
        METRIC,
        "mean time from when a request was due until its last byte, with load=open",
        lambda m: metrics.mean(load_metrics.with_queue_s(m)),
        "latency from when it was due",
        unit="s",
        better=LOWER,
    ),
    *_percentiles("e2e_with_queue", "the same", load_metrics.with_queue_s, (50, 90, 95, 99)),
    *_of_task(GENERATE, "pictures from text"),
    *_of_task(EDIT, "edits"),
    Column(
        "goodput_per_s",
        METRIC,
        "requests a second that meet load.slo",
        load_metrics.goodput_per_s,
        "goodput",
        "goodput/s",
        "requests/s",
        HIGHER,
    ),
    Column("goodput_share", METRIC, "requests that meet load.slo ÷ all, failed ones included", load_metrics.goodput),
    Column("goodput_low", METRIC, "lower end of its 95 % interval (Wilson)", load_metrics.goodput_low),
    Column("goodput_high", METRIC, "upper end of its 95 % interval", load_metrics.goodput_high),
    Column(
        "predicted_p50_s",
        METRIC,
        "median latency by the queueing model: from when requests are due, with load=closed from when they are sent",
        unit="s",
        better=LOWER,
    ),
    Column("predicted_p95_s", METRIC, "95th percentile of the same", unit="s", better=LOWER),
    Column("predicted_requests_per_s", METRIC, "requests done a second, by the queueing model", better=HIGHER),
    Column("predicted_goodput_share", METRIC, "share of requests that meet load.slo, by the queueing model"),
    Column("predicted_busy", METRIC, "share of the time in which the server works, by the queueing model"),
    Column("in_flight", METRIC, "requests under way, on average over time", load_metrics.in_flight),
    Column("batch_mean", METRIC, "requests in a batch of the server, on average", load_metrics.batch_mean),
    Column("ar_busy", METRIC, "share of the load in which the AR stage computed", load_metrics.ar_busy),
    Column("dit_busy", METRIC, "share of the load in which the DiT stage computed", load_metrics.dit_busy),
    Column(
        "stage_overlap",
        METRIC,
        "share of the DiT stage's time in which the AR stage computed another request as well",
        load_metrics.stage_overlap,
    ),
    Column("requests_sent", FACT, "requests under load, failed ones included", load_metrics.sent),
    Column("requests_failed", FACT, "of them, those without a usable reply", load_metrics.failed),
    Column("requests_judged", FACT, "of them, those of the steady state: latencies are theirs", load_metrics.judged),
    Column("window_s", FACT, "seconds of the steady state", load_metrics.window_s),
    Column(
        "ttft_mean_s",
        METRIC,
        "mean time from a request's start to its first AR token",
        lambda m: metrics.mean(m.ttfts_s),
        "time to first token",
        "TTFT, s",
        "s",
        LOWER,
    ),
    *_percentiles("ttft", "the time to the first AR token", lambda m: m.ttfts_s, (95, 99)),
    Column(
        "tpot_mean_s",
        METRIC,
        "mean of (last AR token − first) ÷ (AR tokens − 1)",
        lambda m: metrics.mean(m.tpots_s),
        "time per output token",
        unit="s",
        better=LOWER,
    ),
    *_percentiles("tpot", "the time per AR token after the first", lambda m: m.tpots_s, (95, 99)),
    Column(
        "itl_mean_s",
        METRIC,
        "mean gap between chunks of a text that streams",
        lambda m: metrics.mean(m.gaps_s),
        "time between chunks",
        unit="s",
        better=LOWER,
    ),
    *_percentiles("itl", "the gaps between chunks, of all texts together", lambda m: m.gaps_s, (95, 99)),
    Column("input_tokens_per_s", METRIC, "tokens of prompts ÷ time, for texts", _read_per_s, better=HIGHER),
    Column("output_tokens_per_s", METRIC, "AR tokens ÷ time, the whole request's", _tokens_per_s, better=HIGHER),
    Column("ar_tokens_per_s", METRIC, "AR tokens ÷ time in ar_prefill and ar_decode", _ar_tokens_per_s, better=HIGHER),
    Column(
        "image_tokens_per_s",
        METRIC,
        "image tokens of the DiT ÷ time, for models that write no AR tokens",
        _image_tokens_per_s,
        better=HIGHER,
    ),
    *(_phase(phase) for phase in ("request", *PHASE_PARTS)),
    *(_share(phase) for phase in PHASE_PARTS),
    Column("bottleneck", FACT, "the longest exclusive phase", _bottleneck, heading="bottleneck"),
    Column(
        "peak_memory_gb",
        METRIC,
        "peak memory in use, in 10⁹ bytes",
        lambda m: max(m.telemetry("peak_memory_gb"), default=None),
        "peak memory",
        "memory, GB",
        "GB",
        LOWER,
    ),
    Column(
        "gpu_util_pct",
        METRIC,
        "mean GPU utilisation",
        lambda m: metrics.mean(m.telemetry("gpu_util_pct")),
        "GPU busy",
        unit="%",
    ),
    Column("energy_j_per_image", METRIC, "energy ÷ images", _energy, "energy", "energy, J/image", "J/image", LOWER),
    Column("cpu_pct", METRIC, "CPU use, 100 is one core", lambda m: metrics.mean(m.telemetry("cpu_pct")), unit="%"),
    Column(
        "load_s",
        METRIC,
        "mean time until the engine accepted requests",
        lambda m: metrics.mean([result.load_s for result in m.results if result.load_s is not None]),
        "loading",
        unit="s",
        better=LOWER,
    ),
    Column(
        "baseline_beside_s",
        METRIC,
        "mean latency of the interleaved baseline, as measured",
        lambda m: metrics.mean([batch.baseline_s for batch in m.batches if batch.baseline_s is not None]),
        unit="s",
    ),
    Column(
        "baseline_latency_s",
        METRIC,
        "latency of the baseline that the speed-up compares with, for the same requests: latency_mean_s × speedup",
        unit="s",
    ),
    *(_baseline_phase(phase) for phase in ("request", *PHASE_PARTS)),
    Column("speedup", SPEED, "baseline latency ÷ cell latency", heading="speed-up (95 %)", unit="×", better=HIGHER),
    Column("speedup_low", SPEED, "lower end of its 95 % interval"),
    Column("speedup_high", SPEED, "upper end of its 95 % interval"),
    Column(
        "called",
        SPEED,
        "verdict on this cell alone: faster, slower or no difference; empty if noise is unknown or pairs are too few",
        heading="verdict",
    ),
    Column("p_value", SPEED, "two-sided p-value of no difference, for this cell alone"),
    Column("p_holm", SPEED, "the same, adjusted for all cells that the sweep judges (Holm)"),
    Column(
        "interaction_gain",
        SPEED,
        "speed-up of a combination ÷ product of its members' speed-ups",
        heading="interaction",
        better=HIGHER,
    ),
    Column("interaction_low", SPEED, "lower end of its 95 % interval, from those of the speed-ups in quadrature"),
    Column("interaction_high", SPEED, "upper end of its 95 % interval"),
    Column(
        "gain_over_base",
        SPEED,
        "latency of the base ÷ latency of the base with the add-on (base=… add=…)",
        heading="over base (95 %)",
        unit="×",
        better=HIGHER,
    ),
    Column("gain_over_base_low", SPEED, "lower end of its 95 % interval"),
    Column("gain_over_base_high", SPEED, "upper end of its 95 % interval"),
    Column("base", FACT, "the cell that gain_over_base compares with; empty without base="),
    Column("starts", METRIC, "engine starts that measured the cell"),
    Column("note", STATUS, "remarks that do not change the status"),
    Column(
        "mean_diff",
        QUALITY,
        "mean absolute pixel difference from the baseline's images, in [0, 1]",
        label="mean pixel difference",
        heading="mean diff",
        better=LOWER,
    ),
    Column(
        "max_diff",
        QUALITY,
        "largest absolute pixel difference, in [0, 1]",
        label="largest pixel difference",
        better=LOWER,
    ),
    Column(
        "psnr_db",
        QUALITY,
        "PSNR against the baseline's images; inf when identical",
        label="PSNR",
        heading="PSNR",
        unit="dB",
        better=HIGHER,
    ),
    Column("ssim", QUALITY, "SSIM against the baseline's images", label="SSIM", heading="SSIM", better=HIGHER),
    Column(
        "clip_similarity",
        QUALITY,
        "CLIP similarity with the baseline's images (clip=DIR)",
        label="CLIP similarity",
        heading="CLIP",
        better=HIGHER,
    ),
    Column("pictures_checked", METRIC, "pictures whose prompt the model knows, checked fact by fact"),
    Column(
        "exact_rate",
        METRIC,
        "share of checked pictures that show all that was asked",
        label="pictures that show what was asked",
        heading="exact",
        better=HIGHER,
    ),
    Column("exact_low", METRIC, "lower end of its 95 % interval (Wilson)"),
    Column("exact_high", METRIC, "upper end of its 95 % interval"),
    Column(
        "facts_right",
        METRIC,
        "share of facts (shape, colour, place, count, words, …) that are right in checked pictures",
        label="facts right",
        better=HIGHER,
    ),
    Column(
        "tokens_right",
        METRIC,
        "share of checked pictures whose image tokens, as the AR stage wrote them, say all that was asked",
        label="AR tokens that say what was asked",
        better=HIGHER,
    ),
    Column(
        "exact_last_turn",
        METRIC,
        "of edits in several turns, share of checked pictures of the last turn that show all that was asked",
        label="pictures of the last turn that show what was asked",
        heading="last turn",
        better=HIGHER,
    ),
    Column(
        "drift",
        METRIC,
        "of edits in several turns, mean absolute difference of the last turn's pictures from the source, 0 to 1, "
        "in the worst of those places that no turn names",
        label="drift over turns",
        better=LOWER,
    ),
    Column(
        "text_right",
        METRIC,
        "share of pictures that show the text which their prompt quotes, as OCR reads it (ocr=true)",
        label="pictures with the quoted text",
        heading="text",
        better=HIGHER,
    ),
    Column(
        "ranks",
        METRIC,
        "ranks that generated together, as counted in the engine",
        lambda m: max((len(batch.evidence) for batch in m.batches), default=0) or None,
        heading="ranks",
    ),
    Column(
        "predicted_latency_s",
        METRIC,
        "latency that was predicted before the run, where the device and the model's shape are known",
        label="latency, predicted",
        unit="s",
    ),
    Column("prediction_error", METRIC, "predicted_latency_s ÷ latency_mean_s − 1", label="error of the prediction"),
    Column(
        "limit_latency_s",
        METRIC,
        "least latency of what ran: its operations at the device's peak, its weights and KV cache at its bandwidth",
        label="limit of the devices",
        unit="s",
    ),
    Column(
        "limit_share",
        METRIC,
        "limit_latency_s ÷ latency_mean_s, in [0, 1]",
        label="reached of the limit",
        heading="of limit",
        better=HIGHER,
    ),
    Column("mfu", METRIC, "operations that ran ÷ (latency_mean_s × devices × peak)", label="MFU", better=HIGHER),
    Column("denoise_step_mfu", METRIC, "MFU of the DiT in denoise_step_ms", label="MFU, denoise_step", better=HIGHER),
    Column("vae_decode_mfu", METRIC, "MFU of the VAE in vae_decode_ms", label="MFU, vae_decode", better=HIGHER),
    Column(
        "ar_decode_bandwidth_share",
        METRIC,
        "weights and KV cache that were read ÷ (ar_decode_ms × bandwidth)",
        label="share of the bandwidth, ar_decode",
        better=HIGHER,
    ),
    Column(
        "predicted_peak_memory_gb",
        METRIC,
        "peak memory of the fullest device that was predicted",
        label="peak memory, predicted",
        unit="GB",
    ),
    Column("evidence", FACT, "what ran on which rank, as counted in the engine"),
    Column(
        "cost_per_image", METRIC, "price of the GPUs' time ÷ images (hardware.price_per_gpu_hour)", _cost, better=LOWER
    ),
    Column("trace", FACT, "the profiler's file, relative to the sweep's folder"),
    _identity("role", "baseline, feature or aa", lambda cell: cell.role),
    _identity("cell_key", "hash of everything that can change the result", lambda cell: cell.key),
)
"""In the order of summary.csv. Missing values are empty, never 0."""

NAMES = tuple(column.name for column in COLUMNS)
BY_NAME = {column.name: column for column in COLUMNS}


def of_kind(*kinds: str) -> tuple[str, ...]:
    """Names of all columns of these kinds, in order."""
    return tuple(column.name for column in COLUMNS if column.kind in kinds)


def computed(measured: CellData) -> dict[str, Any]:
    """Values of the cell's own columns."""
    return {name: value(measured) for name, value in _COMPUTED}


_COMPUTED = [(column.name, column.value) for column in COLUMNS if column.value is not None]
