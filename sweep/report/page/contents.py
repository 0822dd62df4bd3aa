"""report.html of a sweep's folder: gathers its content from plan, rows, results and manifest.

Reads images and the cached image differences. Every number comes from the rows, and the caller passes the
results. `html` decides how the page looks.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from profiling.phases import PHASES
from sweep.analysis import prompt_checks, world_questions
from sweep.analysis.control_group import ControlGroup
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from sweep.report.page import environment, timeline_view
from sweep.report.page.embed import Picture
from sweep.report.page.html import CellView, ImageView, ReportContext, phases_of, render, with_section
from sweep.results.files import Unfit
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult
from sweep.workload.edit_files import EditTurn

VERDICTS = 24  # phases of a trace whose verdict is shown
TIMELINES = 60  # cells whose timeline is drawn; each takes a few hundredths of a second and up to 15 kB
Images = Mapping[tuple[int, int], Picture]


def write(
    folder: SweepFolder,
    plan: Plan,
    rows: Sequence[Mapping[str, Any]],
    results: Mapping[str, RunResult | None],
    pictures: Sequence[Path],
    note: str = "",
    control: ControlGroup | None = None,
    conclusions: Sequence[str] = (),
    limits: Mapping[str, Any] | None = None,
) -> Path:
    """Write report.html and return its path. `rows` in the order of the plan's cells, `results` by cell key."""
    return folder.save_page(render(gather(folder, plan, rows, results, pictures, note, control, conclusions, limits)))


def gather(
    folder: SweepFolder,
    plan: Plan,
    rows: Sequence[Mapping[str, Any]],
    results: Mapping[str, RunResult | None],
    pictures: Sequence[Path],
    note: str = "",
    control: ControlGroup | None = None,
    conclusions: Sequence[str] = (),
    limits: Mapping[str, Any] | None = None,
) -> ReportContext:
    """Everything on the page, as plain values."""
    cells = {cell.key: cell for cell in plan.cells}
    with_details = with_section(rows)
    views: list[CellView] = []
    by_key = {cell.key: row for cell, row in zip(plan.cells, rows, strict=True)}
    drawn = 0
    for place, (cell, row) in enumerate(zip(plan.cells, rows, strict=True)):
        if place not in with_details:
            views.append(CellView(cell.label, str(row["status"]), row, section=False))
            continue
        views.append(
            CellView(
                label=cell.label,
                status=str(row["status"]),
                columns=row,
                images=_image_views(folder, cell, cells.get(cell.baseline_key), results),
                has_baseline=cell.baseline_key in cells and cell.baseline_key != cell.key,
                overrides=cell.overrides,
                config=tuple(flatten(cell.config)),
                baseline_phases_ms=phases_of(row, by_key.get(cell.baseline_key)),
                **_timeline(folder, cell, row, drawn < TIMELINES),
                verdicts=_verdicts(folder, cell) if row.get("trace") else (),
            )
        )
        drawn += views[-1].timeline is not None
    manifest = folder.load_manifest()
    models = sorted({str(cell.config["model"]["name"]) for cell in plan.cells})
    return ReportContext(
        title=f"Sweep of {', '.join(models)}" if models else "Sweep",
        command=str(manifest.get("command", "")),
        date=environment.moment(manifest.get("start")),
        environment=environment.described(manifest),
        note=note,
        conclusions=tuple(conclusions),
        cells=tuple(views),
        plots=tuple(picture for picture in pictures if picture.suffix == ".svg"),
        control=control or ControlGroup(),
        limits=limits,
        folder=folder.path,
    )


def flatten(value: Any, name: str = "") -> Iterator[str]:
    """A configuration as lines that work as overrides: `workload.steps=8`."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield f"{name}={'null' if value is None else value}"


def _verdicts(folder: SweepFolder, cell: Cell) -> tuple[str, ...]:
    """The verdicts of the cell's trace on its phases, longest first."""
    found = [one for one in folder.load_recorded_phases(cell) if one.get("verdict") and one.get("phase") in PHASES]
    several = len({one.get("process") for one in found}) > 1
    return tuple(
        one.get("sentence", "") + (f" (process {one.get('process')})" if several else "") for one in found[:VERDICTS]
    )


def _timeline(folder: SweepFolder, cell: Cell, row: Mapping[str, Any], wanted: bool) -> dict[str, Any]:
    """The part of a cell's section about time: the bottleneck, and the timeline if it is `wanted`."""
    if not wanted:
        there = (folder.cell_path(cell) / "phases.csv").is_file()
        left_out = f"This page has timelines for {TIMELINES} cells only." if there else ""
        return {"bottleneck": timeline_view.bottleneck_words(row, None), "no_timeline": left_out}
    recorded, problem = folder.recorded(cell)
    return {
        "bottleneck": timeline_view.bottleneck_words(row, recorded),
        "timeline": timeline_view.view(recorded) if recorded else None,
        "no_timeline": f"No timeline: {problem}" if problem else "",
    }


def _image_views(
    folder: SweepFolder, cell: Cell, baseline: Cell | None, results: Mapping[str, RunResult | None]
) -> tuple[ImageView, ...]:
    result = results.get(cell.key)
    mine = _images(folder, cell, result)
    if result is None or not mine:
        return ()
    theirs: Images = {}
    if baseline is not None and baseline.key != cell.key:
        theirs = _images(folder, baseline, results.get(baseline.key))
    seeds = len({seed for _, seed in mine}) > 1
    differences = folder.load_quality(cell) if theirs else {}
    checks = prompt_checks.of(folder, cell, result)
    edits = world_questions.edits_in(cell)
    views = []
    for key in sorted(mine, key=lambda key: _place(edits, key)):
        picture, other = mine[key], theirs.get(key)
        prompt = result.prompts[key[0]] if key[0] < len(result.prompts) else ""
        known = differences.get(f"{picture.digest}:{other.digest}") if other else None
        checked = checks.pictures.get(key) if checks else None
        views.append(
            ImageView(
                prompt=f"{prompt} (seed {key[1]})" if seeds else prompt,
                picture=picture,
                baseline=other,
                difference=(known[0], known[1]) if known else None,
                facts=checked.facts if checked else 0,
                wrong=tuple(one.text for one in checked.wrong) if checked else (),
                **_turn(folder, cell, edits, key[0]),
            )
        )
    return tuple(views)


def _place(edits: Sequence[EditTurn], key: tuple[int, int]) -> tuple[int, ...]:
    """Sort key of an image: by prompt and seed, with the turns of a chain one after the other."""
    index, seed = key
    return (index, seed) if index >= len(edits) else (index - edits[index].turn + 1, seed, edits[index].turn)


def _turn(folder: SweepFolder, cell: Cell, edits: Sequence[EditTurn], index: int) -> dict[str, Any]:
    """The part of an image's view that describes its edit: which turn, and the picture before the first."""
    if index >= len(edits):
        return {}
    edit = edits[index]
    turn = f"turn {edit.turn} of {edit.turns}" if edit.turns > 1 else ""
    source = world_questions.first_source(folder, cell, index) if edit.turn == 1 else None
    return {"turn": turn, "source": Picture(source, edit.pictures[0].sha256) if source else None}


def _images(folder: SweepFolder, cell: Cell, result: RunResult | None) -> Images:
    """(prompt_index, seed) -> image of a cell's first repeat."""
    if result is None:
        return {}
    found = {}
    for request in (*result.requests, *result.alone):
        if request.image:
            with contextlib.suppress(Unfit):
                path = folder.image_path(cell, request.image)
                digest = request.image_hash or f"{cell.key}/{request.image}"
                found[request.prompt_index, request.seed] = Picture(path, digest)
    return found
