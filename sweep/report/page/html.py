"""One self-contained page about a sweep: no network, one small script of its own, everything escaped.

Takes plain values and files to embed. Knows nothing about outputs/, plans or how a status was decided.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from profiling.phases import EXCLUSIVE_PHASES, OTHER
from profiling.printing import clean
from sweep.analysis import family
from sweep.analysis.control_group import ControlGroup
from sweep.findings import ERROR, FAIL, STATUSES, USABLE, WARN
from sweep.report import load_view, words
from sweep.report.matrix import matrices
from sweep.report.page import alone_view, control_view, matrix_view, plot_svg, said, table
from sweep.report.page.embed import Picture, data_uri, embed
from sweep.report.page.said import speedup_words
from sweep.report.page.timeline_view import TimelineView
from sweep.report.templates import template
from sweep.report.words import Row, digits, number, text

IMAGE_BUDGET = 18_000_000  # characters of all embedded images together: the page stays below 24 MB
PLOT_BUDGET = 4_000_000
SECTIONS = 300  # cells with a section of their own


@dataclass(frozen=True)
class ImageView:
    """One image of a cell, next to the baseline's."""

    prompt: str
    picture: Picture | None
    baseline: Picture | None = None
    difference: tuple[float, float] | None = None  # mean and largest, in [0, 1], of the stored images
    facts: int = 0  # of its prompt that were checked; 0 if none can be
    wrong: tuple[str, ...] = ()  # facts that the picture breaks, in words
    source: Picture | None = None  # what was edited, where a chain of turns begins with this image
    turn: str = ""  # "turn 2 of 3"; "" for a single edit


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
    baseline_phases_ms: Mapping[str, float] = field(
        default_factory=dict
    )  # of the baseline that its speed-up compares with
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
    plots: Sequence[Path] = ()  # SVG; a PNG of the same name is shown where one cannot be embedded
    control: ControlGroup = field(default_factory=ControlGroup)
    limits: Mapping[str, Any] | None = None  # of `limit_view`; None: no limit is known
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
"""Characters that no text file may hold: control characters except tab and newline, and lone surrogates."""


SECTION_FIRST = ("latency_mean_s", "latency_p95_s", "ttft_mean_s", "tpot_mean_s", "images_per_s")
"""Columns that a reader looks for first; the others follow in the order of summary.csv."""


def with_section(rows: Sequence[Row]) -> frozenset[int]:
    """Numbers of the rows with a section of their own: all, or the fastest and those that failed or warn."""
    if len(rows) <= SECTIONS:
        return frozenset(range(len(rows)))
    fast = sorted(range(len(rows)), key=lambda i: -(number(rows[i], "speedup") or 0.0))
    chosen = dict.fromkeys(i for i in fast[: SECTIONS // 5] if text(rows[i], "status") in USABLE)
    for status in (FAIL, ERROR, WARN):
        chosen |= dict.fromkeys(i for i, row in enumerate(rows) if text(row, "status") == status)
    return frozenset(list(chosen)[:SECTIONS])


def phases_of(row: Row, baseline: Row | None) -> dict[str, float]:
    """Mean milliseconds of each phase of the baseline that the row's speed-up compares with; {} if not stored.

    That is the interleaved baseline, where there was one: the `baseline` with a row of its own ran at another time.
    """
    phases = (*EXCLUSIVE_PHASES, OTHER)
    if number(row, "baseline_beside_s") is not None:
        found = {phase: number(row, f"baseline_{phase}_ms") for phase in phases}
    elif baseline is None or baseline is row:
        found = {}
    else:
        found = {phase: number(baseline, f"{phase}_ms") for phase in phases}
    return {phase: ms for phase, ms in found.items() if ms is not None}


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
    rows = [_row(cell, f"cell-{i}" if cell.section else "") for i, cell in enumerate(context.cells)]
    anchors = {text(row, "cell_key"): text(row, "anchor") for row in rows}
    shown, found = _table_rows(context.cells), matrices(rows)
    sections = [_section(cell, rows[i], images) for i, cell in enumerate(context.cells) if cell.section]
    plots, colours = _plots(context.plots)
    page = template("sweep.report.page", "report.html.j2").render(
        context=context,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(look + plot_svg.variables(colours)),
        judged=family.judged(rows),
        counts=_counts(context.cells),
        alone=alone_view.view(found),
        matrices=matrix_view.views(found),
        matrices_left_out=max(0, len(found) - matrix_view.MATRICES),
        legend=matrix_view.legend(found),
        control=control_view.view(context.control, anchors),
        table=table.view([rows[i] for i in shown]),
        folded=table.folded([rows[i] for i in shown]),
        rows_left_out=len(rows) - len(shown),
        aa_explained=words.AA_EXPLAINED if words.mentions_aa(rows) else "",
        sections=[section for section in sections if section["status"] not in table.FOLDED],
        folded_sections=[
            (status, part)
            for status in table.FOLDED
            if (part := [section for section in sections if section["status"] == status])
        ],
        sections_left_out=sum(not cell.section for cell in context.cells),
        side=embedded.side,
        plots=plots,
        store=Markup(_json({names[digest]: uri for digest, uri in embedded.uris.items()})),
    )
    return CONTROL.sub(lambda found: clean(found[0]), page)


def _row(cell: CellView, anchor: str) -> Row:
    return {**cell.columns, "cell": cell.label, "status": cell.status, "anchor": anchor}


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
                yield from (picture for picture in (view.source, view.baseline, view.picture) if picture)


def _counts(cells: Sequence[CellView]) -> list[tuple[str, int]]:
    """How many cells ended in each status, in order of gravity."""
    statuses = [cell.status for cell in cells]
    return [(status, statuses.count(status)) for status in STATUSES if status in statuses]


def _table_rows(cells: Sequence[CellView]) -> list[int]:
    """Cells in the table: those with a section first, then as many others as fit."""
    chosen = sorted(range(len(cells)), key=lambda i: not cells[i].section)[: table.ROWS]
    return sorted(chosen)


def _section(view: CellView, row: Row, pictures: _Images) -> dict[str, object]:
    """One cell's values for the template."""
    fields = {"devices": text(row, "gpus"), "engine starts": text(row, "starts")}
    load = load_view.figures(row)
    for column in table.in_order(SECTION_FIRST, lambda c: c.label):
        if load and column.name in load_view.SAID:
            continue
        fields[column.label] = digits(number(row, column.name), column.unit)
    images = [_image(image, pictures) for image in view.images]
    shown = [image for image in images if not image["left_out"]]
    return {
        "anchor": text(row, "anchor"),
        "label": view.label,
        "status": view.status,
        "reason": text(row, "reason"),
        "doubt": text(row, "invalid_reason"),
        "note": text(row, "note"),
        "evidence": text(row, "evidence"),
        "speedup": speedup_words(row),
        "verdict": said.verdict_of(row),
        "latency": digits(number(row, "latency_mean_s"), "s"),
        "baseline_latency": digits(number(row, "baseline_latency_s"), "s"),
        "gain": said.gain_of(row),
        "over_base": said.over_base_of(row),
        "base": text(row, "base"),
        "quality": words.quality_text(row),
        "fields": {name: value for name, value in fields.items() if value},
        "load": load,
        "phases": _phases(row, view.baseline_phases_ms),
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
        "source": pictures.key(view.source),
        "source_file": pictures.file(view.source),
        "turn": view.turn,
        "facts": view.facts,
        "wrong": "; ".join(view.wrong),
    }


def _phases(row: Row, baseline_ms: Mapping[str, float]) -> list[dict[str, object]]:
    """Exclusive phases and `other` with their time and share, in the order of a request; the baseline's before it."""
    times = {phase: number(row, f"{phase}_ms") or 0.0 for phase in (*EXCLUSIVE_PHASES, OTHER)}
    whole = sum(times.values())
    return [
        {
            "name": name,
            "before": digits(baseline_ms.get(name)),
            "ms": digits(ms, "ms"),
            "percent": round(100 * ms / whole, 1),
        }
        for name, ms in times.items()
        if ms > 0
    ]


def _plots(paths: Sequence[Path]) -> tuple[list[dict[str, str]], frozenset[str]]:
    """Plots as elements of the page, and their colours; what is missing or does not fit has neither SVG nor PNG."""
    left, found, colours = PLOT_BUDGET, [], frozenset[str]()
    for number_, path in enumerate(paths):
        plot = {"name": path.stem, "file": f"plots/{path.name}", "svg": "", "uri": ""}
        inline = plot_svg.inline(path, f"plot{number_}-", f"plot: {path.stem}") if path.suffix == ".svg" else None
        if inline and len(inline.markup) <= left:
            plot["svg"], colours = inline.markup, colours | inline.colours
        else:
            bitmap = path.with_suffix(".png")
            uri = data_uri(bitmap.read_bytes()) if bitmap.is_file() else ""
            plot["uri"] = uri if len(uri) <= left else ""
        left -= len(plot["svg"]) + len(plot["uri"])
        found.append(plot)
    return found, colours
