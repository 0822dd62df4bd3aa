"""One self-contained page about a sweep: no script, no network, everything escaped.

Gets plain values and files to embed; knows nothing of outputs/, cells or how a status came about.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sweep.metrics import EXCLUSIVE_PHASES
from sweep.report import tables

EMBED_BYTES = 300_000  # larger images are embedded as previews, so that a page of hundreds still opens
PREVIEW_PIXELS = 640  # longer side of a preview
TINY_BYTES = 64_000  # a picture of few pixels: enlarged with its pixels kept sharp
IMAGES_PER_CELL = 8


@dataclass(frozen=True)
class CellView:
    """One cell as the page shows it. `prompts`, `images`, `baseline_images` run in parallel."""

    label: str
    status: str
    reason: str = ""
    columns: Mapping[str, object] = field(default_factory=dict)  # its row of summary.csv
    prompts: Sequence[str] = ()
    images: Sequence[Path | None] = ()
    baseline_images: Sequence[Path | None] = ()  # empty for a baseline; None where there is no counterpart


@dataclass(frozen=True)
class ReportContext:
    """Everything that the page says."""

    title: str
    meta: Mapping[str, str]  # command, date, machine, versions, …: shown in this order, empty ones left out
    note: str = ""  # shown prominently, e.g. that weights are random
    cells: Sequence[CellView] = ()
    plots: Sequence[Path] = ()  # PNG or SVG; of two with the same name the SVG is shown


def render(context: ReportContext) -> str:
    """The page as text. Files that are missing or unreadable become a placeholder, never an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sweep.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    plots = {path.stem: path for path in sorted(context.plots, key=lambda path: path.suffix == ".svg")}
    page = environment.get_template("report.html.j2").render(
        title=context.title,
        meta={name: value for name, value in context.meta.items() if value},
        note=context.note,
        counts=_counts(context.cells),
        cells=[_cell(view, number) for number, view in enumerate(context.cells)],
        plots=[{"name": name, "uri": _data_uri(path)} for name, path in plots.items()],
    )
    # A lone surrogate (an argument that was no UTF-8) could not be written to a file.
    return page.encode("utf-8", "replace").decode("utf-8")


def _counts(cells: Sequence[CellView]) -> list[tuple[str, int]]:
    """How many cells ended in each status, in order of gravity."""
    order = ("PASS", "WARN", "FAIL", "ERROR", "SKIP")
    statuses = [cell.status for cell in cells]
    return [(status, statuses.count(status)) for status in order if status in statuses]


def _cell(view: CellView, number: int) -> dict[str, object]:
    """One cell's values as the template wants them."""
    row = view.columns
    memory = tables.digits(tables.number(row, "peak_memory_gb"), "GB")
    difference = tables.digits(tables.number(row, "mean_diff"))
    fields = {
        "latency, mean": tables.digits(tables.number(row, "latency_mean_s"), "s"),
        "time to first token": tables.digits(tables.number(row, "ttft_mean_s"), "s"),
        "throughput": tables.digits(tables.number(row, "images_per_s"), "images/s"),
        "peak memory": memory,
        "energy": tables.digits(tables.number(row, "energy_j_per_image"), "J/image"),
        "loading": tables.digits(tables.number(row, "load_s"), "s"),
        "mean pixel difference": difference,
        "largest pixel difference": tables.digits(tables.number(row, "max_diff")),
        "SSIM": tables.digits(tables.number(row, "ssim")),
        "evidence": tables.text(row, "evidence"),
    }
    pairs = []
    for i, image in enumerate(view.images[:IMAGES_PER_CELL]):
        baseline = view.baseline_images[i] if i < len(view.baseline_images) else None
        pairs.append(
            {
                "prompt": view.prompts[i] if i < len(view.prompts) else "",
                "uri": _data_uri(image),
                "baseline_uri": _data_uri(baseline),
                "tiny": image is not None and image.is_file() and image.stat().st_size < TINY_BYTES,
            }
        )
    return {
        "anchor": f"cell-{number}",
        "label": view.label,
        "status": view.status,
        "reason": view.reason,
        "doubt": tables.text(row, "invalid_reason"),
        "speedup": tables.speedup_text(row),
        "latency": tables.digits(tables.number(row, "latency_mean_s")),
        "throughput": tables.digits(tables.number(row, "images_per_s")),
        "memory": tables.digits(tables.number(row, "peak_memory_gb")),
        "quality": tables.quality_text(row),
        "bottleneck": tables.bottleneck_text(row),
        "fields": {name: value for name, value in fields.items() if value},
        "phases": _phases(row),
        "pairs": pairs,
        "has_baseline": bool(view.baseline_images),
        "left_out": max(0, len(view.images) - IMAGES_PER_CELL),
    }


def _phases(row: Mapping[str, object]) -> list[dict[str, object]]:
    """Exclusive phases and `other` with their time and part of the whole, in the order of a request."""
    times = {phase: tables.number(row, f"{phase}_ms") or 0.0 for phase in (*EXCLUSIVE_PHASES, "other")}
    whole = sum(times.values())
    return [
        {"name": name, "ms": tables.digits(ms, "ms"), "percent": round(100 * ms / whole, 1)}
        for name, ms in times.items()
        if ms > 0
    ]


def _data_uri(path: Path | None) -> str:
    """The file as a data URI, as a preview when it is a large bitmap; "" when there is none to show."""
    if path is None or not path.is_file():
        return ""
    content, kind = path.read_bytes(), path.suffix.lower().lstrip(".")
    if kind == "svg":
        kind = "svg+xml"
    elif len(content) > EMBED_BYTES:
        content, kind = _preview(content), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if content else ""


def _preview(content: bytes) -> bytes:
    """A bitmap made smaller, as JPEG; empty when it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError):
        return b""
    small.thumbnail((PREVIEW_PIXELS, PREVIEW_PIXELS))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=88)
    return out.getvalue()
