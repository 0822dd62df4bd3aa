"""The plan of a sweep as a table or as JSON: `dry_run=true`, `dry_run=json`."""

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from sweep.config.hardware import AUTO, Hardware
from sweep.findings import SKIP
from sweep.masking import masked
from sweep.plan.cells import Cell
from sweep.plan.nothing_runs import why_nothing_runs
from sweep.plan.plans import Plan
from sweep.predict.times import Times, Total
from sweep.report.terminal import literal, together
from sweep.report.words import cells_words, duration_words, listed
from sweep.results.earlier import NOTHING_KNOWN
from sweep.workload.inputs import random_texts
from sweep.workload.requests import number_of_requests

if TYPE_CHECKING:
    from sweep.predict.planned import Forecast

NAMED = 4
"""The most cells that a sentence names."""


@dataclass(frozen=True)
class Elsewhere:
    """The plan as it would run on the chosen hardware, which this machine is not."""

    plan: Plan
    forecast: "Forecast"
    hardware: Hardware
    note: str = ""  # what will not fit


@dataclass(frozen=True)
class Outlook:
    """What is known of a plan before it runs."""

    times: Times = Times(NOTHING_KNOWN)  # noqa: RUF009  frozen
    hardware: Hardware = dataclasses.field(default_factory=Hardware)  # with the price
    jobs: int = 1  # groups that the launcher runs at once
    devices: int = 1
    elsewhere: Elsewhere | None = None
    budget: str = ""
    fits: frozenset[str] = frozenset()  # keys of cells that the budget has time for, as far as times are known


def print_plan(plan: Plan, console: Console | None = None, seen: Outlook | None = None) -> None:
    """Print the cells of each group with what they generate, expected skips, engine starts, time and cost."""
    console, seen = console or Console(), seen or Outlook()
    times, kept = seen.times, seen.times.earlier.kept
    table = Table(title="plan (nothing was run)", title_justify="left")
    timed = any(times.cell_s(cell.key) is not None for cell in plan.cells)
    column = "takes" if any(map(times.is_predicted, plan.by_key)) else "took"
    for name in ("engine", "cell", "devices", "prompts", "requests", "repeats", *[column] * timed):
        table.add_column(name, overflow="fold", justify="left" if name in ("engine", "cell") else "right")
    for group in plan.groups:
        for key in group.cells:
            cell = plan.cell(key)
            took = _took(times, key)
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
    missing = sum(any(key not in kept for key in group.cells) for group in plan.groups)
    starts = "1 engine start" if missing == 1 else f"{missing} engine starts"
    before = f"{len(kept)} kept, " if kept else ""
    to_run = cells_words(runnable - len(kept))
    console.print(f"{to_run} to run, {before}{skipped} skipped, {starts}{_further(plan)}")
    said = [_prompts(plan), _time(plan, seen), _fits(plan, seen)] if runnable else []
    for one in filter(None, (*said, *_elsewhere(seen))):
        console.print(literal(one), soft_wrap=True)


def _asked(cell: Cell) -> tuple[str, str, str]:
    """Prompts, requests per repeat, and repeats; for a load, its own number of requests, sent once."""
    run = cell.run_config
    prompts = cell.inputs.number if cell.inputs else 0
    if cell.under_load:
        return f"{prompts:,}" if prompts else "random", f"{run.load.requests:,}", "1"
    return f"{prompts:,}", f"{number_of_requests(run.workload, run.batch, cell.inputs):,}", str(run.workload.repeats)


def _prompts(plan: Plan) -> str:
    """Where prompts come from, and how many of them are used."""
    sources = [_source(cell) for cell in plan.cells if not cell.skip and cell.inputs]
    return f"prompts: {'; '.join(dict.fromkeys(sources))}"


def _source(cell: Cell) -> str:
    work, inputs = cell.run_config.workload, cell.inputs
    count = len(inputs.prompts) if inputs else 0
    if random_texts(work):
        return f"random ones of {work.input_len} tokens"
    if inputs and inputs.edits:
        lines = f"1 line ({count} turns)" if inputs.number == 1 else f"{inputs.number} lines ({count} turns)"
        return f"{lines} of {work.edits}" if work.edits else f"{lines} of the shipped set '{work.prompt_set}'"
    if work.prompt is not None:
        return "workload.prompt"
    if work.prompts is None:
        return f"{count} of the shipped set '{work.prompt_set}'"
    cut = any(note.code == "prompts_cut" for note in inputs.notes) if inputs else False
    return f"{f'the first {count:,}' if cut else f'all {count:,}'} of {work.prompts}"


def _took(times: Times, key: str) -> str:
    took_s = times.cell_s(key)
    if took_s is None:
        return ""
    about = "~" if times.is_predicted(key) else ""
    return f"{about}{duration_words(took_s)}{' (kept)' * (key in times.earlier.kept)}"


def _time(plan: Plan, seen: Outlook) -> str:
    """Its expected time and cost from earlier results and predictions, and which of them they come from."""
    total = seen.times.total(plan, seen.jobs, seen.devices)
    if not total.cells:
        return "expected time: none, because the folder has all results"
    if not total.known:
        return "expected time: unknown, because none of these cells was measured here before"
    rest = (
        ""
        if total.known == total.cells
        else f" for {total.known} of {cells_words(total.cells)}, unknown for the others"
    )
    side = f", {seen.jobs} engines at once" if seen.jobs > 1 else ""
    forecast = seen.times.forecast
    whence = "from earlier results here"
    if forecast is not None and total.predicted_s:
        whole = total.predicted_s >= (1 - 1e-9) * total.seconds
        part = "all of it" if whole else f"of which {duration_words(total.predicted_s)}"
        scaled = "" if seen.times.factor == 1 else "; scaled to what was measured here"
        whence = f"{part} predicted (~, {_grade(forecast)}{scaled})"
    if any(cell.config["repeat"] != 1 for cell in plan.cells):
        side += ", first starts alone"
    cost = _cost(total, seen.hardware)
    return f"expected time: about {duration_words(total.seconds)}{rest}, {whence}{side}{f'; {cost}' if cost else ''}"


def _grade(forecast: "Forecast") -> str:
    """`fitted; engine starts assumed`."""
    return "assumed" if forecast.grade.startswith("assumed") else "fitted; engine starts assumed"


def _cost(total: Total, hardware: Hardware) -> str:
    """GPUs in use at once × time × price; "" without a price."""
    price = _price(hardware)
    if price is None:
        return ""
    of = f" for {total.gpus} GPUs" if total.gpus > 1 else ""
    name = "" if hardware.name == AUTO else f" ({hardware.name})"
    return f"about ${total.cost(price):.2f}{of} at ${price:.2f} a GPU hour{name}"


def _price(hardware: Hardware) -> float | None:
    """Price of a GPU hour; a CPU core has none, as in cost_per_image."""
    return None if hardware.kind == "cpu" else hardware.price_per_gpu_hour


def _fits(plan: Plan, seen: Outlook) -> str:
    """What the budget has time for; "" without one."""
    if not seen.budget:
        return ""
    budget = f"budget={seen.budget}"
    waiting = [cell for cell in plan.cells if not cell.skip and cell.key not in seen.times.earlier.kept]
    left = [cell.label for cell in waiting if cell.key not in seen.fits]
    unknown = not seen.times.total(plan, seen.jobs, seen.devices).known
    if unknown:
        return f"{budget}: how much of it fits shows while it runs"
    if not left:
        return f"{budget}: all of it is expected to fit"
    fit = f"{len(waiting) - len(left)} of {cells_words(len(waiting))}"
    return f"{budget}: {fit} are expected to fit; left out: {listed(left, NAMED)}"


def _elsewhere(seen: Outlook) -> list[str]:
    """The same on hardware that was chosen and is not here."""
    there = seen.elsewhere
    if there is None:
        return []
    name = there.hardware.name
    total = Times(NOTHING_KNOWN, there.forecast).total(there.plan, 1, 1)
    if not total.known:
        return [f"on {name}, which is not here: unknown, because none of these cells can be predicted"]
    rest = (
        ""
        if total.known == total.cells
        else f" for {total.known} of {cells_words(total.cells)}, unknown for the others"
    )
    cost = _cost(total, there.hardware)
    grade = _grade(there.forecast)
    line = f"on {name}, which is not here: about {duration_words(total.seconds)}{rest}, predicted ({grade})"
    return [f"{line}{f'; {cost}' if cost else ''}", *([f"on {name}: {there.note}"] if there.note else [])]


def plan_json(plan: Plan, seen: Outlook | None = None) -> str:
    """The plan on one line, as plan.json would hold it, and what is expected of it; secrets are masked."""
    data = plan.to_json()
    for cell in data["cells"]:
        cell["config"] = masked(cell["config"])
    if seen is not None:
        data["expected"] = _expected(plan, seen)
    return json.dumps(data)


def _expected(plan: Plan, seen: Outlook) -> dict[str, Any]:
    """Seconds and cost of the whole; for each cell its seconds, their source, and whether it fits."""
    times, forecast = seen.times, seen.times.forecast
    cells = {}
    for cell in plan.cells:
        predicted = forecast.cells.get(cell.key) if forecast else None
        if cell.skip or (predicted is None and times.cell_s(cell.key) is None):
            continue
        source = None if times.cell_s(cell.key) is None else "predicted" if times.is_predicted(cell.key) else "earlier"
        cells[cell.key] = {
            "seconds": times.cell_s(cell.key),
            "source": source,
            "memory_gb": predicted.prediction.memory.told / 1e9 if predicted else None,
            "fits_memory": predicted.prediction.fits if predicted else None,
            "fits_budget": cell.key in seen.fits if seen.budget else None,
        }
    there = seen.elsewhere
    elsewhere = Times(NOTHING_KNOWN, there.forecast).total(there.plan, 1, 1) if there else None
    return {
        **_whole(times.total(plan, seen.jobs, seen.devices), seen.hardware, forecast),
        "budget": seen.budget or None,
        "cells": cells,
        "elsewhere": _whole(elsewhere, there.hardware, there.forecast) if there and elsewhere else None,
    }


def _whole(total: Total, hardware: Hardware, forecast: "Forecast | None") -> dict[str, Any]:
    price = _price(hardware)
    return {
        "seconds": total.seconds if total.known else None,
        "predicted_seconds": total.predicted_s,
        "cells_known": total.known,
        "cells_to_run": total.cells,
        "devices": total.gpus,
        "price_per_gpu_hour": price,
        "cost": total.cost(price) if price is not None and total.known else None,
        "hardware": forecast.device.name if forecast else None,
        "grade": forecast.grade if forecast else None,
    }


def _further(plan: Plan) -> str:
    """The starts that `repeat` may add while the sweep runs."""
    repeats = {cell.config["repeat"]: cell.config for cell in plan.cells}
    if "auto" in repeats:
        config = repeats["auto"]
        target = f"until speed-ups are known to ±{config['precision']:.0%}"
        return f"; then up to {config['max_repeat']} starts per cell, {target}"
    most = max((int(repeat) for repeat in repeats), default=1)
    return f"; then {most} starts per cell" if most > 1 else ""
