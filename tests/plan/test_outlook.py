"""What a dry run says about time, cost and memory before anything runs, through the command line; and skip_oom."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.places import machine_conf
from tests.conftest import Finished, to_run

Sweep = Callable[..., Finished]

MEASURED = """
name: this_machine
kind: cpu
peak_tflops: {{float32: {peak}, bfloat16: {peak}}}
bandwidth_gb_s: 30
{memory}
price_per_gpu_hour: 9
all_reduce: [{{ranks: 2, bytes: 4096, us: 300}}, {{ranks: 2, bytes: 16777216, us: 13000}}]
"""

QWEN = ("model=tiny_qwen_image", "workload.num_prompts=3", "workload.repeats=2", "workload.steps=3", "plots=false")
TWO = (*QWEN, "feature=teacache,cfg_parallel", "batch=1,2", "aa=1")
HERE = "hardware=this_machine"


@pytest.fixture(autouse=True)
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have this machine measured, with these figures; it was not before."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))

    def measured(peak: float = 0.1, memory: str = "memory_gb: 100") -> None:
        file = machine_conf() / "hardware" / "this_machine.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(MEASURED.format(peak=peak, memory=memory))

    return measured


def dry(sweep: Sweep, *arguments: str) -> Finished:
    done = sweep("-m", *arguments, "dry_run=true")
    assert done.code == 0, done.err
    return done


def expected(sweep: Sweep, *arguments: str) -> tuple[dict, dict[str, dict]]:
    """What dry_run=json expects of the whole, and of each cell by its label."""
    done = sweep("-m", *arguments, "dry_run=json")
    assert done.code == 0, done.err
    values = json.loads(done.out)
    labels = {cell["key"]: cell["label"] for cell in values["cells"]}
    return values["expected"], {labels[key]: one for key, one in values["expected"]["cells"].items()}


def skips(sweep: Sweep, *arguments: str) -> dict[str, dict]:
    """Cells that the plan skips, by label."""
    done = sweep("-m", *arguments, "dry_run=json")
    assert done.code == 0, done.err
    return {cell["label"]: cell["skip"] for cell in json.loads(done.out)["cells"] if cell["skip"]}


def time_line(done: Finished) -> str:
    return next(line for line in done.out.splitlines() if line.startswith("expected time"))


def test_predicted_times_are_those_of_sweep_predict_and_add_up(sweep: Sweep, measure: Callable[..., None]) -> None:
    measure()
    whole, cells = expected(sweep, *TWO, HERE)
    predicted = sweep(*TWO[:-1], HERE, "--json", module="sweep.predict")
    assert predicted.code == 0, predicted.err
    latency = {one["cell"]: one["latency_s"] for one in json.loads(predicted.out)["cells"]}
    for batch, rounds in {1: 3, 2: 2}.items():
        base, count = latency[f"baseline b{batch}"], 1 + rounds * 2  # the warm-up, then rounds × repeats
        assert cells[f"baseline b{batch}"]["seconds"] == pytest.approx(base * count)
        for name in ("teacache", "cfg_parallel"):
            both = base + latency[f"{name} b{batch}"]
            assert cells[f"{name} b{batch}"]["seconds"] == pytest.approx(both * count), "the baseline is interleaved"
    assert whole["cells_known"] == whole["cells_to_run"] == 7
    starts_s = whole["seconds"] - sum(one["seconds"] for one in cells.values())
    assert 1 < starts_s < 60, "four engine starts on a CPU"
    assert whole["predicted_seconds"] == pytest.approx(whole["seconds"])
    assert whole["cost"] is None, "a price is a GPU's, as in cost_per_image"
    assert whole["grade"] == "assumed"


def test_two_engines_at_once_take_less_time_and_more_devices(sweep: Sweep, measure: Callable[..., None]) -> None:
    measure()
    asked = (*QWEN, "feature=teacache", "aa=0", HERE, "hardware.gpus=4")
    alone, cells = expected(sweep, *asked)
    both, _ = expected(sweep, *asked, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert max(one["seconds"] for one in cells.values()) < both["seconds"] < alone["seconds"]
    assert (alone["devices"], both["devices"]) == (1, 2)


def test_earlier_results_win_and_the_line_says_how_much_is_predicted(
    sweep: Sweep, measure: Callable[..., None]
) -> None:
    """What is still predicted is scaled to the cell that was measured: figures so slow can be wrong for both alike."""
    measure(peak=1e-6)
    _, before = expected(sweep, *QWEN, "batch=1,2", HERE)
    assert all(one["source"] == "predicted" and one["seconds"] > 1000 for one in before.values())
    ran = sweep("-m", *QWEN, "hydra.sweep.dir=outputs/one")
    assert ran.code == 0, ran.err
    same = dry(sweep, *QWEN)
    assert time_line(same).endswith("from earlier results here"), "nothing of it is predicted"
    whole, after = expected(sweep, *QWEN, "batch=1,2", HERE)
    assert {label: one["source"] for label, one in after.items()} == {
        "baseline b1": "earlier",
        "baseline b2": "predicted",
    }
    scale = after["baseline b1"]["seconds"] / before["baseline b1"]["seconds"]
    assert scale < 0.5
    assert after["baseline b2"]["seconds"] == pytest.approx(scale * before["baseline b2"]["seconds"])
    assert whole["predicted_seconds"] == pytest.approx(after["baseline b2"]["seconds"])
    line = time_line(dry(sweep, *QWEN, "batch=1,2", HERE))
    assert re.search(r"about .+, of which .+ predicted \(~, assumed; scaled to what was measured here\)$", line)


def test_without_a_device_that_is_known_nothing_is_predicted(sweep: Sweep) -> None:
    done = dry(sweep, *TWO)
    assert time_line(done) == "expected time: unknown, because none of these cells was measured here before"
    assert "predicted" not in done.out
    whole, cells = expected(sweep, *TWO)
    assert (whole["seconds"], whole["cost"], cells) == (None, None, {})


def test_hardware_that_is_elsewhere_has_a_line_of_its_own(sweep: Sweep, measure: Callable[..., None]) -> None:
    """What runs here takes what it takes here; an H200's price is not that of this machine."""
    measure()
    done = dry(sweep, *TWO, "hardware=h200")
    assert "predicted" in time_line(done)
    assert "$" not in time_line(done)
    (line,) = [line for line in done.out.splitlines() if line.startswith("on h200, which is not here: about ")]
    assert "predicted (assumed)" in line
    assert "for 2 GPUs at $4.59 a GPU hour (h200)" in line


def test_a_sweep_that_needs_gpus_is_priced_before_they_are_rented(sweep: Sweep) -> None:
    """On a machine without: its cells are skipped here, and its baselines and A/A runs are counted there."""
    asked = ("engine=vllm_omni", "model=qwen_image", "workload=image_1024", "feature=teacache,cfg_parallel")
    whole, _ = expected(sweep, *asked, "hardware=h200")
    there = whole["elsewhere"]
    assert whole["cells_to_run"] == 0
    assert (there["cells_to_run"], there["cells_known"], there["devices"]) == (5, 5, 2)
    assert there["grade"].startswith("fitted")
    assert there["cost"] == pytest.approx(2 * 4.59 * there["seconds"] / 3600)
    assert 60 < there["seconds"] < 3600
    assert expected(sweep, *asked)[0]["elsewhere"] is None, "nothing was chosen"
    single = sweep(*asked[:3], "feature=cfg_parallel", "hardware=h200", "dry_run=json")
    assert json.loads(single.out)["expected"]["elsewhere"]["cells_to_run"] == 1, "a single run has no baseline"


def test_what_does_not_fit_is_noted_and_with_skip_oom_skipped(sweep: Sweep, measure: Callable[..., None]) -> None:
    """Two ranks hold more than one, so there is a size that the baseline fits into and cfg_parallel does not."""
    measure()
    _, cells = expected(sweep, *TWO)
    size = {label: one["memory_gb"] for label, one in cells.items()}
    assert size["baseline b2"] < size["cfg_parallel b1"]
    limit = (size["baseline b2"] + size["cfg_parallel b1"]) / 2
    measure(memory=f"memory_gb: {limit}")

    noted = dry(sweep, *TWO)
    assert to_run(noted.out)[:2] == (7, 0)
    assert len(noted.err.splitlines()) == 1
    for part in ("cfg_parallel b1 and 1 more", "will probably not fit", "skip_oom=true"):
        assert part in noted.err
    left = skips(sweep, *TWO, "skip_oom=true")
    assert {label: one["code"] for label, one in left.items()} == {
        "cfg_parallel b1": "predicted_out_of_memory",
        "cfg_parallel b2": "predicted_out_of_memory",
    }
    text = left["cfg_parallel b1"]["text"]
    needs, has = map(float, re.findall(r"needs ([\d.]+) GB by prediction, this_machine has ([\d.]+)", text)[0])
    assert needs == pytest.approx(size["cfg_parallel b1"], rel=0.01)
    assert has == pytest.approx(limit, rel=0.01)
    assert "largest part: framework" in text

    measure(memory=f"memory_gb: {(size['baseline b1'] + size['baseline b2']) / 2}")
    first = skips(sweep, *TWO, "skip_oom=true")
    assert {"baseline b2", "teacache b2"} < first.keys()
    assert not first.keys() & {"baseline b1", "baseline b1 A/A", "teacache b1"}


def test_nothing_is_skipped_where_memory_is_unknown(sweep: Sweep, measure: Callable[..., None]) -> None:
    """Neither without figures, nor without that of memory, nor by the memory of hardware that is elsewhere."""
    assert skips(sweep, *TWO, "skip_oom=true") == {}
    assert skips(sweep, *TWO, "skip_oom=true", "hardware=h200", "hardware.usable_gb=0.1") == {}
    measure(memory="")
    said = dry(sweep, *TWO, "skip_oom=true")
    assert to_run(said.out)[:2] == (7, 0)
    assert "skip_oom=true skips nothing" in said.err


def test_a_sweep_of_which_nothing_fits_is_refused(sweep: Sweep, measure: Callable[..., None], tmp_path: Path) -> None:
    measure(memory="memory_gb: 0.001")
    done = sweep("-m", *TWO, "skip_oom=true", "hydra.sweep.dir=outputs/none")
    assert (done.code, done.out) == (2, "")
    assert "nothing can run" in done.err
    assert not (tmp_path / "outputs").exists()


def test_a_skipped_cell_is_not_loaded(sweep: Sweep, measure: Callable[..., None], tmp_path: Path) -> None:
    measure(memory="memory_gb: 2")
    asked = (*QWEN[:1], "workload.num_prompts=1", "workload.repeats=1", "workload.steps=2", "plots=false", "aa=0")
    done = sweep("-m", *asked, "feature=cfg_parallel", "skip_oom=true", "hydra.sweep.dir=out")
    assert done.code == 0, done.out + done.err
    events = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "engine_start" for event in events) == 1, "the baseline's"
    assert "SKIP  cfg_parallel b1: needs" in done.out


def test_a_budget_shows_in_the_plan(sweep: Sweep, measure: Callable[..., None]) -> None:
    measure(peak=1e-6)
    none = dry(sweep, *TWO, "budget=1s")
    assert "budget=1s: 0 of 7 cells are expected to fit; left out: baseline b1" in none.out
    all_of_it = dry(sweep, *TWO, "budget=1000h")
    assert "budget=1000h: all of it is expected to fit" in all_of_it.out
    _, cells = expected(sweep, *TWO, "budget=1000h")
    assert all(one["fits_budget"] for one in cells.values())
    rows = [line for line in all_of_it.out.splitlines() if line.startswith("│")]
    names = [line.split("│")[2].split()[0] for line in rows]
    assert names == ["baseline"] * 3 + ["teacache"] * 2 + ["cfg_parallel"] * 2, "A/A, then what may gain most"
