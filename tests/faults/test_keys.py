"""Files or versions that change between two runs in one folder: what was measured before is not passed off as new."""

import json

from tests.conftest import to_run
from tests.faults.conftest import NOOP, Sweep

ONE = (*NOOP, "workload.num_prompts=1", "workload.repeats=1")


def test_checkpoint_rebuilt_at_the_same_path_is_measured_again(sweep: Sweep) -> None:
    checkpoint = sweep.base / "checkpoint"
    checkpoint.mkdir()
    marker = checkpoint / "random_weights.json"
    marker.write_text('{"seed": 0}')
    arguments = ("-m", *ONE, "model=tiny_qwen_image", "model.embedded=false", f"model.path={checkpoint}", "batch=1,2")
    assert sweep.run(*arguments).code == 0
    again = sweep.run(*arguments)
    assert to_run(again.out) == (0, 2)
    assert again.err == ""
    keys = {row["cell_key"] for row in sweep.rows().values()}
    marker.write_text('{"seed": 1}')
    rebuilt = sweep.run(*arguments)
    assert rebuilt.code == 0, rebuilt.out + rebuilt.err
    assert to_run(rebuilt.out) == (2,)
    (line,) = rebuilt.err.splitlines()
    assert line.startswith(f"in {sweep.folder}, 2 cells")
    new = [row["cell_key"] for row in json.loads((sweep.folder / "report.json").read_text())["cells"]]
    assert len(new) == 2, "the old ones are in no table"
    assert not keys & set(new)
    assert sweep.manifest()["random_weights"]["tiny_qwen_image"] == {"seed": 1}


def test_kept_results_of_another_version_are_said_to_be(sweep: Sweep) -> None:
    arguments = ("-m", *ONE, "batch=1,2")
    assert sweep.run(*arguments).code == 0
    result = sweep.cell_path("baseline b1") / "result.json"
    stored = json.loads(result.read_text())
    assert stored["measured_with"]["sweep"] == sweep.manifest()["versions"]["sweep"]
    result.write_text(json.dumps(stored | {"measured_with": stored["measured_with"] | {"sweep": "0.0.1"}}))
    again = sweep.run(*arguments)
    assert (again.code, to_run(again.out)) == (0, (0, 2)), again.out + again.err
    (line,) = again.err.splitlines()
    assert line.startswith("1 kept cell")
    assert "sweep 0.0.1" in line
    (kept,) = sweep.manifest()["kept_of_other_versions"]
    assert kept["cells"] == ["baseline b1"]
    assert kept["changed"][0][:2] == ["sweep", "0.0.1"]
