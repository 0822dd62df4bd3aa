"""Summary, reports and plots of a sweep, rebuilt from its stored results alone."""

import contextlib
import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from profiling.printing import clean, complain
from sweep.analysis import clip_similarity, image_pairs, picture_text, prompt_checks, summary
from sweep.analysis.table import table
from sweep.plan.plans import Plan
from sweep.report import conclusions, drawing, stored
from sweep.report.page import contents, limit_view
from sweep.report.report_json import document
from sweep.report.stored import RANDOM_WEIGHTS_NOTE, Stored
from sweep.results.folder import SweepFolder

__all__ = ["RANDOM_WEIGHTS_NOTE", "collector_paused", "rebuild"]


def rebuild(
    folder: SweepFolder, plots: bool = True, resume: str = "", console: Console | None = None, left_out: str = ""
) -> int:
    """Write summary.csv, report.json, plots and report.html of `folder` and print the table; returns the exit code.

    Cells under load also get a bench.json each. `resume` is the command that resumes a sweep that was interrupted,
    `left_out` a sentence on what a budget left out. Raises ConfigError when the folder is not a sweep.
    """
    console = console or Console()
    with collector_paused():
        plan = folder.grown_plan()
        loaded = folder.load_results(plan)
        results = {key: result for key, (result, _) in loaded.items()}
        problems = [clip_similarity.measure(folder, plan, results), picture_text.measure(folder, plan, results)]
        image_pairs.measure(folder, plan, results)
        prompt_checks.measure(folder, plan, results)
        found = stored.gathered(folder, plan, loaded)
        rows = found.summary.rows
        files = [folder.save_summary(*table(rows))]
        files.append(
            folder.save_report(document(plan, found.summary, results, found.manifest, found.note, found.conclusions))
        )
        benches = drawing.write_bench(found)
    for problem in filter(None, problems):
        complain(f"sweep: {problem}")
    pictures: list[Path] = []
    if plots and any(row.get("latency_mean_s") is not None for row in rows):
        started = time.perf_counter()
        shown = Plan(tuple(plan.by_key[row["cell_key"]] for row in rows), plan.groups)
        with console.status("drawing plots") if console.is_terminal else contextlib.nullcontext():
            pictures = drawing.draw(found)
            sentences = [one.text for one in found.conclusions]
            limits = limit_view.view(found.limits, conclusions.winners(found.conclusions))
            more = found.note, found.summary.control, sentences, limits
            files.append(contents.write(folder, shown, rows, results, pictures, *more))
        if time.perf_counter() - started > 60:
            console.print("drawing took over a minute; plots=false skips it")
    _print(console, found, resume, files, pictures, len(benches))
    if left_out and not resume:
        console.print(Text(clean(left_out), "yellow"), soft_wrap=True)
    return summary.exit_code(rows)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause garbage collection: thousands of results are read, none of them garbage, and each pass over them would
    take longer than reading."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _print(
    console: Console,
    found: Stored,
    resume: str,
    files: Sequence[Path],
    pictures: Sequence[Path],
    benches: int,
) -> None:
    """Print the table and where files are; last, how to resume a sweep that was interrupted."""
    from sweep.report.page import control_view
    from sweep.report.terminal import conclusions_table, literal, summary_table

    console.print(summary_table([dict(row) for row in found.summary.rows], console.width))
    for line in control_view.lines(found.summary.control):
        console.print(literal(line))
    if found.note:
        console.print(literal(found.note, "dim"))
    for path in files:
        console.print(literal(f"{path.name:12} {path}"), soft_wrap=True)
    if benches:
        where = "the folder of the cell" if benches == 1 else f"the folders of {benches} cells"
        said = f"{'bench.json':12} in {where} under load, in the names of vLLM's serving benchmark"
        console.print(literal(said), soft_wrap=True)
    print_pictures(console, pictures)
    if found.conclusions:
        console.print(conclusions_table(found.conclusions))
    if resume:
        again = f": finished cells are kept; to resume, run: {clean(resume)}"
        console.print(Text.assemble(("interrupted", "yellow"), again), soft_wrap=True)


def print_pictures(console: Console, pictures: Sequence[Path]) -> None:
    """Say which plots were drawn, and where; nothing when none were."""
    from sweep.report.terminal import literal

    shown = [path for path in pictures if path.suffix == ".png"]
    if shown:
        names = ", ".join(path.stem for path in shown)
        console.print(literal(f"{'plots':12} {shown[0].parent} ({names}; PNG and SVG)"), soft_wrap=True)
