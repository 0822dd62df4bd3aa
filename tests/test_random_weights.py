"""Every report of random weights says so, also where the checkpoint is given by its path and has since been removed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Finished

NOTE = "Random weights"


def test_report_of_a_random_checkpoint_says_so(tmp_path: Path, sweep: Callable[..., Finished]) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "random_weights.json").write_text(json.dumps({"note": "made here", "seed": 3}))
    given = ("engine=noop", "model=qwen_image", f"model.path={checkpoint}", "hydra.run.dir=out", "plots=false")
    done = sweep(*given)
    assert done.code == 0, done.err
    assert NOTE in done.out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["random_weights"] == {"qwen_image": {"note": "made here", "seed": 3}}
    shutil.rmtree(checkpoint)
    assert NOTE in sweep("out", module="sweep.report").out
    assert json.loads((tmp_path / "out" / "report.json").read_text())["sweep"]["random_weights"] is True


def test_report_of_trained_weights_does_not(tmp_path: Path, sweep: Callable[..., Finished]) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    done = sweep("engine=noop", "model=qwen_image", f"model.path={checkpoint}", "hydra.run.dir=out", "plots=false")
    assert done.code == 0, done.err
    assert NOTE not in done.out
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["random_weights"] == {}
