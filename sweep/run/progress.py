"""What the terminal shows while a sweep runs: a table of cells filling up, or a plain log.

Reads events.jsonl, which every group appends to, so it shows the same for any launcher.
"""

import threading
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.plan.cells import Cell, Plan, at_level
from sweep.report.terminal import literal
from sweep.report.words import cells_words
from sweep.results.folder import SweepFolder
from sweep.streams import say

FINAL = ("done", "error")
STYLES = {"done": "green", "error": "red", "running": "cyan", "loading": "yellow", "warm-up": "yellow"}


class CellStates:
    """Latest state of every cell, fed from events."""

    def __init__(self, folder: SweepFolder, plan: Plan, kept: set[str], offset: int) -> None:
        self.folder = folder
        self.cells: dict[str, Cell] = {}
        self.kept = kept
        self.offset = offset
        self.states: dict[str, dict[str, Any]] = {}
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
        """Cells that the sweep adds while it runs, because others want further starts."""
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
            took = f" after {state['took']:.1f} s" if name in FINAL else ""
            left = self.states.time_left() if name in FINAL else ""
            reason = f": {state['reason']}" if state.get("reason") else ""
            say(f"{time.strftime('%H:%M:%S')} {cell.label}: {name}{took}{reason}{f' ({left})' if left else ''}")

    def _render(self) -> Table:
        self.states.update()
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(width=10)
        table.add_column(width=min(44, max(24, self.console.width - 60)))
        table.add_column(justify="right", width=8)
        rows = list(self.states.states.items())
        room = max(5, self.console.size.height - 4)
        active = next((i for i, (_, s) in enumerate(rows) if s["state"] not in (*FINAL, "kept", "skipped")), len(rows))
        first = max(0, min(active - room // 2, len(rows) - room))
        for key, state in rows[first : first + room]:
            name = state["state"]
            middle: Any = literal(str(state.get("reason") or ""), "dim", overflow="ellipsis", no_wrap=True)
            if name == "running":
                middle = ProgressBar(total=state["total"], completed=state["done"], width=24)
            seconds = ""
            if "seen" in state and name != "waiting":
                took = state["took"] if name in FINAL else time.perf_counter() - state["seen"]
                seconds = f"{took:.1f} s"
            table.add_row(
                literal(self.states.cells[key].label), literal(name, STYLES.get(name, "dim")), middle, seconds
            )
        elapsed = time.perf_counter() - self.states.started
        done = sum(s["state"] in FINAL for s in self.states.states.values())
        total = sum(s["state"] not in ("skipped", "kept") for s in self.states.states.values())
        table.add_row("")
        table.add_row(
            Text(f"{done} of {total} cells", style="bold"),
            f"{int(elapsed // 60)}:{int(elapsed % 60):02d}",
            ProgressBar(total=1.0, completed=self.states.fraction(), width=24),
            "",
        )
        table.add_row(Text(self.states.time_left(), style="dim"))
        return table
