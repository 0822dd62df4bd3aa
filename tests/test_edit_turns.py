"""An edit in three turns on the embedded model, through the real command line: the pictures show what was asked."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Finished


def test_three_turns_show_what_was_asked_and_so_does_the_report(sweep: Callable[..., Finished], tmp_path: Path) -> None:
    shipped = (
        "workload=image_edit",
        "workload.prompt_set=world_turns",
        "workload.num_prompts=2",
        "batch=2",
        "workload.steps=8",
    )
    small = ("batch=2", "workload.repeats=1", "engine.warmup=0", "aa=0", "plots=false", "hydra.sweep.dir=out")
    done = sweep("-m", "model=tiny_glm_image", *shipped, *small)
    assert done.code == 0, done.out + done.err
    with (tmp_path / "out" / "summary.csv").open() as handle:
        (row,) = csv.DictReader(handle)
    assert (row["pictures_checked"], row["exact_rate"], row["exact_last_turn"]) == ("6", "1.0", "1.0")
    assert 0 < float(row["drift"]) < 0.03, "each turn moves every pixel a little"
    (cell,) = json.loads((tmp_path / "out" / "report.json").read_text())["cells"]
    assert "turn_by_turn" in [note["code"] for note in cell["notes"]]
    assert len({request["image_hash"] for request in _requests(tmp_path / "out")}) == 6


def _requests(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("baseline*/requests.csv")
    with path.open() as handle:
        return list(csv.DictReader(handle))
