"""Values of columns that need more than an attribute of a cell; None where a cell has no such value. Pure."""

import math
from collections.abc import Callable

from sweep.analysis import metrics
from sweep.analysis.cell_data import CellData
from sweep.config.model import TEXT
from sweep.plan.cells import Cell

AR_PHASES = ("ar_prefill", "ar_decode")


def bottleneck(measured: CellData) -> str | None:
    """The phase that takes longest."""
    worst = metrics.bottleneck(measured.shares)
    return worst.phase if worst else None


def gigabytes(size: float | None) -> float | None:
    """Bytes in GB (10^9)."""
    return None if size is None else size / 1e9


def writes(measured: CellData) -> bool:
    """Whether the cell writes texts and makes no images."""
    return bool(measured.cell.config["workload"].get("task") == TEXT)


def images_done(measured: CellData) -> int:
    """Pictures that count towards rates."""
    return 0 if writes(measured) else len(measured.completed)


def images_per_s(measured: CellData) -> float | None:
    """Pictures a second; None for texts."""
    return None if writes(measured) else metrics.images_per_s(images_done(measured), measured.wall_s)


def images_per_s_per_gpu(measured: CellData) -> float | None:
    """The same for each device."""
    if writes(measured):
        return None
    return metrics.images_per_s_per_gpu(images_done(measured), measured.wall_s, measured.cell.gpus)


def requests_per_s(measured: CellData) -> float | None:
    """Requests done a second."""
    return metrics.images_per_s(len(measured.completed), measured.wall_s)


def input_tokens_per_s(measured: CellData) -> float | None:
    """Tokens of prompts a second; None for pictures."""
    if not writes(measured) or not measured.wall_s:
        return None
    return sum(request.prompt_tokens for request in measured.completed) / measured.wall_s


def of_image(name: str) -> Callable[[Cell], int]:
    """A field of the workload that texts do not have: 0 for them."""
    return lambda cell: 0 if cell.config["workload"].get("task") == TEXT else cell.config["workload"][name]


def output_tokens_per_s(measured: CellData) -> float | None:
    """AR tokens a second."""
    tokens = sum(request.output_tokens for request in measured.completed)
    return tokens / measured.wall_s if tokens and measured.wall_s else None


def ar_tokens_per_s(measured: CellData) -> float | None:
    """AR tokens a second of the time that the AR stage takes."""
    if not measured.output_tokens:
        return None
    ar_ms = math.fsum([batch.phase_ms.get(phase, 0.0) for phase in AR_PHASES for batch in measured.batches])
    return 1000 * measured.output_tokens / ar_ms if ar_ms else None


def image_tokens_per_s(measured: CellData) -> float | None:
    """From the longest sequence that a block saw, on all ranks that share one."""
    made_of_images = measured.cell.config["workload"]["task"] == "text_to_image"  # an edit's sequence holds its input
    if measured.output_tokens or not measured.wall_s or not made_of_images:
        return None
    shards = math.prod(feature.gpus for feature in measured.cell.chosen if feature.evidence == "sharded_sequence")
    seen = max((rank.block_sequence for batch in measured.batches for rank in batch.evidence), default=0)
    return seen * shards * len(measured.completed) / measured.wall_s if seen else None


def energy_j_per_image(measured: CellData) -> float | None:
    """Joules per picture, of all devices together; None for texts."""
    if writes(measured):
        return None
    return metrics.energy_j_per_image([(r.telemetry.get("energy_j"), len(r.requests)) for r in measured.results])


def cost_per_image(measured: CellData) -> float | None:
    """What a picture costs at the price of its GPUs; None on a CPU or without a price."""
    if measured.cell.device == "cpu":
        return None  # the price is that of a GPU
    price, images = measured.cell.config["hardware"]["price_per_gpu_hour"], images_done(measured)
    return measured.cell.gpus * price / 3600 * measured.wall_s / images if price is not None and images else None
