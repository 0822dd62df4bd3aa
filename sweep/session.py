"""One sweep from plan to exit code: folder, manifest, live table, groups, summary, report.

The same for a plain run, a multirun and any launcher: `launch` is handed group numbers. Whatever ends the
groups (an exception, Ctrl-C, a killed worker), what is finished is summarised and no process stays behind.
"""

import datetime
import os
import platform
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from sweep import __version__, run
from sweep.live import LiveTable
from sweep.plan import Plan
from sweep.results import SweepFolder
from sweep.run import Launch, is_finished

INTERRUPTED = 130


def execute(plan: Plan, path: Path, launch: Launch) -> int:
    """Run what is missing of `plan` in folder `path`; returns the exit code.

    0: every cell fine or skipped; 1: a cell is FAIL or ERROR; 130: interrupted. Raises ConfigError when the
    folder cannot be used.
    """
    folder = SweepFolder(path)
    folder.prepare()
    with folder.locked():
        return _execute(plan, folder, launch)


def _execute(plan: Plan, folder: SweepFolder, launch: Launch) -> int:
    folder.save_plan(plan)
    before, offset = folder.events()
    facts = _facts(folder)
    folder.save_manifest(facts | _progress(folder, plan, before, offset))
    done = {cell.key for cell in plan.cells if not cell.skip and is_finished(folder, cell)}
    todo = [g.number for g in plan.groups if any(key not in done for key in g.cells)]
    interrupted = False
    failure: Exception | None = None
    with LiveTable(folder, plan, kept=done, offset=offset), _terminate_as_interrupt():
        try:
            if todo:
                with run.Standby(folder, plan, todo) as run.STANDBY:
                    launch(todo)
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:  # a launcher that broke: its unfinished cells are ERROR in the summary
            failure = error
        finally:
            run.STANDBY = None
            kill_descendants()
    if failure is not None:
        print(f"the launcher failed: {type(failure).__name__}: {failure}", file=sys.stderr)
    # Before anything is printed: a reader that went away (`| head`) must not cost the manifest.
    folder.save_manifest(facts | _progress(folder, plan, before, offset) | {"end": _now()})
    from sweep.report.build import rebuild

    code = rebuild(folder, plots=plan_wants_plots(plan), interrupted=interrupted)
    exit_code = INTERRUPTED if interrupted else (1 if failure else code)
    folder.save_manifest(folder.load_manifest() | {"exit_code": exit_code})
    return exit_code


def plan_wants_plots(plan: Plan) -> bool:
    """Whether the configuration asks for plots and report.html."""
    return bool(plan.cells) and bool(plan.cells[0].config["plots"])


def kill_descendants() -> None:
    """End every process that we started and that is still there."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
            process.wait(5)
        except psutil.Error:
            pass


class _terminate_as_interrupt:
    """SIGTERM ends a sweep as Ctrl-C does: finished cells are summarised, processes ended."""

    def __enter__(self) -> None:
        def stop(signum: int, frame: object) -> None:
            raise KeyboardInterrupt

        self._before = signal.signal(signal.SIGTERM, stop)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _facts(folder: SweepFolder) -> dict[str, Any]:
    """What is known when a run of the sweep starts."""
    started = _now()
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "versions": _versions(),
        "git_commit": _git_commit(),
        "machine": _machine(),
        "start": started,
        "first_start": folder.load_manifest().get("first_start", started),
    }


def _progress(folder: SweepFolder, plan: Plan, before: list[dict[str, Any]], offset: int) -> dict[str, Any]:
    """Engine starts and cell states; `before` are the events of earlier runs, `offset` is where this run's begin."""
    events, _ = folder.events(offset)
    states = {cell.key: "skipped" if cell.skip else "pending" for cell in plan.cells}
    for cell in plan.cells:
        if not cell.skip and is_finished(folder, cell):
            states[cell.key] = "done"
    for event in events:
        if event["event"] == "cell":
            states[event["key"]] = event["state"]
    starts, earlier = (sum(event["event"] == "engine_start" for event in part) for part in (events, before))
    labels = {cell.key: cell.label for cell in plan.cells}
    return {
        "engine_starts": starts,
        "engine_starts_all_runs": starts + earlier,
        "cells": [
            {"cell": labels[key], "cell_key": key, "state": state} for key, state in states.items() if key in labels
        ],
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"sweep": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers", "cache-dit", "vllm", "vllm-omni", "hydra-core", "nvtx"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    import psutil

    from sweep.gpus import describe_gpus

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        **describe_gpus(),
    }


def _git_commit() -> str | None:
    """Commit of the checkout that this code runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
