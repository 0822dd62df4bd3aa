"""One sweep from plan to exit code: folder, manifest, live table, groups, summary, report.

The same for a plain run, a multirun and any launcher: `launch` is handed group numbers. Whatever ends the
groups (an exception, Ctrl-C, a killed worker), what is finished is summarised and no process stays behind.
"""

import dataclasses
import functools
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling import ranges
from profiling.printing import complain
from sweep.analysis.proposers import proposed
from sweep.engines.process import temp_folders
from sweep.engines.process.failures import one_line
from sweep.engines.process.forkserver import quiet_tracker
from sweep.engines.process.host import can_fork, forget_imports
from sweep.plan.cells import Cell, model_and_engine
from sweep.plan.plans import Plan, build_plan, outdated
from sweep.refusals import ConfigError
from sweep.results import latest
from sweep.results.folder import SweepFolder
from sweep.results.records import LEFT_OUT, RunResult
from sweep.run import provenance, resume
from sweep.run.baseline_engine import BaselineEngines
from sweep.run.descendants import kill_descendants
from sweep.run.group import Launch, is_finished, kept_result
from sweep.run.interrupts import INTERRUPTED, Interrupts
from sweep.run.manifest import facts_of, later, progress
from sweep.run.progress import LiveTable

if TYPE_CHECKING:
    from sweep.run.budget import Budget

DAMAGES = 10  # cells whose damaged file is named


def execute(plan: Plan, path: Path, launch: Launch, budget: "Budget | None" = None) -> int:
    """Run what is missing of `plan` in folder `path`; returns the exit code.

    With a `budget`, groups are started as long as they fit into it; the others' cells are NOT RUN.
    0: every cell fine or skipped; 1: a cell is FAIL, ERROR or NOT RUN (except for a budget); 130: interrupted. Raises
    ConfigError when the folder cannot be used.
    """
    folder = SweepFolder(path)
    folder.prepare()
    temp_folders.clear_dead()
    with folder.locked(), temp_folders.sweep_here():
        latest.point_to(path)
        try:
            return _execute(plan, folder, launch, budget)
        finally:
            folder.forget_secrets()


def _execute(plan: Plan, folder: SweepFolder, launch: Launch, budget: "Budget | None") -> int:
    began = time.perf_counter()
    before, offset = folder.events()
    facts = facts_of(folder, plan)
    kept, damaged = _kept(folder, plan)
    older = _older(folder, plan, kept)
    facts |= {provenance.KEPT: [dataclasses.asdict(one) for one in older]} if older else {}
    replaced = outdated(folder.load_plan(), plan) if folder.has_plan else []
    try:
        others = folder.save_plan(plan)
        folder.keep_inputs(plan)
        folder.save_manifest(facts | progress(folder, plan, before, offset))
    except OSError as error:
        raise ConfigError(
            f"output folder {folder.path} cannot be written ({error.strerror}); choose another with hydra.sweep.dir=DIR"
        ) from error
    _say_what_the_folder_holds(folder, others, replaced, older)
    _say_what_is_damaged(damaged)
    done = set(kept)
    _wait_again(folder, plan, done, before)
    todo = [g.number for g in plan.groups if any(key not in done for key in g.cells)]
    if todo and ranges.attached() and any(can_fork(cell.config["engine"]["name"], cell.device) for cell in plan.cells):
        complain("a profiling tool is attached, so engines are spawned and not forked: it would not see forked ones")
    interrupted = False
    failure: Exception | None = None
    with Interrupts(folder.path) as interrupts:
        try:
            with LiveTable(folder, plan, kept=done, offset=offset) as table:
                try:
                    _launch(plan, folder, launch, todo, table, budget)
                except Exception as error:  # a launcher that broke: the summary says which cells are unfinished
                    failure = error
                finally:
                    kill_descendants()
        except KeyboardInterrupt:
            interrupted = True
            kill_descendants()
            forget_imports()
        if failure is not None:
            complain(f"the launcher failed: {type(failure).__name__}: {one_line(str(failure))}")
        plan = _with_further_starts(plan, folder)
        # Before anything is printed: a reader that went away (`| head`) must not cost the manifest.
        took_s = time.perf_counter() - began
        facts |= {"end": later(facts["start"], took_s), "duration_s": round(took_s, 3)}
        _save_manifest(folder, facts | progress(folder, plan, before, offset))
        interrupts.allow()
        try:
            code = _report(folder, plan, plan_wants_plots(plan), interrupted, budget)
        except KeyboardInterrupt:  # only plots are given up; another Ctrl-C is ignored now
            interrupted = True
            code = _report(folder, plan, False, interrupted, budget)
        interrupts.refuse()
        exit_code = INTERRUPTED if interrupted else (1 if failure else code)
        _save_manifest(folder, folder.load_manifest() | {"exit_code": exit_code})
    return exit_code


def _say_what_the_folder_holds(
    folder: SweepFolder, others: list[Cell], replaced: list[Cell], older: list[provenance.Older]
) -> None:
    """One line each: cells of other commands, cells whose files changed since, and kept cells of other versions."""
    lines = []
    if others:
        it = ("1 cell from another command; it appears", f"{len(others)} cells from other commands; they appear")
        lines.append(f"{folder.path} also holds {it[len(others) > 1]} in the tables")
    if replaced:
        before = (
            "1 cell was planned before its checkpoint or prompts changed; it is",
            f"{len(replaced)} cells were planned before their checkpoint or prompts changed; they are",
        )
        said = "measured again, and the tables leave the old results out"
        lines.append(f"in {folder.path}, {before[len(replaced) > 1]} {said}")
    lines += [provenance.sentence(older)] if older else []
    for line in lines:
        complain(line)


def _report(folder: SweepFolder, plan: Plan, plots: bool, interrupted: bool, budget: "Budget | None") -> int:
    """Write and print the summary; returns the exit code. A full disk costs the report, not the results."""
    from sweep.report.build import rebuild

    try:
        again = resume.command(sys.orig_argv, folder.path) if interrupted else ""
        rest = ""
        if budget is not None and budget.used_up and not interrupted:
            rest = budget.sentence(plan, resume.command(sys.orig_argv, folder.path, budget=False))
        return rebuild(folder, plots=plots, resume=again, left_out=rest)
    except OSError as error:
        complain(
            f"sweep: the report could not be written ({error.strerror}); results are kept, and "
            f"python -m sweep.report {shlex.quote(str(folder.path))} writes it again"
        )
        return 1


def _save_manifest(folder: SweepFolder, manifest: dict[str, Any]) -> None:
    try:
        folder.save_manifest(manifest)
    except OSError as error:
        complain(f"sweep: manifest.json could not be written ({error.strerror})")


def _launch(
    plan: Plan, folder: SweepFolder, launch: Launch, todo: list[int], table: LiveTable, budget: "Budget | None"
) -> None:
    """Launch groups, then what proposers add to the plan, until they add nothing. plan.json grows with them."""
    quiet_tracker()
    finished = {cell.key for cell in plan.cells if not cell.skip} - {k for n in todo for k in plan.groups[n].cells}
    while True:
        if todo:
            with BaselineEngines(folder, plan, todo).shared_by_groups():
                waves = _waves(plan, todo)
                if budget is not None:
                    waves = budget.waves(
                        plan, todo, _alone(plan, todo), frozenset(finished), functools.partial(_read, folder)
                    )
                for numbers in waves:
                    launch(numbers)
        known = {cell.key for cell in plan.cells}
        added = proposed(plan, functools.partial(_results, folder, plan))
        if added and budget is not None:
            added = budget.further(plan, added)
        if not added:
            break
        plan = build_plan([*plan.cells, *added])
        plan = plan if budget is None else budget.ordered(plan)
        folder.save_plan(plan)
        done = {cell.key for cell in plan.cells if not cell.skip and is_finished(folder, cell)}
        table.extend(plan, done - known)
        todo = [g.number for g in plan.groups if any(key not in known and key not in done for key in g.cells)]
        finished = done
    for key, why in budget.left_out.items() if budget is not None else ():
        folder.emit("cell", key=key, state=LEFT_OUT, reason=why)


def _wait_again(folder: SweepFolder, plan: Plan, done: set[str], before: Sequence[Mapping[str, Any]]) -> None:
    """What an earlier budget left out waits like any other cell: this run may end before it for another reason."""
    last = {event["key"]: event["state"] for event in before if event["event"] == "cell"}
    for cell in plan.cells:
        if last.get(cell.key) == LEFT_OUT and cell.key not in done:
            folder.emit("cell", key=cell.key, state="pending")


def _kept(folder: SweepFolder, plan: Plan) -> tuple[dict[str, RunResult], dict[str, str]]:
    """Results of cells that need not run again, by key; and by label, which file makes a finished cell run again."""
    found = {cell.key: kept_result(folder, cell) for cell in plan.cells if not cell.skip}
    kept = {key: result for key, (result, _) in found.items() if result is not None}
    return kept, {plan.cell(key).label: why for key, (_, why) in found.items() if why}


def _older(folder: SweepFolder, plan: Plan, kept: dict[str, RunResult]) -> list[provenance.Older]:
    """Kept cells that other versions measured."""
    last = folder.load_manifest()
    measured = {plan.cell(key).label: result.measured_with for key, result in kept.items()}
    cells = ((label, known or provenance.told_by(last, label)) for label, known in measured.items())
    return provenance.older(cells, provenance.measured_with())


def _say_what_is_damaged(damaged: dict[str, str]) -> None:
    """Name the stored files because of which finished cells are measured again."""
    for label, why in list(damaged.items())[:DAMAGES]:
        complain(f"sweep: {label} is measured again: {why}")
    if len(damaged) > DAMAGES:
        complain(f"sweep: {len(damaged) - DAMAGES} more cells are measured again: files are damaged")


def _results(folder: SweepFolder, plan: Plan) -> dict[str, RunResult | None]:
    return _read(folder, [cell for cell in plan.cells if not cell.skip])


def _read(folder: SweepFolder, cells: Sequence[Cell]) -> dict[str, RunResult | None]:
    return {cell.key: folder.load_result(cell) for cell in cells}


def _alone(plan: Plan, todo: list[int]) -> list[int]:
    """Groups that run on their own: on GPUs the first engine of each model.

    It fills the compile caches that all engines share: engines that compile at the same time may choose different
    kernels, and their images then differ for no reason of the feature's.
    """
    alone: dict[tuple[str, str], int] = {}
    for number in todo:
        cell = plan.cell(plan.groups[number].cells[0])
        if cell.device == "cuda":
            alone.setdefault(model_and_engine(cell), number)
    return sorted(alone.values())


def _waves(plan: Plan, todo: list[int]) -> Iterable[list[int]]:
    """What is launched at once."""
    firsts = _alone(plan, todo)
    rest = [number for number in todo if number not in firsts]
    return [[number] for number in firsts] + ([rest] if rest else [])


def _with_further_starts(plan: Plan, folder: SweepFolder) -> Plan:
    """The plan as it grew while it ran, without what earlier sweeps left in the folder."""
    grown = folder.grown_plan()
    mine = (cell for cell in grown.cells if cell.origin in plan.by_key or cell.root in plan.by_key)
    return Plan(tuple(mine), grown.groups)


def plan_wants_plots(plan: Plan) -> bool:
    """Whether the configuration asks for plots and report.html."""
    return bool(plan.cells) and bool(plan.cells[0].config["plots"])
