"""One self-contained page about a sweep: no network, one small script of its own, everything escaped.

Takes plain values and files to embed. Knows nothing about outputs/, plans or how a status was decided.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from profiling.phases import EXCLUSIVE_PHASES, OTHER
from profiling.printing import clean
from sweep.analysis import columns, family
from sweep.analysis.columns import Column
from sweep.analysis.control_group import ControlGroup
from sweep.analysis.paired import NO_DIFFERENCE
from sweep.findings import ERROR, FAIL, STATUSES, USABLE, WARN
from sweep.report import load_view, words
from sweep.report.matrix import Matrix, matrices, short_reason
from sweep.report.page import control_view
from sweep.report.page.embed import Picture, data_uri, embed
from sweep.report.page.timeline_view import TimelineView
from sweep.report.templates import template
from sweep.report.words import Row, digits, number, text

if TYPE_CHECKING:
    pass

IMAGE_BUDGET = 18_000_000  # characters of all embedded images together: the page stays below 24 MB
PLOT_BUDGET = 4_000_000
SECTIONS = 300  # cells with a section of their own
TABLE_ROWS = 2000
MATRICES = 12
FEATURES = 30  # rows of one matrix
LARGER_SETS = 50  # combinations of three or more listed below a matrix
ALL_SETTINGS = 3  # rows in one field of a matrix


@dataclass(frozen=True)
class ImageView:
    """One image of a cell, next to the baseline's."""

    prompt: str
    picture: Picture | None
    baseline: Picture | None = None
    difference: tuple[float, float] | None = None  # mean and largest, in [0, 1], of the stored images
    facts: int = 0  # of its prompt, that were checked; 0 where that cannot be done
    wrong: tuple[str, ...] = ()  # those that the picture breaks, in words


@dataclass(frozen=True)
class CellView:
    """One cell as the page shows it."""

    label: str
    status: str
    columns: Row = field(default_factory=dict)  # its row of summary.csv
    images: Sequence[ImageView] = ()
    has_baseline: bool = False  # whether there is another cell to compare with
    overrides: Sequence[str] = ()
    config: Sequence[str] = ()  # lines `name=value`
    bottleneck: str = ""  # the longest phase, and what it waits for
    timeline: TimelineView | None = None
    no_timeline: str = ""  # why there is no timeline, if the reader should know
    verdicts: Sequence[str] = ()  # one sentence from its trace on each phase that used a GPU
    section: bool = True  # whether it has a section of its own


@dataclass(frozen=True)
class ReportContext:
    """Everything on the page."""

    title: str
    command: str = ""
    date: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)  # shown in this order, without empty values
    note: str = ""  # shown prominently, e.g. that weights are random
    conclusions: Sequence[str] = ()  # what the sweep found, the answer first
    cells: Sequence[CellView] = ()
    plots: Sequence[Path] = ()  # PNG
    control: ControlGroup = field(default_factory=ControlGroup)
    folder: Path | None = None  # the page's own folder; files in it are linked


@dataclass(frozen=True)
class _Images:
    """Which pictures the page holds, by digest, which of them are previews, and the folder of their files."""

    names: Mapping[str, str]
    previews: frozenset[str]
    folder: Path | None

    def key(self, picture: Picture | None) -> str:
        """The picture's name in the page's store; "" if it is not there."""
        return self.names.get(picture.digest, "") if picture else ""

    def file(self, picture: Picture | None) -> str:
        """Link to the full picture, relative to the page; "" if the page holds it in full or the folder does not."""
        if picture is None or self.folder is None or not self.is_preview(picture):
            return ""
        inside = picture.path.is_relative_to(self.folder)
        return quote(picture.path.relative_to(self.folder).as_posix()) if inside else ""

    def is_preview(self, picture: Picture | None) -> bool:
        """Whether the page shows it scaled down."""
        return picture is not None and picture.digest in self.previews


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text file may hold: control characters but tab and newline, and lone surrogates."""


def speedup_words(row: Row) -> str:
    """`1.42× (1.38–1.47)`."""
    return words.speedup_text(row).replace("x", "×").replace("-", "–")


def _times(row: Row, name: str) -> str:
    value = number(row, name)
    return "" if value is None else f"{value:.2f}×"


WORDS: Mapping[str, Callable[[Row], str]] = {
    "speedup": speedup_words,
    "interaction_gain": lambda row: _times(row, "interaction_gain"),
    "bottleneck": words.bottleneck_text,
    "psnr_db": words.quality_text,
}
"""Columns whose fields show more than a number."""

TABLE_FIRST = (
    *("reason", "speedup", "called", "interaction_gain", "latency_mean_s", "bottleneck", "latency_p95_s"),
    *("ttft_mean_s", "images_per_s", "images_per_s_per_gpu", "peak_memory_gb", "energy_j_per_image"),
    *("psnr_db", "ssim", "clip_similarity", "mean_diff"),
)
SECTION_FIRST = ("latency_mean_s", "latency_p95_s", "ttft_mean_s", "tpot_mean_s", "images_per_s")
"""Columns that a reader looks for first; the others follow in the order of summary.csv."""


def _in_order(first: Sequence[str], shown: Callable[[Column], str]) -> list[Column]:
    """Columns for which `shown` is not empty: those named in `first`, in that order, then the rest."""
    known = [columns.BY_NAME[name] for name in first]
    return [column for column in dict.fromkeys((*known, *columns.COLUMNS)) if shown(column)]


def _field(column: Column, row: Row) -> str:
    """The text of a row in this column of the table."""
    if column.name in WORDS:
        return WORDS[column.name](row)
    value = number(row, column.name)
    return text(row, column.name) if value is None else digits(value)


def with_section(rows: Sequence[Row]) -> frozenset[int]:
    """Numbers of the rows with a section of their own: all, or the fastest and those that failed or warn."""
    if len(rows) <= SECTIONS:
        return frozenset(range(len(rows)))
    fast = sorted(range(len(rows)), key=lambda i: -(number(rows[i], "speedup") or 0.0))
    chosen = dict.fromkeys(i for i in fast[: SECTIONS // 5] if text(rows[i], "status") in USABLE)
    for status in (FAIL, ERROR, WARN):
        chosen |= dict.fromkeys(i for i, row in enumerate(rows) if text(row, "status") == status)
    return frozenset(list(chosen)[:SECTIONS])


def render(context: ReportContext) -> str:
    """The page as text. Missing or unreadable files become placeholders, never errors."""
    from markupsafe import Markup

    embedded = embed(_pictures(context.cells), IMAGE_BUDGET)
    names = {digest: str(place) for place, digest in enumerate(embedded.uris)}
    images = _Images(names, embedded.previews, context.folder)
    script, look = (
        resources.files("sweep.report.page").joinpath(f"report.{kind}").read_text(encoding="utf-8")
        for kind in ("js", "css")
    )
    rows = [{**cell.columns, "anchor": f"cell-{i}" if cell.section else ""} for i, cell in enumerate(context.cells)]
    anchors = {text(row, "cell_key"): text(row, "anchor") for row in rows}
    shown, found = _table_rows(context.cells), matrices(rows)
    page = template("sweep.report.page", "report.html.j2").render(
        context=context,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(look),
        judged=family.judged(rows),
        counts=_counts(context.cells),
        matrices=[_matrix(matrix) for matrix in found[:MATRICES]],
        matrices_left_out=max(0, len(found) - MATRICES),
        control=control_view.view(context.control, anchors),
        table=_table([context.cells[i] for i in shown], [rows[i] for i in shown]),
        rows_left_out=len(rows) - len(shown),
        aa_explained=words.AA_EXPLAINED if words.mentions_aa(rows) else "",
        sections=[_section(cell, i, images) for i, cell in enumerate(context.cells) if cell.section],
        sections_left_out=sum(not cell.section for cell in context.cells),
        side=embedded.side,
        plots=list(_plots(context.plots)),
        store=Markup(_json({names[digest]: uri for digest, uri in embedded.uris.items()})),
    )
    return CONTROL.sub(lambda found: clean(found[0]), page)


def _json(value: Any) -> str:
    """JSON that cannot end the script element around it."""
    safe = json.dumps(value)
    for character in "<>&":
        safe = safe.replace(character, f"\\u{ord(character):04x}")
    return safe


def _pictures(cells: Sequence[CellView]) -> Iterator[Picture]:
    """Images by priority, in case not all fit: the first of each cell, then the second, …"""
    for place in range(max((len(cell.images) for cell in cells), default=0)):
        for cell in cells:
            if place < len(cell.images):
                view = cell.images[place]
                yield from (picture for picture in (view.baseline, view.picture) if picture)


def _counts(cells: Sequence[CellView]) -> list[tuple[str, int]]:
    """How many cells ended in each status, in order of gravity."""
    statuses = [cell.status for cell in cells]
    return [(status, statuses.count(status)) for status in STATUSES if status in statuses]


def _entry(row: Row) -> dict[str, Any]:
    """A feature set as a field of the matrix."""
    return {
        "label": text(row, "cell"),
        "features": text(row, "features"),
        "anchor": text(row, "anchor"),
        "status": text(row, "status"),
        "speedup": _times(row, "speedup"),
        "within_noise": text(row, "called") == NO_DIFFERENCE,
        "gain": _times(row, "interaction_gain"),
        "reason": text(row, "reason"),
        "short": short_reason(row) if number(row, "speedup") is None else "",
    }


def _matrix(matrix: Matrix) -> dict[str, object]:
    """Rows of the lower triangle: each pair once, single features on the diagonal."""
    names = matrix.features[:FEATURES]
    lines = []
    for i, first in enumerate(names):
        found = [matrix.field(first, second) for second in names[: i + 1]]
        fields = [
            {
                "entries": [_entry(row) for row in part[:ALL_SETTINGS]],
                "left_out": max(0, len(part) - ALL_SETTINGS),
                "single": k == i,
            }
            for k, part in enumerate(found)
        ]
        lines.append({"name": first, "fields": fields, "empty": len(names) - 1 - i})
    larger = sorted(matrix.larger, key=lambda row: -(number(row, "speedup") or 0.0))
    return {
        "title": matrix.title,
        "names": names,
        "features_left_out": len(matrix.features) - len(names),
        "lines": lines,
        "gains": any(number(row, "interaction_gain") is not None for part in matrix.fields.values() for row in part),
        "larger": [_entry(row) for row in larger[:LARGER_SETS]],
        "larger_left_out": max(0, len(larger) - LARGER_SETS),
    }


def _table_rows(cells: Sequence[CellView]) -> list[int]:
    """Cells in the table: those with a section first, then as many others as fit."""
    chosen = sorted(range(len(cells)), key=lambda i: not cells[i].section)[:TABLE_ROWS]
    return sorted(chosen)


def _table(cells: Sequence[CellView], rows: Sequence[Row]) -> dict[str, object]:
    shown = [column for column in _in_order(TABLE_FIRST, lambda c: c.heading) if any(_field(column, r) for r in rows)]
    numeric = {column.name: any(number(row, column.name) is not None for row in rows) for column in shown}
    lines = []
    for cell, row in zip(cells, rows, strict=True):
        fields = [
            (_field(column, row), _sort_value(row, column.name) if numeric[column.name] else None) for column in shown
        ]
        doubt = text(row, "invalid_reason")
        status = (cell.status, STATUSES.index(cell.status) if cell.status in STATUSES else -1)
        lines.append({"label": cell.label, "anchor": row["anchor"], "status": status, "doubt": doubt, "fields": fields})
    return {"columns": [(column.heading, numeric[column.name]) for column in shown], "lines": lines}


def _sort_value(row: Row, name: str) -> str:
    """The sort value of a row in a numeric column; "" if there is no number."""
    value = number(row, name)
    return "" if value is None else "1e999" if value == math.inf else f"{value:.9g}"


def _section(view: CellView, place: int, pictures: _Images) -> dict[str, object]:
    """One cell's values for the template."""
    row = view.columns
    fields = {"devices": text(row, "gpus"), "engine starts": text(row, "starts")}
    load = load_view.figures(row)
    for column in _in_order(SECTION_FIRST, lambda c: c.label):
        if load and column.name in load_view.SAID:
            continue
        fields[column.label] = digits(number(row, column.name), column.unit)
    images = [_image(image, pictures) for image in view.images]
    shown = [image for image in images if not image["left_out"]]
    return {
        "anchor": f"cell-{place}",
        "label": view.label,
        "status": view.status,
        "reason": text(row, "reason"),
        "doubt": text(row, "invalid_reason"),
        "note": text(row, "note"),
        "evidence": text(row, "evidence"),
        "speedup": speedup_words(row),
        "called": text(row, "called"),
        "gain": _times(row, "interaction_gain"),
        "quality": words.quality_text(row),
        "fields": {name: value for name, value in fields.items() if value},
        "load": load,
        "phases": _phases(row),
        "bottleneck": view.bottleneck,
        "timeline": view.timeline,
        "no_timeline": view.no_timeline,
        "verdicts": view.verdicts,
        "trace": text(row, "trace"),
        "overrides": " ".join(view.overrides),
        "config": "\n".join(view.config),
        "images": shown,
        "has_baseline": view.has_baseline,
        "compared": any(image["baseline"] and image["cell"] and not image["same"] for image in shown),
        "left_out": len(images) - len(shown),
        "previews": any(pictures.is_preview(one) for image in view.images for one in (image.picture, image.baseline)),
        "files": any(image["cell_file"] or image["baseline_file"] for image in shown),
    }


def _image(view: ImageView, pictures: _Images) -> dict[str, Any]:
    cell, baseline = pictures.key(view.picture), pictures.key(view.baseline)
    there = view.picture is not None and view.picture.path.is_file()
    mean, largest = view.difference or (None, None)
    return {
        "prompt": view.prompt,
        "cell": cell,
        "cell_file": pictures.file(view.picture),
        "baseline": baseline,
        "baseline_file": pictures.file(view.baseline),
        "same": bool(cell) and cell == baseline,
        "left_out": there and not cell,
        "mean": digits(mean),
        "largest": digits(largest),
        "facts": view.facts,
        "wrong": "; ".join(view.wrong),
    }


def _phases(row: Row) -> list[dict[str, object]]:
    """Exclusive phases and `other` with their time and share, in the order of a request."""
    times = {phase: number(row, f"{phase}_ms") or 0.0 for phase in (*EXCLUSIVE_PHASES, OTHER)}
    whole = sum(times.values())
    return [
        {"name": name, "ms": digits(ms, "ms"), "percent": round(100 * ms / whole, 1)}
        for name, ms in times.items()
        if ms > 0
    ]


def _plots(paths: Sequence[Path]) -> Iterator[dict[str, str]]:
    """Plots as data URIs; "" for a plot that is missing or does not fit."""
    left = PLOT_BUDGET
    for path in paths:
        uri = data_uri(path.read_bytes()) if path.is_file() else ""
        uri = uri if len(uri) <= left else ""
        left -= len(uri)
        yield {"name": path.stem, "file": f"plots/{path.name}", "uri": uri}
