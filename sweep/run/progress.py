"""What the terminal shows while a sweep runs: a table of cells filling up, or a plain log.

Reads events.jsonl, which every group appends to, so it shows the same for any launcher, and the result of each cell
that is finished, once. `live_view` decides how it looks.
"""

import threading
import time
from typing import Any

from rich.console import Console
from rich.live import Live

from sweep.analysis import early
from sweep.analysis.early import Early
from sweep.plan.cells import Cell, at_level
from sweep.plan.plans import Plan
from sweep.report.terminal import Lines
from sweep.report.words import cells_words
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult
from sweep.run import live_view
from sweep.run.live_view import FINAL, Shown, Totals
from sweep.streams import say


class CellStates:
    """Latest state of every cell, fed from events."""

    def __init__(self, folder: SweepFolder, plan: Plan, kept: set[str], offset: int) -> None:
        self.folder = folder
        self.cells: dict[str, Cell] = {}
        self.kept = kept
        self.offset = offset
        self.states: dict[str, dict[str, Any]] = {}
        self._speeds: dict[str, Early | None] = {}
        self._results: dict[str, RunResult | None] = {}
        self.extend(plan, kept)
        self.started = time.perf_counter()
        self.begun: float | None = None  # when the first cell began; imports, which all share, come before

    def extend(self, plan: Plan, kept: set[str]) -> list[Cell]:
        """Take in the cells of `plan` that are new; returns those that will run."""
        new = [cell for cell in plan.cells if cell.key not in self.states]
        for cell in new:
            state = "skipped" if cell.skip else ("kept" if cell.key in kept else "pending")
            self.cells[cell.key] = cell
            self.states[cell.key] = {"state": state, "reason": cell.skip.text if cell.skip else ""}
        return [cell for cell in new if not cell.skip and cell.key not in kept]

    def _add(self, cell: Cell) -> None:
        """A cell that a group adds to itself."""
        if cell.key not in self.states:
            self.cells[cell.key] = cell
            self.states[cell.key] = {"state": "pending", "reason": ""}

    def update(self) -> list[tuple[Cell, dict[str, Any]]]:
        """Take in new events; returns the cells whose state changed."""
        events, self.offset = self.folder.events(self.offset)
        changed = []
        for event in events:
            if event["event"] == "added" and event["root"] in self.cells:
                self._add(at_level(self.cells[event["root"]], event["level"]))
            if event["event"] != "cell" or event["key"] not in self.cells:
                continue
            before = self.states[event["key"]]
            # Durations of the clock that ran the cell, perhaps another machine's; `seen` is of ours.
            now, begins = event["clock_s"], before["state"] in ("pending", "waiting")
            began = now if begins else before.get("began", now)
            seen = time.perf_counter() if begins else before.get("seen", time.perf_counter())
            self.states[event["key"]] = {**event, "began": began, "seen": seen, "took": now - began}
            if self.begun is None and event["state"] not in ("pending", "waiting"):
                self.begun = time.perf_counter()
            if before["state"] != event["state"]:
                changed.append((self.cells[event["key"]], self.states[event["key"]]))
        return changed

    def speed(self, key: str) -> Early | None:
        """How fast a finished cell was; None where that is unknown. Its result is read once, and its baseline's."""
        if key not in self._speeds:
            cell = self.cells[key]
            result = self._result(key)
            alone = result is not None and not any(batch.baseline_s is not None for batch in result.batches)
            others = self._result(cell.baseline_key) if alone and cell.baseline_key != key else None
            self._speeds[key] = early.estimate(cell, result, others)
        return self._speeds[key]

    def _result(self, key: str) -> RunResult | None:
        """A baseline's is kept, because cells without an interleaved one share it."""
        if key not in self.cells or self.states[key]["state"] not in ("done", "kept"):
            return None
        if key not in self._results:
            result = self.folder.read_result(self.cells[key])[0]
            if self.cells[key].baseline_key != key:
                return result
            self._results[key] = result
        return self._results[key]

    def fraction(self) -> float:
        """Part of the work of this run that is done, in [0, 1]."""
        todo = [s for key, s in self.states.items() if s["state"] not in ("skipped", "kept")]
        if not todo:
            return 1.0
        parts = [1.0 if s["state"] in FINAL else s.get("done", 0) / (s.get("total") or 1) for s in todo]
        return sum(parts) / len(todo)

    def time_left(self) -> str:
        """`about 1:20 left`, from the time since the first cell began; empty until something is done."""
        fraction = self.fraction()
        if self.begun is None or not 0 < fraction < 1:
            return ""
        seconds = (time.perf_counter() - self.begun) * (1 - fraction) / fraction
        return f"about {int(seconds // 60)}:{int(seconds % 60):02d} left"


class LiveTable:
    """Context manager around the launch of a sweep's groups."""

    def __init__(self, folder: SweepFolder, plan: Plan, kept: set[str], offset: int) -> None:
        self.states = CellStates(folder, plan, kept, offset)
        self.console = Console()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None

    def __enter__(self) -> "LiveTable":
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        else:
            runnable = [s for s in self.states.states.values() if s["state"] == "pending"]
            kept = len(self.states.kept)
            say(f"{cells_words(len(runnable))} to run" + (f", {kept} kept from an earlier run" if kept else ""))
            self._thread = threading.Thread(target=self._log, name="sweep-log", daemon=True)
            self._thread.start()
        return self

    def extend(self, plan: Plan, kept: set[str]) -> None:
        """Cells that the sweep adds while it runs, because others need further starts."""
        new = self.states.extend(plan, kept)
        if new and self._thread is not None:
            say(f"{len(new)} more to run: {', '.join(cell.label for cell in new)}")

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.__exit__(None, None, None)
        if self._thread is not None:
            self._thread.join()
            self._print_changes()

    def _log(self) -> None:
        while not self._stop.wait(0.3):
            self._print_changes()

    def _print_changes(self) -> None:
        for cell, state in self.states.update():
            name = state["state"]
            if name not in FINAL and name != "loading" and name != "waiting":
                continue
            took = f" after {live_view.duration(state['took'])}" if name in FINAL else ""
            fast = live_view.speed_text(self.states.speed(cell.key)) if name == "done" else ""
            left = self.states.time_left() if name in FINAL else ""
            reason = f": {state['reason']}" if state.get("reason") else ""
            facts = "".join(f", {fact}" for fact in (fast, left) if fact)
            say(f"{time.strftime('%H:%M:%S')} {cell.label}: {name}{took}{reason}{facts}")

    def _render(self) -> Lines:
        states = self.states
        states.update()
        now = time.perf_counter()
        shown = [
            Shown(states.cells[key], state, now - state["seen"] if "seen" in state else None)
            for key, state in states.states.items()
        ]
        todo = [state["state"] for state in states.states.values() if state["state"] not in ("skipped", "kept")]
        done = sum(state in FINAL for state in todo)
        totals = Totals(done, len(todo), now - states.started, states.fraction(), states.time_left())
        size = self.console.size
        return Lines(live_view.lines(shown, totals, states.speed, size.width, size.height))
