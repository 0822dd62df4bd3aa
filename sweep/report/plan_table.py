"""The plan of a sweep as a table: `dry_run=true`."""

from rich.console import Console
from rich.table import Table

from sweep.findings import SKIP
from sweep.plan.cells import Plan
from sweep.plan.nothing_runs import why_nothing_runs
from sweep.report.terminal import literal, together
from sweep.report.words import cells_words


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print the cells of each group, their devices, expected skips, and how often engines start."""
    console = console or Console()
    table = Table(title="plan (nothing was run)", title_justify="left")
    for column in ("engine", "cell", "devices"):
        table.add_column(column, overflow="fold")
    for group in plan.groups:
        for key in group.cells:
            cell = plan.cell(key)
            table.add_row(f"{group.number + 1}", literal(cell.label), str(cell.gpus))
    if table.row_count:
        console.print(table)
    for line in together((cell.label, SKIP, cell.skip.text) for cell in plan.cells if cell.skip):
        console.print(line)
    if why := why_nothing_runs(plan):
        empty = plan.cells[0].config.get("allow_empty")
        console.print(literal(f"{why}; such a sweep ends with exit code {'0' if empty else '2 (allow_empty=true: 0)'}"))
    runnable = sum(len(group.cells) for group in plan.groups)
    skipped = len(plan.cells) - runnable
    starts = "1 engine start" if len(plan.groups) == 1 else f"{len(plan.groups)} engine starts"
    console.print(f"{cells_words(runnable)} to run, {skipped} skipped, {starts}{_further(plan)}")


def _further(plan: Plan) -> str:
    """The starts that `repeat` may add while the sweep runs."""
    repeats = {cell.config["repeat"]: cell.config for cell in plan.cells}
    if "auto" in repeats:
        config = repeats["auto"]
        target = f"until speed-ups are known to ±{config['precision']:.0%}"
        return f"; then up to {config['max_repeat']} starts per cell, {target}"
    most = max((int(repeat) for repeat in repeats), default=1)
    return f"; then {most} starts per cell" if most > 1 else ""
