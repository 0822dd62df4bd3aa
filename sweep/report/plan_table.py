"""The plan of a sweep as a table or as JSON: `dry_run=true`, `dry_run=json`."""

import json

from rich.console import Console
from rich.table import Table

from sweep.findings import SKIP
from sweep.masking import masked
from sweep.plan.cells import Cell, Plan
from sweep.plan.nothing_runs import why_nothing_runs
from sweep.report.terminal import literal, together
from sweep.report.words import cells_words
from sweep.results.earlier import Expected
from sweep.workload.inputs import random_texts
from sweep.workload.requests import number_of_requests

NOTHING_KNOWN = Expected({}, {}, frozenset())


def print_plan(plan: Plan, console: Console | None = None, known: Expected = NOTHING_KNOWN) -> None:
    """Print the cells of each group with what they generate, expected skips, engine starts, and the expected time."""
    console = console or Console()
    table = Table(title="plan (nothing was run)", title_justify="left")
    timed = bool(known.cells_s)
    for column in ("engine", "cell", "devices", "prompts", "requests", "repeats", *["took"] * timed):
        table.add_column(column, overflow="fold", justify="left" if column in ("engine", "cell") else "right")
    for group in plan.groups:
        for key in group.cells:
            cell = plan.cell(key)
            took = _took(known, key)
            table.add_row(f"{group.number + 1}", literal(cell.label), str(cell.gpus), *_asked(cell), *[took] * timed)
    if table.row_count:
        console.print(table)
    for line in together((cell.label, SKIP, cell.skip.text) for cell in plan.cells if cell.skip):
        console.print(line)
    if why := why_nothing_runs(plan):
        empty = plan.cells[0].config.get("allow_empty")
        console.print(literal(f"{why}; such a sweep ends with exit code {'0' if empty else '2 (allow_empty=true: 0)'}"))
    runnable = sum(len(group.cells) for group in plan.groups)
    skipped = len(plan.cells) - runnable
    missing = sum(any(key not in known.kept for key in group.cells) for group in plan.groups)
    starts = "1 engine start" if missing == 1 else f"{missing} engine starts"
    kept = f"{len(known.kept)} kept, " if known.kept else ""
    to_run = cells_words(runnable - len(known.kept))
    console.print(f"{to_run} to run, {kept}{skipped} skipped, {starts}{_further(plan)}")
    if runnable:
        for said in (_prompts(plan), _time(plan, known)):
            console.print(literal(said), soft_wrap=True)


def _asked(cell: Cell) -> tuple[str, str, str]:
    """Prompts, requests a repeat, and repeats; of a load its own number of requests, sent once."""
    run = cell.run_config
    prompts = len(cell.inputs.prompts) if cell.inputs else 0
    if cell.under_load:
        return f"{prompts:,}" if prompts else "random", f"{run.load.requests:,}", "1"
    return f"{prompts:,}", f"{number_of_requests(run.workload, run.batch, prompts):,}", str(run.workload.repeats)


def _prompts(plan: Plan) -> str:
    """Where prompts come from, and how many of what is there."""
    told = [_source(cell) for cell in plan.cells if not cell.skip and cell.inputs]
    return f"prompts: {'; '.join(dict.fromkeys(told))}"


def _source(cell: Cell) -> str:
    work, inputs = cell.run_config.workload, cell.inputs
    count = len(inputs.prompts) if inputs else 0
    if random_texts(work):
        return f"random ones of {work.input_len} tokens"
    if work.prompt is not None:
        return "workload.prompt"
    if work.prompts is None:
        return f"{count} of the shipped set '{work.prompt_set}'"
    cut = any(note.code == "prompts_cut" for note in inputs.notes) if inputs else False
    return f"{f'the first {count:,}' if cut else f'all {count:,}'} of {work.prompts}"


def _took(known: Expected, key: str) -> str:
    took_s = known.cells_s.get(key)
    return "" if took_s is None else f"{_duration(took_s)}{' (kept)' * (key in known.kept)}"


def _time(plan: Plan, known: Expected) -> str:
    """How long it may take, as far as earlier results tell."""
    took_s, told, cells = known.of_groups(plan)
    if not cells:
        return "expected time: none, because the folder has all results"
    if not told:
        return "expected time: unknown, because none of these cells was measured here before"
    rest = "" if told == cells else f" for {told} of {cells_words(cells)}, unknown for the others"
    return f"expected time: about {_duration(took_s)}{rest}, from earlier results here"


def _duration(seconds: float) -> str:
    """`12 s`, `4 min 5 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plan_json(plan: Plan) -> str:
    """The plan on one line, as plan.json would hold it: secrets are masked."""
    told = plan.to_json()
    for cell in told["cells"]:
        cell["config"] = masked(cell["config"])
    return json.dumps(told)


def _further(plan: Plan) -> str:
    """The starts that `repeat` may add while the sweep runs."""
    repeats = {cell.config["repeat"]: cell.config for cell in plan.cells}
    if "auto" in repeats:
        config = repeats["auto"]
        target = f"until speed-ups are known to ±{config['precision']:.0%}"
        return f"; then up to {config['max_repeat']} starts per cell, {target}"
    most = max((int(repeat) for repeat in repeats), default=1)
    return f"; then {most} starts per cell" if most > 1 else ""
