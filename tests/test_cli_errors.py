"""Bad input ends with exit code 2 and one line that says what to do, before anything is loaded."""

from pathlib import Path

import pytest

from tests.conftest import to_run

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
    assert to_run(done.out)[:2] == (3, 0), "with baseline and A/A, none skipped"


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
