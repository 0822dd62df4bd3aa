"""Summary, plots and report of a sweep, rebuilt from its stored results alone."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sweep import summary
from sweep.plan import Cell, Plan
from sweep.results import RunResult, SweepFolder, write_atomic

RANDOM_WEIGHTS_NOTE = "Random weights: pictures mean nothing and speed-ups of caches are not representative."


def rebuild(folder: SweepFolder, plots: bool = True, interrupted: bool = False, console: Console | None = None) -> int:
    """Write summary.csv, plots and report.html of `folder`, print the table; returns the exit code.

    Raises ConfigError when the folder is no sweep.
    """
    console = console or Console()
    plan = folder.load_plan()
    rows = summary.summarise(folder, plan)
    summary_path = folder.save_summary(summary.COLUMNS, rows)
    note = RANDOM_WEIGHTS_NOTE if any(cell.config["model"]["embedded"] for cell in plan.cells) else ""
    pictures: list[Path] = []
    report: Path | None = None
    if plots and any(row.get("latency_mean_s") is not None for row in rows):
        started = time.perf_counter()
        with console.status("drawing plots") if console.is_terminal else contextlib.nullcontext():
            pictures = _draw(folder, rows, note)
            report = _write_html(folder, plan, rows, pictures, note)
        if time.perf_counter() - started > 60:
            console.print("drawing took long: plots=false leaves it out")
    _print(console, rows, note, interrupted, [summary_path, *([report] if report else [])], pictures)
    return summary.exit_code(rows)


def _draw(folder: SweepFolder, rows: Sequence[Mapping[str, Any]], note: str) -> list[Path]:
    import pandas

    from sweep.report.plots import draw_all

    frame = pandas.DataFrame([dict(row) for row in rows], columns=list(summary.COLUMNS))
    return draw_all(frame, folder.path / "plots", note)


def _write_html(
    folder: SweepFolder, plan: Plan, rows: Sequence[Mapping[str, Any]], pictures: Sequence[Path], note: str
) -> Path:
    from sweep.report.html import CellView, ReportContext, render

    results = {cell.key: folder.load_result(cell) for cell in plan.cells}
    views = []
    for cell, row in zip(plan.cells, rows, strict=True):
        result = results[cell.key]
        images = _images(folder, cell, result)
        baseline_cell = next((c for c in plan.cells if c.key == cell.baseline_key and c.key != cell.key), None)
        baseline = _images(folder, baseline_cell, results.get(cell.baseline_key)) if baseline_cell else {}
        keys = sorted(images)
        views.append(
            CellView(
                label=cell.label,
                status=str(row["status"]),
                reason=str(row.get("reason") or ""),
                columns={name: row.get(name) for name in summary.COLUMNS},
                prompts=tuple(result.prompts[key[0]] if result else "" for key in keys),
                images=tuple(images[key] for key in keys),
                baseline_images=tuple(baseline.get(key) for key in keys) if baseline else (),
            )
        )
    manifest = folder.load_manifest()
    machine = manifest.get("machine", {})
    meta = {
        "command": manifest.get("command", ""),
        "date": manifest.get("start", ""),
        "machine": ", ".join(f"{k} {v}" for k, v in machine.items() if v),
        "versions": ", ".join(f"{k} {v}" for k, v in manifest.get("versions", {}).items()),
        "commit": str(manifest.get("git_commit") or ""),
        "engine starts": str(manifest.get("engine_starts", "")),
    }
    models = sorted({cell.config["model"]["name"] for cell in plan.cells})
    context = ReportContext(
        title=f"Sweep of {', '.join(models)}",
        meta=meta,
        note=note,
        cells=tuple(views),
        plots=tuple(picture for picture in pictures if picture.suffix == ".png"),
    )
    path = folder.path / "report.html"
    write_atomic(path, render(context))
    return path


def _images(folder: SweepFolder, cell: Cell, result: RunResult | None) -> dict[tuple[int, int], Path]:
    if result is None:
        return {}
    path = folder.cell_path(cell)
    return {(r.prompt_index, r.seed): path / r.image for r in result.requests if r.image and (path / r.image).is_file()}


def _print(
    console: Console,
    rows: Sequence[Mapping[str, Any]],
    note: str,
    interrupted: bool,
    files: Sequence[Path],
    pictures: Sequence[Path],
) -> None:
    from sweep.report.tables import summary_table

    if interrupted:
        console.print("[yellow]interrupted[/yellow]: finished cells are kept; the same command and folder goes on")
    console.print(summary_table([dict(row) for row in rows], console.width))
    if note:
        console.print(note, style="dim")
    for path in files:
        console.print(f"{path.name:12} {path}", soft_wrap=True, highlight=False)
    shown = [path for path in pictures if path.suffix == ".png"]
    if shown:
        names = ", ".join(path.stem for path in shown)
        console.print(f"{'plots':12} {shown[0].parent} ({names}; PNG and SVG)", soft_wrap=True, highlight=False)
