"""`outputs/mine teacache`: a cell is named by its label, or by how that begins."""

import json
from pathlib import Path

import pytest
from small_traces import refusal

from profiling.__main__ import main
from profiling.cell_names import cell_folders, matches
from profiling.errors import Refusal
from tests.recorded import unpack

CELLS = {
    "baseline-b1-00000001": "baseline b1",
    "baseline-b1-aa-00000002": "baseline b1 A/A",
    "baseline-b1-_2-aa-00000003": "baseline b1 #2 A/A",
    "teacache-b1-00000004": "teacache b1",
    "teacache-b1-start-2-00000005": "teacache b1 start 2",
    "teacache+tp-b1-00000006": "teacache+tp b1",
    "tp-b1-00000007": "tp b1",
    "tp-b2-00000008": "tp b2",
}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The folder of a sweep with these cells."""
    folder = tmp_path / "mine"
    for name in CELLS:
        (folder / name).mkdir(parents=True)
    cells = [{"key": f"{name[-8:]}ffff0000", "label": label} for name, label in CELLS.items()]
    (folder / "plan.json").write_text(json.dumps({"cells": cells}))
    return folder


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("teacache", ["teacache-b1-00000004"]),
        ("teacache b1", ["teacache-b1-00000004"]),
        ("teacache b1 start", ["teacache-b1-start-2-00000005"]),
        ("teacache+", ["teacache+tp-b1-00000006"]),
        ("teacache-b1", ["teacache-b1-00000004"]),
        ("teacache-b1-00000004", ["teacache-b1-00000004"]),
        ("base", ["baseline-b1-00000001"]),
        ("baseline b1 A/A", ["baseline-b1-aa-00000002"]),
        ("tp", ["tp-b1-00000007", "tp-b2-00000008"]),
        ("t", ["teacache-b1-00000004", "teacache-b1-start-2-00000005", "teacache+tp-b1-00000006"]),
        ("ulysses", []),
    ],
)
def test_a_name_means_the_cells_that_it_reads_as(name: str, found: list[str]) -> None:
    assert matches(CELLS, name)[:3] == found


def test_names_follow_the_folder_of_their_sweep(sweep: Path) -> None:
    other = sweep / "tp-b2-00000008"
    given = [sweep, Path("baseline"), Path("teacache"), other, sweep / "teacache", Path("trace.sqlite")]
    named = [sweep / "baseline-b1-00000001", sweep / "teacache-b1-00000004"]
    with pytest.raises(Refusal, match=r"no cell 'trace\.sqlite'"):
        cell_folders(given)
    assert cell_folders(given[:3]) == named
    assert cell_folders(given[3:]) == [other, named[1], Path("trace.sqlite")]
    assert cell_folders([sweep]) == [sweep], "which the command refuses with the cells that it has"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("tp", "names", "has 2 cells whose names begin with 'tp': tp b1, tp b2; give more of it"),
        ("teacahe", "no_such_name", "did you mean 'teacache b1'?"),
        ("[red]", "no_such_name", "has no cell '[red]'; it has baseline b1, "),
        ("../mine/tp-b2-00000008", "no_such_name", "has no cell '../mine/tp-b2-00000008'"),
    ],
)
def test_a_name_of_no_cell_or_of_several_is_told_which_there_are(sweep: Path, name: str, code: str, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        cell_folders([sweep, Path(name)])
    assert refused.value.code == code
    assert said in str(refused.value)


@pytest.mark.parametrize("plan", ["", "[]", '{"cells": [null]}', '{"cells": [{"key": 3}]}'])
def test_without_a_readable_plan_folders_name_themselves(sweep: Path, plan: str) -> None:
    (sweep / "plan.json").write_text(plan)
    assert cell_folders([sweep, Path("teacache-b1")]) == [sweep / "teacache-b1-00000004"]


def test_timeline_takes_a_sweep_and_a_label(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unpack("glm_b4", sweep / "tp-b2-00000008")
    assert main(["timeline", str(sweep), "tp b2"]) == 0
    assert (sweep / "tp-b2-00000008" / "timeline.json").is_file()
    capsys.readouterr()
    assert main(["timeline", str(sweep), "tp"]) == 2
    assert capsys.readouterr().err.startswith(f"profiling: {sweep} has 2 cells whose names begin with 'tp'")


@pytest.mark.parametrize("command", ["analyze", "diff"])
def test_traces_are_named_alike(sweep: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(sweep), "baseline", "teacache"]) == 2
    assert "baseline-b1-00000001: this folder has no trace.nsys-rep" in capsys.readouterr().err


def test_one_cell_is_drawn_at_a_time(sweep: Path) -> None:
    assert refusal("timeline", str(sweep), "baseline", "teacache") == "several"
