"""What goes wrong on a GPU ends one cell with its reason; the next group runs, and nothing stays on the GPU."""

import re
from pathlib import Path

import psutil

from sweep.machine.devices import cuda_device_count
from tests.faults.conftest import Sweep, alive, group_alive, numbers, wait_for
from tests.gpu.conftest import left_on_gpus, run

QWEN = "model=qwen_image"

DIES_WITH_TEACACHE = """
_load_model = DiffusionModelRunner.load_model

def load_model(self, *args, **kwargs):
    if self.od_config.cache_backend == "tea_cache":
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return _load_model(self, *args, **kwargs)

DiffusionModelRunner.load_model = load_model
"""


def nothing_left(sweep: Sweep, before_gb: tuple[float, ...]) -> None:
    """No process of the sweep's engines lives, and no memory is in use that was free before."""
    pids = sweep.engine_pids()
    assert pids, "an engine was started"
    assert [left for pid in pids for left in group_alive(pid)] == []
    assert left_on_gpus(before_gb) == []
    assert [event["memory_left"] for event in sweep.events("engine_end") if event["memory_left"]] == []


def test_typo_in_an_engine_option_is_refused_before_anything_starts(
    sweep: Sweep, qwen: Path, gpu_memory: tuple[float, ...]
) -> None:
    code, said = run(sweep, QWEN, f"model.path={qwen}", "+engine.args.cache_backnd=tea_cache")
    assert code == 2, said
    assert "cache_backnd" in said
    assert "cache_backend" in said, "the name that was meant"
    assert not sweep.folder.exists() or not sweep.events("engine_start")
    assert left_on_gpus(gpu_memory) == []


def test_missing_checkpoint_is_refused_with_one_line(sweep: Sweep, tmp_path: Path) -> None:
    code, said = run(sweep, QWEN, f"model.path={tmp_path / 'nowhere'}")
    assert code == 2, said
    assert f"model.path={tmp_path / 'nowhere'}" in said


def test_model_without_the_feature_and_too_few_gpus_are_skipped_with_the_reason(sweep: Sweep, glm: Path) -> None:
    degree = 4 * cuda_device_count()  # divides the attention heads
    many = f"feature.ulysses.degree={degree}"
    alone = ("baselines=false", "allow_empty=true")
    code, said = run(sweep, "model=glm_image", f"model.path={glm}", "feature=teacache,ulysses", many, *alone)
    assert code == 0, said
    found = sweep.statuses()
    assert found["teacache b1"] == ("SKIP", "feature_not_in_model")
    assert {"teacache", "glm_image"} <= set(re.findall(r"\w+", sweep.reason("teacache b1")))
    label = next(label for label in found if label.startswith("ulysses"))
    assert found[label] == ("SKIP", "too_few_devices")
    assert numbers(sweep.reason(label)) == [degree, cuda_device_count()]


def test_engine_that_dies_while_loading_and_the_group_after_it(
    sweep: Sweep, qwen: Path, gpu_memory: tuple[float, ...]
) -> None:
    sweep.inject("vllm_omni.diffusion.worker.diffusion_model_runner", DIES_WITH_TEACACHE)
    features = "feature=teacache,vae_tiling"  # in this order
    code, said = run(sweep, QWEN, f"model.path={qwen}", features, "workload.steps=4", "engine.load_timeout_s=120")
    assert code == 1, said
    found = sweep.statuses()
    assert found["teacache b1"][0] == "ERROR"
    assert sweep.stage("teacache b1") == "loading"
    assert found["vae_tiling b1"][0] in ("PASS", "WARN"), found
    assert found["baseline b1"] == ("PASS", "")
    nothing_left(sweep, gpu_memory)


def test_out_of_memory_by_a_batch_too_large_and_the_group_after_it(
    sweep: Sweep, qwen: Path, gpu_memory: tuple[float, ...]
) -> None:
    large = ("batch=1,64", "engine.max_num_seqs=64", "workload.steps=2", "workload.guidance_scale=1")
    size = ("workload.width=2048", "workload.height=2048")
    code, said = run(sweep, QWEN, f"model.path={qwen}", "feature=attention", *large, *size)
    assert code == 1, said
    found = sweep.statuses()
    assert found["baseline b64"] == ("ERROR", "oom"), found
    assert sweep.stage("baseline b64") == "warm-up"
    assert "CUDA out of memory" in sweep.reason("baseline b64")
    assert found["baseline b1"] == ("PASS", "")
    assert found["attention b1"][0] in ("PASS", "WARN"), found
    nothing_left(sweep, gpu_memory)


def test_worker_killed_while_generating_ends_its_cell_only(
    sweep: Sweep, qwen: Path, gpu_memory: tuple[float, ...]
) -> None:
    arguments = ("-m", "engine=vllm_omni", QWEN, f"model.path={qwen}", "feature=vae_tiling", "workload=image_1024")
    few = ("plots=false", "aa=0", "workload.num_prompts=1", "workload.steps=4", "workload.repeats=40")
    process = sweep.start(*arguments, *few, "engine.request_timeout_s=20")
    sweep.wait_until(process, lambda: sweep.is_running("baseline b1"))
    (engine,) = sweep.engine_pids()
    others = [psutil.Process(pid) for pid in group_alive(engine) if pid != engine]
    max(others, key=lambda process: process.memory_info().rss).kill()  # what holds CUDA is the largest
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, out + err
    found = sweep.statuses()
    assert found["baseline b1"][0] == "ERROR", found
    assert sweep.stage("baseline b1") == "running"
    assert numbers(sweep.reason("baseline b1"))[:2] == [1, 1] or found["baseline b1"][1] == "timeout", "batch 1 of 1"
    assert found["vae_tiling b1"][0] in ("PASS", "WARN"), found
    wait_for(lambda: not alive(engine))
    nothing_left(sweep, gpu_memory)
