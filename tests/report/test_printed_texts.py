"""Texts of users and files are never markup, escape sequences, formulas or raw control characters, wherever shown."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from sweep.findings import Finding
from sweep.plan.plans import Plan, build_plan
from sweep.report.build import rebuild
from sweep.report.plan_table import print_plan
from sweep.report.plots import draw
from sweep.results.folder import SweepFolder, to_csv
from sweep.run.progress import LiveTable
from tests import stored

HOSTILE = "[/x] [red]a\x1b]0;owned\x07b\x9b2J\u202ec\x00d"
SHOWN = r"[/x] [red]a\x1b]0;owned\x07b\x9b2J\u202ec\x00d"


@pytest.fixture
def made() -> Plan:
    """Cells whose labels, skips and prompts are hostile; a space in front keeps table columns from breaking words."""
    whole = stored.many_cells(4)
    skip = Finding("skipped", HOSTILE, "SKIP")
    cells = [dataclasses.replace(cell, label=f"{number} {HOSTILE}") for number, cell in enumerate(whole.cells)]
    return build_plan([*cells[:-1], dataclasses.replace(cells[-1], skip=skip)])


def console(width: int = 400) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None)


def shown_on(one: Console) -> str:
    assert isinstance(one.file, io.StringIO)
    return one.file.getvalue()


def assert_harmless(shown: str, times: int = 1) -> None:
    assert shown.count(SHOWN) >= times, shown
    assert not set("\x1b\x07\x9b\u202e\x00") & set(shown)


def test_a_plan_is_shown_literally(made: Plan) -> None:
    one = console()
    print_plan(made, one)
    assert_harmless(shown_on(one), times=len(made.cells) + 1)


def test_the_live_table_and_log_show_labels_and_reasons_literally(
    made: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = SweepFolder(tmp_path)
    cell = made.cells[0]
    table = LiveTable(folder, made, set(), 0)
    folder.emit("cell", key=cell.key, state="loading")
    folder.emit("cell", key=cell.key, state="error", reason=HOSTILE)
    table._print_changes()
    assert_harmless(capsys.readouterr().out, times=2)
    one = console()
    table.console = one
    one.print(table._render())
    assert_harmless(shown_on(one), times=len(made.cells))


def test_the_end_of_a_sweep_and_its_files_are_harmless(
    made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw, "PLOTS", {})
    folder = stored.store(tmp_path / "[red]", made)
    for cell in made.cells:
        result = folder.load_result(cell)
        assert result is not None
        prompts = tuple(HOSTILE for _ in result.prompts)
        folder.save_result(cell, dataclasses.replace(result, prompts=prompts, foreign=(HOSTILE,), reason=HOSTILE))
    folder.save_manifest({"command": HOSTILE, "machine": {"gpus": [HOSTILE]}})
    one = console()
    rebuild(folder, resume=f"python -m sweep {HOSTILE}", console=one)
    assert_harmless(shown_on(one), times=2 * (len(made.cells) - 1))
    assert f"{tmp_path}/[red]/summary.csv" in shown_on(one)
    page = (folder.path / "report.html").read_text(encoding="utf-8")
    assert "[/x] [red]a\\x1b]0;owned" in page
    assert not {c for c in page if ord(c) < 32 and c not in "\n\t"} | ({"\x7f", "\x9b"} & set(page))
    for name in ("summary.csv", f"{folder.cell_path(made.cells[0]).name}/requests.csv"):
        assert not set("\x1b\x07\x9b\x00") & set((folder.path / name).read_text(encoding="utf-8"))
    assert json.loads((folder.path / "report.json").read_text(encoding="utf-8"))["sweep"]["command"] == HOSTILE


def test_what_a_spreadsheet_would_run_is_text_and_numbers_stay_numbers() -> None:
    formulas = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1")
    text = to_csv(("text", "number"), [*((formula, -1.5) for formula in formulas), ("fine", float("-inf")), (None, 3)])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["text"][0] for row in rows[: len(formulas)]] == ["'", "'", "'", "'", "\\", "\\"]
    assert all(formula.strip() in row["text"] for formula, row in zip(formulas, rows, strict=False))
    assert {row["number"] for row in rows} == {"-1.5", "-inf", "3"}
    assert [row["text"] for row in rows[-2:]] == ["fine", ""]
