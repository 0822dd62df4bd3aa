"""The promises of a sweep, through the real command line on the embedded models; faults are in tests/faults."""

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiling.timeline.lanes import LEFT_OUT, NEARLY
from sweep import __version__
from tests import conftest, recompute
from tests.conftest import Finished, environment, sweep_command, to_run

SMALL = ["workload.num_prompts=1", "workload.repeats=1", "workload.steps=4", "plots=false"]
QWEN = "model=tiny_qwen_image"  # without an AR stage, so that a request takes a tenth of the time


def summary(folder: Path) -> dict[str, dict[str, str]]:
    """summary.csv by cell label."""
    with (folder / "summary.csv").open() as handle:
        return {row["cell"]: row for row in csv.DictReader(handle)}


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """One real sweep that several tests look at, in a new interpreter."""
    base = tmp_path_factory.mktemp("finished")
    asked = (QWEN, "feature=cfg_parallel,teacache", "batch=1,2", "aa=1", *SMALL[:3])
    command = sweep_command("-m", *asked, "hydra.sweep.dir=sweep")
    done = subprocess.run(command, cwd=base, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return base / "sweep"


@pytest.fixture(scope="module")
def autoregressive(tmp_path_factory) -> Path:
    """A real sweep with an AR stage, which takes most of the time: no more cells than needed."""
    base = tmp_path_factory.mktemp("autoregressive")
    done = conftest.finished("sweep", ["-m", "feature=cfg_parallel", "aa=0", *SMALL, "hydra.sweep.dir=sweep"], base)
    assert done.code == 0, done.out + done.err
    return base / "sweep"


def test_cells_baselines_and_aa_each_engine_started_once(finished: Path) -> None:
    rows = summary(finished)
    expected = {f"{f} b{b}" for f in ("baseline", "cfg_parallel", "teacache") for b in (1, 2)} | {"baseline b1 A/A"}
    assert set(rows) == expected
    assert manifest(finished)["engine_starts"] == 4
    for label, row in rows.items():
        assert row["status"] in ("PASS", "WARN"), (label, row["reason"])
        for column in ("latency_mean_s", "images_per_s", "denoise_step_ms", "speedup", "evidence"):
            assert row[column], (label, column)
        assert row["bottleneck"] == "denoise_step"


def test_an_ar_stage_has_token_times(autoregressive: Path) -> None:
    rows = summary(autoregressive)
    assert set(rows) == {"baseline b1", "cfg_parallel b1"}
    for label, row in rows.items():
        assert row["status"] in ("PASS", "WARN"), (label, row["reason"])
        for column in ("ttft_mean_s", "tpot_mean_s", "denoise_step_ms", "speedup", "evidence"):
            assert row[column], (label, column)
        assert row["bottleneck"] in ("ar_decode", "denoise_step")


@pytest.mark.parametrize("name", ["finished", "autoregressive"])
def test_every_number_is_what_the_files_of_its_cell_say(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    wrong, compared = recompute.differences(folder)
    assert not wrong, "\n".join(wrong)
    assert compared > 40 * len(summary(folder)), "phases, telemetry, images and any AR tokens among them"


def test_processor_use_is_of_the_cells_own_turns(finished: Path) -> None:
    """An engine idles while the interleaved baseline takes its turn, which lasts about as long as its own."""
    for label in ("teacache b1", "teacache b2"):
        row = summary(finished)[label]
        (folder,) = (path.parent for path in finished.glob("*/result.json") if row["cell_key"][:8] in path.parent.name)
        with (folder / "telemetry.csv").open() as handle:
            samples = [(float(one["time_s"]), float(one["cpu_pct"])) for one in csv.DictReader(handle)]
        busy_s = sum((now - before) * pct / 100 for (before, _), (now, pct) in itertools.pairwise(samples))
        assert float(row["cpu_pct"]) > 1.25 * 100 * busy_s / (samples[-1][0] - samples[0][0]), label


@pytest.mark.parametrize("name", ["finished", "autoregressive"])
def test_cfg_parallel_engages_and_is_bit_identical(name: str, request: pytest.FixtureRequest) -> None:
    row = summary(request.getfixturevalue(name))["cfg_parallel b1"]
    assert row["evidence"].startswith("2 ranks; 1 DiT forwards/rank/step")
    assert (row["mean_diff"], row["psnr_db"]) == ("0.0", "inf")


def test_teacache_skips_blocks_and_changes_pixels_a_little(finished: Path) -> None:
    row = summary(finished)["teacache b1"]
    assert int(row["evidence"].split("; ")[2].split(" of ")[0]) > 0
    assert 0 < float(row["mean_diff"]) < 0.1


def test_phases_add_up_to_the_request(autoregressive: Path) -> None:
    row = summary(autoregressive)["baseline b1"]
    parts = sum(float(row[f"{p}_ms"]) for p in ("text_encode", "ar_prefill", "ar_decode", "denoise_step", "vae_decode"))
    assert float(row["other_share"]) <= 0.10
    assert parts + float(row["other_ms"]) == pytest.approx(float(row["request_ms"]))


def test_report_and_plots_are_rebuilt_from_stored_results(finished: Path, sweep) -> None:
    before = (finished / "summary.csv").read_text()
    for name in ("summary.csv", "report.html", "plots/speedup.png"):
        (finished / name).unlink()
    done = sweep(str(finished), module="sweep.report")
    assert done.code == 0, done.err
    assert (finished / "summary.csv").read_text() == before
    assert (finished / "report.html").stat().st_size > 10_000
    assert (finished / "report.html").read_text().count("Timeline of the first batch") == 7
    assert (finished / "plots" / "speedup.png").stat().st_size > 5_000
    assert (finished / "plots" / "speedup.svg").exists()


def test_load_gives_the_same_as_data_frames(autoregressive: Path) -> None:
    import pandas

    from sweep.frames import load

    tables = load(autoregressive)
    stored = pandas.read_csv(autoregressive / "summary.csv")
    assert list(tables.summary["cell"]) == list(stored["cell"])
    assert tables.summary["latency_mean_s"].tolist() == pytest.approx(stored["latency_mean_s"].tolist())
    one = tables.phases[(tables.phases.cell == "baseline b1") & (tables.phases.request_id == "r000.0")]
    counts = one.phase.value_counts()
    tokens = int(tables.requests[tables.requests.cell == "baseline b1"].output_tokens.iloc[0])
    assert counts["ar_prefill"] == 1
    assert counts["ar_decode"] == tokens - 1
    assert counts["denoise_step"] == 4
    assert counts["dit_forward"] == 8
    assert counts["vae_decode"] == 1
    assert set(tables.phases[tables.phases.cell == "cfg_parallel b1"]["rank"]) == {0, 1}


def test_a_measured_cell_becomes_a_timeline(autoregressive: Path, tmp_path: Path, sweep) -> None:
    """Its telemetry lies where the processor was busy: at the requests, also when a baseline's came before."""
    (cell,) = autoregressive.glob("cfg_parallel-b1-*")
    stored = json.loads((cell / "result.json").read_text())
    assert stored["first_request_s"] > stored["batches"][0]["baseline_s"], "the baseline generated first"
    done = sweep("timeline", str(cell), "--from", "0", "--out", str(tmp_path / "made"), module="profiling")
    assert done.code == 0, done.err
    assert "bottleneck: " in done.out
    assert not {NEARLY, LEFT_OUT} & set(done.out.splitlines()), "nothing to say of its clock"
    events = json.loads((tmp_path / "made" / "timeline.json").read_text())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"rank 0", "rank 1", "telemetry"}
    assert {"denoise_step", "dit_forward"} <= {e["name"] for e in events if e["ph"] == "X" and e["pid"] == 2}
    requests = [e for e in events if e["name"] == "request" and e["pid"] == 1]
    assert len(requests) == 1
    end_us = max(e["ts"] + e["dur"] for e in requests)
    memory = [event for event in events if event["name"] == "memory of the processes"]
    assert memory
    assert all(0 <= event["ts"] <= end_us + 1000 for event in memory)
    assert (tmp_path / "made" / "timeline.png").stat().st_size > 10_000


def test_rerun_in_the_same_folder_runs_nothing_again(finished: Path, sweep) -> None:
    asked = (QWEN, "batch=2,1", "feature=teacache,cfg_parallel", "aa=1", *SMALL)
    done = sweep("-m", *asked, f"hydra.sweep.dir={finished}")
    assert done.code == 0, done.out + done.err
    assert to_run(done.out) == (0, 7)
    assert manifest(finished)["engine_starts"] == 0


def test_joblib_gives_the_same_cells_and_images(finished: Path, tmp_path: Path) -> None:
    """Those of one batch size: each worker imports and loads for itself."""
    folder = tmp_path / "joblib"
    arguments = [
        "-m",
        QWEN,
        "batch=1",
        "feature=teacache,cfg_parallel",
        "aa=1",
        *SMALL,
        "interleave=false",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    ]
    command = sweep_command(*arguments, f"hydra.sweep.dir={folder}")
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resource_tracker" not in done.stderr, done.stderr
    names = sorted(p.parent.name for p in finished.glob("*-b1-*/result.json"))
    assert len(names) == 4
    assert sorted(p.parent.name for p in folder.glob("*/result.json")) == names
    for name in names:
        images = [
            [r["image_hash"] for r in json.loads((f / name / "result.json").read_text())["requests"]]
            for f in (finished, folder)
        ]
        assert images[0] == images[1], name


def test_dry_run_shows_the_plan_and_runs_nothing(sweep, tmp_path: Path) -> None:
    done = sweep("-m", "feature=cfg_parallel,teacache,cache_dit", "combine=2", "dry_run=true")
    assert done.code == 0, done.err
    assert "SKIP  cache_dit+teacache b1: " in done.out
    assert to_run(done.out) == (8, 1, 8), "cells, skipped, engine starts"
    assert not (tmp_path / "outputs").exists()


def test_combinations_of_three_by_name_and_by_number(sweep) -> None:
    by_name = sweep("-m", "feature=[cache_dit,scm,taylorseer]", "aa=0", "dry_run=json")
    assert by_name.code == 0, by_name.err
    assert [cell["label"] for cell in json.loads(by_name.out)["cells"]] == [
        "baseline b1",
        "cache_dit+scm+taylorseer b1",
    ]
    by_number = sweep("-m", "feature=cache_dit,scm,taylorseer", "combine=3", "aa=0", "dry_run=true")
    assert to_run(by_number.out) == (5, 3, 5), "of 7 sets, 3 are without cache_dit"
    assert "SKIP  scm b1, scm+taylorseer b1: scm needs cache_dit" in by_number.out


PROMPTS = {"empty": "", "10000": "long " * 2000, "emoji-rtl": "🐉🍜 مرحبا بالعالم שלום"}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_any_prompt_is_taken(sweep, tmp_path: Path, prompt: str) -> None:
    done = sweep(f"workload.prompt='{prompt}'", "engine=noop", "plots=false", "hydra.run.dir=one")
    assert done.code == 0, done.out + done.err
    (result,) = tmp_path.glob("one/*/result.json")
    assert json.loads(result.read_text())["prompts"] == [prompt]


def test_any_prompt_runs(sweep, tmp_path: Path) -> None:
    """Each is the first of a batch, and they differ, so each has an image of its own."""
    lines = [json.dumps({"prompt": prompt}) for prompt in PROMPTS.values()]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    small = ("workload.num_prompts=3", "workload.steps=2", "workload.repeats=1", "plots=false")
    done = sweep(QWEN, "workload.prompts=prompts.jsonl", *small, "hydra.run.dir=one")
    assert done.code == 0, done.out + done.err
    assert summary(tmp_path / "one")["baseline b1"]["status"] == "PASS"
    (result,) = tmp_path.glob("one/*/result.json")
    stored = json.loads(result.read_text())
    assert stored["prompts"] == list(PROMPTS.values())
    assert len({request["image_hash"] for request in stored["requests"]}) == 3


def test_real_model_without_a_gpu_is_skipped_with_what_it_needs(sweep, tmp_path: Path) -> None:
    done = sweep("model=qwen_image", "engine.device=cuda", "hydra.run.dir=one", "plots=false", "allow_empty=true")
    if "model.path=DIR" in done.err:
        pytest.skip("this machine has a GPU")
    assert done.code == 0, done.err
    (row,) = summary(tmp_path / "one").values()
    assert (row["status"], row["reason_code"]) == ("SKIP", "no_gpu")
    assert "58 GB" in row["reason"]
    assert "engine.device=cpu" in row["reason"]


def test_version_is_ours(tmp_path: Path) -> None:
    done = subprocess.run(sweep_command("--version"), cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"sweep {__version__} (Hydra 1.")


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = "import sys, sweep.cli; print([m for m in ('torch', 'pandas', 'matplotlib', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.fixture(scope="module")
def on_qwen(tmp_path_factory) -> tuple[Path, Finished]:
    """A sweep of Qwen-Image: features that need two ranks, and two of the user's own."""
    base = tmp_path_factory.mktemp("qwen")
    conf = base / "conf" / "feature"
    conf.mkdir(parents=True)
    shipped = (Path(__file__).parents[1] / "conf" / "feature" / "vae_slicing.yaml").read_text()
    (conf / "my_slicing.yaml").write_text(shipped.replace("vae_slicing:", "my_slicing:"))
    silent = shipped.replace("vae_slicing:", "silent:").replace("vae.use_slicing: true", "vae.use_other_slicing: true")
    (conf / "silent.yaml").write_text(silent)
    features = "feature=ulysses,tp,my_slicing,silent"
    arguments = [QWEN, features, "batch=2", "aa=0", "interleave=false", *SMALL, "workload.steps=2"]
    done = conftest.finished("sweep", ["-m", "--config-dir", "conf", *arguments, "hydra.sweep.dir=sweep"], base)
    return base / "sweep", done


def test_feature_added_by_one_file_runs_and_is_judged(on_qwen) -> None:
    """The worked example of CONTRIBUTING, and the same with a setting that nothing reads."""
    folder, done = on_qwen
    rows = summary(folder)
    assert rows["my_slicing b2"]["status"] in ("PASS", "WARN"), done.out
    assert rows["silent b2"]["status"] == "FAIL"
    assert rows["silent b2"]["reason_code"] == "not_engaged"
    assert done.code == 1


def test_sequence_and_tensor_parallel_on_tiny_qwen_image(on_qwen) -> None:
    folder, done = on_qwen
    rows = summary(folder)
    assert {rows[f"{name} b2"]["status"] for name in ("ulysses", "tp")} <= {"PASS", "WARN"}, done.out
    assert "8 image tokens a block" in rows["ulysses b2"]["evidence"], "half of 16"
    assert float(rows["ulysses b2"]["mean_diff"]) < 1e-3
    assert "3.28 M DiT parameters a rank" in rows["tp b2"]["evidence"], "of 4.86 M"


def test_cells_of_another_command_in_the_folder_are_named(sweep, tmp_path: Path) -> None:
    common = ("-m", "engine=noop", "plots=false", "aa=0", "hydra.sweep.dir=mine")
    assert sweep(*common, "batch=1").err == ""
    done = sweep(*common, "batch=2")
    (line,) = done.err.splitlines()
    assert "mine" in line
    assert "1" in line
    assert set(summary(tmp_path / "mine")) == {"baseline b1", "baseline b2"}
    assert sweep(*common, "batch=1,2").err == ""


def test_how_ar_tokens_are_drawn_can_be_swept_and_evidence_names_what_was_read_back(sweep, tmp_path: Path) -> None:
    drawn = ("model.stages.ar.temperature=0,2", "model.stages.ar.top_k=3")
    done = sweep("-m", *drawn, "model=tiny_glm_image_random", "aa=0", *SMALL, "hydra.sweep.dir=sweep")
    assert done.code == 1, done.out + done.err
    assert "Silently did nothing" not in done.out, "which is said of features"
    rows = summary(tmp_path / "sweep")
    likeliest, hot = rows["baseline b1 ar.temperature=0"], rows["baseline b1 ar.temperature=2"]
    assert likeliest["evidence"].endswith("ar.temperature 0.0; ar.top_k 1")
    assert hot["evidence"].endswith("ar.temperature 2.0; ar.top_k 3")
    assert (hot["status"], likeliest["status"], likeliest["reason_code"]) == ("PASS", "FAIL", "stage_not_engaged")
    assert "model.stages.ar.top_k=3 did not engage: read back was 1" in likeliest["reason"], (
        "there is no choice of three"
    )
    pictures = [next((tmp_path / "sweep").glob(f"baseline-b1-ar.temperature={t}-*/images/*.png")) for t in "02"]
    assert len({path.read_bytes() for path in pictures}) == 2
