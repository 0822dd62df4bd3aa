"""Bad input ends with exit code 2 and one line that says what to do, before anything is loaded."""

from pathlib import Path

import pytest

from sweep.config.model import Model
from sweep.config.run import RunConfig
from tests.conftest import to_run
from tests.fuzz import overrides

BAD = {
    "feature=teacahe": ["'teacahe'", "'teacache'"],
    "workload.stpes=3": ["'workload.stpes'", "'workload.steps'"],
    "batch=0": ["batch=0:"],
    "batch=two": ["batch", "two"],
    "batch=1,2": ["batch", "-m "],
    "workload.steps=-1": ["workload.steps=-1:"],
    "workload.width=100": ["workload.width=100:", " 32", " 96"],
    "workload.width=8192": ["workload.width=8192", "262,144"],
    "workload.prompts=missing.txt": ["workload.prompts=missing.txt:"],
    "workload.prompts=empty.txt": ["workload.prompts=empty.txt:"],
    "feature=[teacache,cache_dit]": ["feature=", "cache_dit", "teacache"],
    "model=tiny_glm_imag": ["'tiny_glm_imag'", "'tiny_glm_image'"],
    "engine.device=tpu": ["engine.device=tpu:", "auto", "cpu", "cuda"],
    "hydra.run.dir=/proc/nowhere": ["/proc/nowhere", "hydra.run.dir="],
    "feature=[a": ["'feature=[a'"],
    "hydra.sweep.dir=mine": ["hydra.sweep.dir=mine", "hydra.run.dir=mine"],
    "model.path=mine": ["model.path=mine", "model=tiny_glm_image"],
}
"""Arguments, and what the line must name: the setting with its value, and what to choose instead."""


IN_A_SWEEP = {
    "feature=teacahe,cfg_parallel": ["'teacahe'", "'teacache'"],
    "batch=1,0": ["batch=0:"],
    "workload.stpes=3": ["'workload.stpes'", "'workload.steps'"],
    "workload.prompts=missing.txt": ["workload.prompts=missing.txt:"],
    "feature=[teacache,cache_dit]": ["feature=", "cache_dit", "teacache"],
    "hydra.sweep.dir=/proc/nowhere": ["/proc/nowhere", "hydra.sweep.dir="],
    "hydra.run.dir=mine": ["hydra.run.dir=mine", "hydra.sweep.dir=mine"],
    "--cfg=job": ["--cfg", "-m"],
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra makes a run's folder before it calls us, also for what is then refused."""
    monkeypatch.chdir(tmp_path)


def check_refused(done, folder: Path, named: list[str]) -> None:
    assert done.code == 2, done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert all(fact in done.err for fact in named), done.err
    assert not list(folder.glob("outputs/**/plan.json"))


@pytest.mark.parametrize("argument", BAD)
def test_bad_input_is_one_line_and_exit_code_2(sweep, tmp_path: Path, argument: str) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    check_refused(sweep(argument), tmp_path, BAD[argument])


@pytest.mark.parametrize("argument", IN_A_SWEEP)
def test_bad_input_to_a_sweep_is_refused_before_any_cell_runs(sweep, tmp_path: Path, argument: str) -> None:
    check_refused(sweep("-m", argument), tmp_path, IN_A_SWEEP[argument])


def test_misspelt_option_of_a_feature_names_the_nearest(sweep) -> None:
    done = sweep("feature=teacache", "feature.teacache.rel_l1_tresh=0.3")
    assert done.code == 2
    assert "'feature.teacache.rel_l1_thresh'" in done.err


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_every_field_of_a_feature_can_be_set_and_none_drops_the_baseline(sweep, plus: str) -> None:
    done = sweep("-m", "feature=teacache", f"{plus}feature.teacache.gate.fail_mean_diff=0.1", "dry_run=true")
    assert done.code == 0, done.err
    assert to_run(done.out)[:2] == (4, 0), "with baseline and A/A, none skipped"


@pytest.mark.parametrize("mode", [(), ("-m",)])
@pytest.mark.parametrize("value", ["0.9", "null"])
def test_every_gate_can_be_set_whether_the_file_of_the_feature_has_it_or_not(sweep, mode, value: str) -> None:
    done = sweep(*mode, "feature=teacache", f"feature.teacache.gate.fail_ssim={value}", "dry_run=true")
    assert done.code == 0, done.err


@pytest.mark.parametrize("mode", [(), ("-m",)])
def test_a_gate_without_its_unit_is_answered_with_its_name(sweep, tmp_path: Path, mode) -> None:
    done = sweep(*mode, "feature=teacache", "feature.teacache.gate.fail_psnr=30")
    check_refused(done, tmp_path, ["feature.teacache.gate.fail_psnr_db=30"])


def test_a_gate_of_a_feature_that_is_not_chosen_is_refused(sweep) -> None:
    assert sweep("feature=cfg_parallel", "feature.teacache.gate.fail_ssim=0.9").code == 2
    assert sweep("-m", "feature=cfg_parallel", "feature.teacache.gate.fail_ssim=0.9").code == 2


def test_missing_checkpoint_is_told_where_there_is_no_gpu_either(sweep, tmp_path: Path) -> None:
    real = ("model=qwen_image", "engine.device=cuda", "model.path=nowhere")
    check_refused(sweep("-m", *real), tmp_path, ["model.path=nowhere:"])


def test_option_of_a_feature_out_of_range(sweep) -> None:
    done = sweep("feature=teacache", "feature.teacache.rel_l1_thresh=-1")
    assert done.code == 2
    assert "feature.teacache.rel_l1_thresh=-1:" in done.err
    assert "0 to 10" in done.err


def test_option_of_a_feature_that_is_not_swept(sweep) -> None:
    done = sweep("-m", "feature=cfg_parallel", "feature.teacache.rel_l1_thresh=0.3")
    assert done.code == 2
    assert "feature.teacache.rel_l1_thresh=0.3:" in done.err


def refused(arguments: list[str], *named: str) -> None:
    """The same, in this process, without starting another."""
    ended = overrides.run([*overrides.FIXED, *arguments])
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended
    assert all(fact in ended.err for fact in named), ended.err


UNKNOWN = {
    "workload.step=3,5": ("'workload.step'", "'workload.steps'"),
    "engine.wamup=0": ("'engine.wamup'", "'engine.warmup'"),
    "features=teacache": ("'features'", "'feature'"),
    "model.repos=x": ("'model.repos'", "'model.repo'"),
    "batc=3": ("'batc'", "'batch'"),
}


@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize("argument", UNKNOWN)
def test_unknown_field_is_refused_with_the_nearest_however_it_is_added(argument: str, plus: str) -> None:
    single = argument.partition(",")[0]
    refused([f"{plus}{single}"], *UNKNOWN[argument])
    refused(["-m", f"{plus}{argument}"], *UNKNOWN[argument])


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "+study=batch", "model=tiny_qwen_image"],
        ["engine=vllm_omni", "model=glm_image", "+engine.args.enforce_eager=true"],
        ["feature=teacache", "+feature.teacache.my_option=0.3"],
        ["++batch=2"],
        ["+hydra.job.env_set.X=1"],
    ],
)
def test_what_is_added_rightly_is_taken(arguments: list[str]) -> None:
    ended = overrides.run([*overrides.FIXED, *arguments])
    assert ended.code == 0, ended.err


NUMBERS = (
    *("workload.guidance_scale", "precision", "hardware.price_per_gpu_hour", "engine.load_timeout_s"),
    *("engine.warmup_timeout_s", "engine.request_timeout_s", "engine.collective_timeout_s", "model.memory_gb"),
    *("feature.teacache.gate.warn_mean_diff", "feature.teacache.rel_l1_thresh"),
)


@pytest.mark.parametrize(
    ("field", "number"),
    [*((field, "nan") for field in NUMBERS), *((NUMBERS[0], number) for number in ("inf", "-inf", "1e400"))],
)
def test_numbers_that_are_not_finite_are_refused(field: str, number: str) -> None:
    """In every field, and however one is written."""
    refused(["feature=teacache", f"{field}={number}"], f"{field}={'inf' if number == '1e400' else number}:")


def test_numbers_of_engine_arguments_are_finite() -> None:
    refused(["engine=vllm_omni", "model=glm_image", "+engine.args.a={b:[1,nan]}"], "engine.args.a.b=nan:")


ODD = {
    "feature=null": ["feature=null:", "teacache"],
    "model=null": ["model=null:", "tiny_glm_image"],
    "engine=1": ["engine=1:", "diffusers"],
    "parallel=[x2]": ["parallel=[x2]:", "x4"],
    "model=qwen_image model.ar.heads=8": ["model.ar.heads=8:", "model.ar is empty"],
    "feature=[[teacache]]": ["feature=[[teacache]]:", "feature=[a,b]"],
    "batch=glob(*)": ["batch=glob(*):", "batch=1,2"],
    "+study=null": ["+study=null:", "quick"],
    "=3": ["'=3'", "batch=2"],
    "group=0": ["group=0:"],
    "+seed=1": ["+seed:", "drop the +"],
    "--dry-run": ["'--dry-run'", "dry_run="],
    "--multirn": ["'--multirn'", "'--multirun'"],
    "hydra.launcher.n_jobs=2": ["hydra.launcher.n_jobs", "hydra/launcher=joblib"],
    "workload.prompt=一只猫": ["""'workload.prompt="一只猫"'"""],
    "workload.prompt=It's": ["workload.prompts=FILE"],
    "workload.prompt=${x}": ["'x'"],
    "workload.num_prompts=1000000000": ["workload.num_prompts=1000000000", "1,000,000"],
    "batch=1000000000": ["batch=1000000000", "1,000,000"],
    "aa=1000000000": ["aa=1000000000:", "1000"],
    "repeat=1000000000": ["repeat=1000000000:", "1000"],
    "seed=99999999999999999999": ["seed=99999999999999999999:"],
    "feature.teacache=null": ["feature.teacache="],
    "feature.teacache.limits={rel_l1_thresh:[1]}": ["feature.teacache.limits.rel_l1_thresh=[1]:"],
}


@pytest.mark.parametrize("sweeps", [False, True], ids=["single", "sweep"])
@pytest.mark.parametrize("argument", ODD)
def test_odd_overrides_are_one_line(argument: str, sweeps: bool) -> None:
    refused(
        [*["-m"] * sweeps, *["feature=teacache"] * argument.startswith("feature."), *argument.split()], *ODD[argument]
    )


@pytest.mark.parametrize("axis", ["model=glob(zzz*)", "feature=glob(zzz*)", "seed=range(5,1)"])
def test_an_axis_without_values_is_refused(axis: str) -> None:
    refused(["-m", axis], f"{axis}:")


def test_an_engine_argument_that_is_new_is_told_to_be_added() -> None:
    refused(["engine=vllm_omni", "model=glm_image", "engine.args.a=1"], "+engine.args.a=")


def test_a_flag_with_an_optional_value_takes_no_override() -> None:
    ended = overrides.run([*overrides.FIXED, "--info"])
    assert "unrecognized" not in ended.err
    assert ended.code == 0, ended.err


def test_a_comma_in_a_prompt_is_told_how_to_quote() -> None:
    refused(["workload.prompt=A cat, a dog"], """'workload.prompt="A cat, a dog"'""", "-m")


def test_a_huge_combine_ends() -> None:
    assert overrides.run([*overrides.FIXED, "-m", "feature=teacache,tp", "combine=1000000000"]).code == 0


@pytest.mark.parametrize("place", range(3))
def test_flags_and_overrides_stand_in_any_order(place: int) -> None:
    arguments = ["feature=teacache,tp", "batch=1"]
    arguments.insert(place, "-m")
    ended = overrides.run([*arguments, *overrides.FIXED])
    assert (ended.code, to_run(ended.out)[0]) == (0, 3), ended.err


def test_home_folder_is_meant_by_a_tilde(sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for how in (["hydra.run.dir=~/one"], ["-m", "hydra.sweep.dir='~/two'"]):
        done = sweep("engine=noop", "plots=false", "workload.num_prompts=1", *how)
        assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"one", "two"}
    assert not (tmp_path / "~").exists()


def test_a_model_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Model(name="m", family="f", path="~/mine").path == str(tmp_path / "mine")
    assert RunConfig(clip="~/clip").clip == str(tmp_path / "clip")
    refused(["workload.prompts=~/none.txt"], f"workload.prompts={tmp_path}/none.txt:")


def test_python_without_asserts_reads_the_same_overrides(sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    done = sweep("-m", "seed=range(2)", "batch=choice(1,2)", *overrides.FIXED)
    assert (done.code, to_run(done.out)[0]) == (0, 4), done.err
