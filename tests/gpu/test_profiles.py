"""Profiles of vLLM-Omni on a GPU: every process of both stages is in them, with its phases and its kernels."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

from tests.faults.conftest import Sweep
from tests.gpu.conftest import left_on_gpus, run
from tests.nsys import real_nsys

STEPS = 4


def test_torch_records_the_dit_and_the_ar_stage(sweep: Sweep, glm: Path, gpu_memory: tuple[float, ...]) -> None:
    code, said = run(sweep, "model=glm_image", f"model.path={glm}", f"workload.steps={STEPS}", "profile=torch")
    assert code == 0, said
    row = sweep.rows()["baseline b1"]
    assert (row["profiled"], row["note"]) == ("torch", "")
    ranges, kernels = {}, {}
    for name in ("rank0", "ar-rank0"):
        with gzip.open(sweep.cell_path("baseline b1") / f"trace-{name}.json.gz") as handle:
            events = [event for event in json.load(handle)["traceEvents"] if event.get("ph") == "X"]
        ranges[name] = Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
        kernels[name] = sum(event.get("cat") == "kernel" for event in events)
    dit, ar = ranges["rank0"], ranges["ar-rank0"]
    assert (dit["request"], dit["denoise_step"], dit["vae_decode"]) == (1, STEPS, 1)
    assert ar["ar_prefill"] >= 1
    assert ar["ar_prefill"] + ar["ar_decode"] == 64
    assert min(kernels.values()) > 100, kernels
    assert left_on_gpus(gpu_memory) == []


def test_nsys_records_both_stages_and_says_what_each_phase_waits_for(
    sweep: Sweep, glm: Path, gpu_memory: tuple[float, ...]
) -> None:
    real_nsys()
    code, said = run(sweep, "model=glm_image", f"model.path={glm}", f"workload.steps={STEPS}", "profile=nsys")
    assert code == 0, said
    with (sweep.cell_path("baseline b1") / "nsys_phases.csv").open() as handle:
        found = {row["phase"]: row for row in csv.DictReader(handle)}
    assert int(found["denoise_step"]["ranges"]) == STEPS
    assert int(found["ar_decode"]["ranges"]) >= 1280
    assert found["ar_decode"]["process"] != found["denoise_step"]["process"]
    assert all(int(found[phase]["projected_ns"]) > 0 for phase in ("ar_prefill", "ar_decode", "denoise_step"))
    assert found["ar_decode"]["verdict"] == "launch-bound", found["ar_decode"]["sentence"]
    assert f"nsys: {found['ar_decode']['sentence']}" in sweep.rows()["baseline b1"]["note"]
    assert left_on_gpus(gpu_memory) == []
