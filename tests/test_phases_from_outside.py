"""phases.csv of a real sweep against what a profiling tool saw from outside its processes."""

import csv
import subprocess
from collections import Counter
from pathlib import Path

from tests.conftest import environment, sweep_command
from tests.profiling.test_ranges import compile_tool


def test_phases_csv_and_nvtx_ranges_have_the_same_counts_in_every_process(tmp_path: Path) -> None:
    """Two ranks, no warm-up, one request: every range pushed is a row, every push has its pop."""
    tool, log = compile_tool(tmp_path), tmp_path / "nvtx.log"
    arguments = ["model=tiny_glm_image_random", "feature=cfg_parallel", "engine.warmup=0", "workload.num_prompts=1"]
    arguments += ["workload.repeats=1", "workload.steps=2", "plots=false", "hydra.run.dir=one"]
    done = subprocess.run(
        sweep_command(*arguments),
        cwd=tmp_path,
        env=environment() | {"NVTX_INJECTION64_PATH": str(tool), "NVTX_LOG": str(log)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    events = [line.split("\t") for line in log.read_text().splitlines()]
    seen = Counter((pid, name) for pid, kind, domain, name, _ in events if kind == "push" and domain == "sweep")
    pops = Counter(pid for pid, kind, domain, *_ in events if kind == "pop" and domain == "sweep")
    (phases,) = tmp_path.glob("one/*/phases.csv")
    with phases.open() as handle:
        recorded = Counter((row["rank"], row["phase"]) for row in csv.DictReader(handle))
    by_process = sorted(sorted((name, n) for (p, name), n in seen.items() if p == pid) for pid in {p for p, _ in seen})
    by_rank = sorted(sorted((name, n) for (r, name), n in recorded.items() if r == rank) for rank in ("0", "1"))
    own = sorted((name, 1) for name in ("plan", "engine_load", "warm_up", "measure"))  # of the sweep's own process
    assert sorted(by_process) == sorted([*by_rank, own])
    assert sum(pops.values()) == sum(seen.values())
    of_rank_0 = {phase: n for (rank, phase), n in recorded.items() if rank == "0"}
    assert of_rank_0["ar_prefill"] == of_rank_0["vae_decode"] == of_rank_0["request"] == 1
    assert of_rank_0["denoise_step"] == of_rank_0["dit_forward"] == 2
    assert of_rank_0["ar_decode"] > 200
