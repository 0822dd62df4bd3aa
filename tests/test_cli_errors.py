"""Bad input ends with exit code 2 and one line that says what to do, before anything is loaded."""

from pathlib import Path

import pytest

BAD = {
    "feature=teacahe": "did you mean 'teacache'?",
    "workload.stpes=3": "did you mean 'workload.steps'?",
    "batch=0": "batch=0: must be at least 1",
    "batch=two": "batch",
    "batch=1,2": "add -m",
    "workload.steps=-1": "workload.steps=-1: must be at least 1",
    "workload.width=100": "needs a multiple of 32; the nearest is 96",
    "workload.width=8192": "pixels",
    "workload.prompts=missing.txt": "missing.txt",
    "workload.prompts=empty.txt": "empty",
    "feature=[teacache,cache_dit]": "cache_dit conflicts with teacache",
    "model=tiny_glm_imag": "did you mean 'tiny_glm_image'?",
    "engine.device=tpu": "choose auto, cpu or cuda",
    "hydra.run.dir=/proc/nowhere": "cannot be written",
    "feature=[a": "no valid override",
    "hydra.sweep.dir=mine": "a single run goes to hydra.run.dir=mine",
    "model.path=mine": "model=tiny_glm_image is built from a seed and reads no checkpoint",
}


IN_A_SWEEP = {
    "feature=teacahe,cfg_parallel": "did you mean 'teacache'?",
    "batch=1,0": "batch=0: must be at least 1",
    "workload.stpes=3": "did you mean 'workload.steps'?",
    "workload.prompts=missing.txt": "missing.txt",
    "feature=[teacache,cache_dit]": "cache_dit conflicts with teacache",
    "hydra.sweep.dir=/proc/nowhere": "cannot be written",
    "hydra.run.dir=mine": "a sweep (-m) goes to hydra.sweep.dir=mine",
    "--cfg=job": "leave -m out",
}


def check_refused(done, folder: Path, expected: str) -> None:
    assert done.code == 2, done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert expected in done.err
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
    assert "did you mean 'feature.teacache.rel_l1_thresh'?" in done.err


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_every_field_of_a_feature_can_be_set_and_none_drops_the_baseline(sweep, plus: str) -> None:
    done = sweep("-m", "feature=teacache", f"{plus}feature.teacache.gate.fail_mean_diff=0.1", "dry_run=true")
    assert done.code == 0, done.err
    assert "3 cells to run, 0 skipped" in done.out, "with baseline and A/A"


def test_missing_checkpoint_is_told_where_there_is_no_gpu_either(sweep, tmp_path: Path) -> None:
    real = ("model=qwen_image", "engine.device=cuda", "model.path=nowhere")
    check_refused(sweep("-m", *real), tmp_path, "model.path=nowhere: no such folder")


def test_option_of_a_feature_out_of_range(sweep) -> None:
    done = sweep("feature=teacache", "feature.teacache.rel_l1_thresh=-1")
    assert done.code == 2
    assert "must be from 0 to 10" in done.err


def test_option_of_a_feature_that_is_not_swept(sweep) -> None:
    done = sweep("-m", "feature=cfg_parallel", "feature.teacache.rel_l1_thresh=0.3")
    assert done.code == 2
    assert "no cell with feature 'teacache'" in done.err
