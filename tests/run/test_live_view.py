"""The live table at the sizes of real terminals: nothing wraps, nothing but labels and reasons is shortened."""

import dataclasses
import io
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from rich.console import Console

from sweep.analysis import early
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan, build_plan
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult
from sweep.run import live_view
from sweep.run.progress import LiveTable
from tests import stored

SIZES = [(80, 24), (100, 24), (140, 40), (40, 8)]


def sweep_of(count: int, tail: str = "") -> Plan:
    """Cells of two models with labels as long as real ones."""
    cells = []
    for cell in stored.many_cells(count).cells:
        for model in ("tiny_glm_image", "tiny_qwen_image"):
            key = stored.key_of(cell.key, model)
            config = {**cell.config, "model": {**cell.config["model"], "name": model}}
            label = f"{cell.label} guidance_scale=7.5{tail} model={model}"
            base = stored.key_of(cell.baseline_key, model)
            mine = {"key": key, "origin": key, "baseline_key": base, "interleaved": base if cell.interleaved else ""}
            cells.append(dataclasses.replace(cell, **mine, label=label, config=config))
    return build_plan(cells)


class Running:
    """A sweep that runs, on a terminal of this size."""

    def __init__(self, path: Path, plan: Plan, size: tuple[int, int]) -> None:
        self.folder, self.plan = SweepFolder(path), plan
        self.folder.prepare()
        self.out = io.StringIO()
        self.table = LiveTable(self.folder, plan, set(), 0)
        width, height = size
        self.table.console = Console(file=self.out, width=width, height=height, color_system=None, force_terminal=True)

    def finish(self, cell: Cell, result: RunResult | None = None) -> None:
        self.state(cell, "loading")
        self.folder.save_result(cell, result or stored.result_of(cell, random.Random(0)))
        self.state(cell, "done")

    def state(self, cell: Cell, state: str, **values: Any) -> None:
        self.folder.emit("cell", key=cell.key, state=state, **values)

    def lines(self) -> list[str]:
        self.out.seek(0)
        self.out.truncate()
        self.table.console.print(self.table._render())
        return self.out.getvalue().splitlines()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [4, 60])
def test_the_view_fits_the_terminal_and_ends_with_progress_and_time_left(
    tmp_path: Path, size: tuple[int, int], count: int
) -> None:
    running = Running(tmp_path, sweep_of(count), size)
    first, second, third = running.plan.cells[:3]
    running.finish(first)
    running.finish(second)
    running.state(third, "loading")
    running.state(third, "running", done=1, total=4)
    lines = running.lines()
    width, height = size
    assert len(lines) < height, "a terminal that scrolls keeps lines that cannot be taken back"
    assert max(map(len, lines)) <= width
    assert len(lines[-1]) <= width - 2, "^C is echoed behind it"
    assert lines[-1].startswith(f"2 of {len(running.plan.cells)} cells  0:0")
    assert " left" in lines[-1]


@pytest.mark.parametrize("size", SIZES[:3])
def test_states_times_and_speedups_are_never_cut(tmp_path: Path, size: tuple[int, int]) -> None:
    running = Running(tmp_path, sweep_of(8, tail=" " + "long" * 20), size)
    cells = running.plan.cells
    states = ["done", "error", "waiting", "loading", "warm-up", "running", "analysing"]
    for cell, state in zip(cells, states, strict=False):
        if state == "done":
            running.finish(cell)
        else:
            running.state(cell, "loading")
            running.state(cell, state, done=1, total=2, reason="a reason " * 30)
    shown = running.lines()
    table = [line for line in shown if line.startswith(("baseline", "cache_dit", "teacache", "vae_slicing"))]
    assert len(table) == len(cells)
    for state in states:
        (line,) = (line for line in table if f"  {state} " in line)
        assert line.endswith(" s") or state == "waiting"
    names = {line.partition("…")[0] for line in table}
    assert len(names) == len(cells) / 2, "labels of one model stay apart"


def test_a_finished_cell_shows_its_speedup_and_both_latencies(tmp_path: Path) -> None:
    running = Running(tmp_path, sweep_of(4), (100, 24))
    baseline = next(cell for cell in running.plan.cells if not cell.features)
    cell = next(cell for cell in running.plan.cells if cell.features == ("teacache",))
    result = stored.result_of(cell, random.Random(0))
    batches = tuple(structs.replace(batch, latency_s=1.5, baseline_s=3.0) for batch in result.batches)
    running.finish(cell, dataclasses.replace(result, batches=batches))
    running.finish(baseline)
    lines = running.lines()
    assert [line for line in lines if "~2.00x  3.00 → 1.50 s" in line and line.startswith("teacache")]
    (line,) = (line for line in lines if line.startswith("baseline") and " done " in line)
    assert "x  " not in line


def test_a_result_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(tmp_path, sweep_of(4), (100, 24))
    for cell in running.plan.cells[:3]:
        running.finish(cell)
    read: list[str] = []
    before = SweepFolder.read_result
    monkeypatch.setattr(SweepFolder, "read_result", lambda self, cell: read.append(cell.key) or before(self, cell))
    for _ in range(3):
        running.lines()
    assert sorted(read) == sorted(cell.key for cell in running.plan.cells[:3])


def test_without_an_interleaved_baseline_the_estimate_is_against_its_own_cell() -> None:
    plan = stored.many_cells(4)
    cell = next(cell for cell in plan.cells if cell.features == ("teacache",))
    alone = dataclasses.replace(cell, interleaved="")
    noise = random.Random(0)
    baseline = stored.result_of(plan.by_key[cell.baseline_key], noise)
    found = early.estimate(alone, stored.result_of(alone, noise), baseline)
    assert found is not None
    assert found.speedup == pytest.approx(stored.SPEEDS["teacache"], rel=0.05)
    pending = early.estimate(alone, stored.result_of(alone, noise), None)
    assert pending is not None
    assert pending.speedup is None
    assert live_view.speed_text(pending) == f"{pending.latency_s:.3f} s"


def test_the_log_of_a_sweep_without_a_terminal_has_the_same_facts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = Running(tmp_path, sweep_of(4), (100, 24))
    cell = next(cell for cell in running.plan.cells if cell.features == ("teacache",))
    running.finish(cell)
    running.table._print_changes()
    last = capsys.readouterr().out.splitlines()[-1]
    assert cell.label in last
    assert "done after " in last
    assert "~1." in last
    assert " → " in last
    assert last.endswith(" left")


def test_labels_and_reasons_are_never_markup(tmp_path: Path) -> None:
    plan = sweep_of(4, tail=" [bold]x[/bold] [/x]")
    running = Running(tmp_path, plan, (200, 24))
    running.state(plan.cells[0], "loading")
    running.state(plan.cells[0], "error", reason="/tmp/[red]file[/red]")
    shown = "\n".join(running.lines())
    assert shown.count("[bold]x[/bold] [/x]") == len(plan.cells)
    assert "/tmp/[red]file[/red]" in shown


def test_long_times_keep_their_width() -> None:
    assert [live_view.duration(s) for s in (0.04, 11.3, 99.96, 725.0, 3723.0)] == [
        *("0.0 s", "11.3 s", "1:39", "12:05", "1:02:03")
    ]
